//! One fixture, one truth, one report: equal to the byte and block.

use std::process::Command;

use leaktrace_tests::compile::Recipe;
use leaktrace_tests::leaktrace::Leaktrace;
use leaktrace_tests::program::Program;
use leaktrace_tests::truth;

use super::{assert_command_traced_exactly, assert_traced_exactly, fixture, trace};

#[test]
fn a_hundred_stacks_with_200_000_blocks() {
    assert_traced_exactly(&Recipe::new("stacks.c"), 1);
}

#[test]
fn one_leak_is_left_of_200_000_blocks() {
    assert_traced_exactly(&Recipe::new("stacks.c"), 2);
}

#[test]
fn frees_of_what_is_older_than_the_tracing_are_counted_and_touch_nothing() {
    let Some(path) = fixture(&Recipe::new("stacks.c")) else { return };
    let mut program = Program::start(&path);
    program.go();
    let (report, _) = trace(&mut program, Leaktrace::run(), 1);
    let [process] = &report.processes[..] else { panic!("{}", truth::summary(&report)) };
    assert_eq!((process.live_bytes, process.allocations), (0, 0), "{}", truth::summary(&report));
    assert_eq!(report.completeness.unmatched_frees, 200_000);
    assert_eq!(report.completeness.lost, 0);
    assert!(program.end().success());
}

#[test]
fn threads_that_free_each_others_blocks() {
    assert_traced_exactly(&Recipe::new("threads.c").flags(&["-pthread"]), 1);
}

#[test]
fn thousands_of_threads_that_come_and_go() {
    assert_traced_exactly(&Recipe::new("churn.c").flags(&["-pthread"]), 1);
}

#[test]
fn reallocs_that_move_and_fail_while_others_take_their_addresses() {
    assert_traced_exactly(&Recipe::new("realloc.c").flags(&["-pthread"]), 1);
}

#[test]
fn every_allocation_function() {
    assert_traced_exactly(&Recipe::new("functions.c"), 1);
}

#[test]
fn mappings_cut_moved_and_covered() {
    assert_traced_exactly(&Recipe::new("mappings.c"), 1);
}

#[test]
fn an_allocators_own_mappings_are_not_mappings() {
    assert_traced_exactly(&Recipe::new("mappings.c"), 2);
}

#[test]
fn only_the_kinds_asked_for_are_traced() {
    let Some(path) = fixture(&Recipe::new("mappings.c")) else { return };
    for kind in ["heap", "mmap"] {
        let mut program = Program::start(&path);
        let (report, mut truths) = trace(&mut program, Leaktrace::run().args(["--kinds", kind]), 2);
        truths[0].sites.retain(|site| site.kind == kind);
        truth::assert_exact(&report, &truths);
        assert!(program.end().success());
    }
}

#[test]
fn every_operator_new_and_a_bad_alloc_that_is_caught() {
    assert_traced_exactly(&Recipe::new("cxx.cpp"), 1);
}

#[test]
fn rust_collections_and_what_rust_leaks() {
    assert_traced_exactly(&Recipe::new("rust.rs"), 1);
}

#[test]
fn libraries_that_are_gone_and_an_allocator_that_comes_late() {
    let plugin = |name: &str, bytes: &str| {
        let flags = ["-shared", "-fPIC", &format!("-DNAME={name}"), &format!("-DBYTES={bytes}")];
        Recipe::new("plugin.c").named(&format!("{name}.so")).flags(&flags).build()
    };
    let plugins = [plugin("plugin_one", "30"), plugin("plugin_two", "50")];
    let (Some(path), [Some(one), Some(two)]) = (fixture(&Recipe::new("dlopen.c")), plugins) else { return };
    let mut command = Command::new(path);
    command.env("PLUGIN_ONE", one).env("PLUGIN_TWO", two).env("LATE_ALLOCATOR", "libmimalloc.so.2");
    assert_command_traced_exactly(&mut command, 1);
}
