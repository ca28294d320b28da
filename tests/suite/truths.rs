//! The truths themselves: valgrind and the kernel, who know nothing of leaktrace, agree with them.

use leaktrace_tests::compile::Recipe;
use leaktrace_tests::environment;
use leaktrace_tests::oracle;
use leaktrace_tests::program::{Program, truths_of};
use leaktrace_tests::truth::{At, TrueSite, Truth};

/// Whether the fixture's blocks are all that the process has at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    Runtime,
}

#[test]
fn valgrind_agrees_about_single_threads() {
    for file in ["stacks.c", "functions.c", "short.c", "cxx.cpp", "allocators_cxx.cpp"] {
        assert_valgrind_agrees(&Recipe::new(file).flags(&["-DUNDER_VALGRIND"]), Rest::Nothing);
    }
}

#[test]
fn valgrind_agrees_about_threads() {
    for file in ["threads.c", "churn.c", "realloc.c", "allocators.c", "burst.c"] {
        assert_valgrind_agrees(&Recipe::new(file).flags(&["-pthread"]), Rest::Nothing);
    }
}

#[test]
fn valgrind_agrees_about_processes() {
    assert_valgrind_agrees(&Recipe::new("fork_exec.c"), Rest::Nothing);
}

#[test]
fn valgrind_agrees_about_rust() {
    assert_valgrind_agrees(&Recipe::new("rust.rs"), Rest::Runtime);
}

fn assert_valgrind_agrees(recipe: &Recipe, rest: Rest) {
    let (Some(valgrind), Some(path)) = (environment::tool("valgrind"), recipe.build()) else { return };
    let (stdout, seen) = oracle::valgrind(&valgrind, &path);
    let truths = truths_of(&stdout);
    assert!(!truths.is_empty(), "{} tells nothing", path.display());
    // Of a process that tells more than once, the last is true at its exit.
    for (i, truth) in truths.iter().enumerate() {
        if truths[i + 1..].iter().any(|later| later.pid == truth.pid) {
            continue;
        }
        let place = format!("{} pid {}", path.display(), truth.pid);
        let in_use = seen.get(&truth.pid).unwrap_or_else(|| panic!("{place}: valgrind saw no end of it"));
        for site in truth.sites.iter().filter(|site| site.at != At::Module) {
            let found = in_use.of(|stack| is(site, stack));
            assert_eq!(found, live(site), "{place}: {}\n{in_use:#?}", site.name);
        }
        if rest == Rest::Nothing {
            assert_eq!(in_use.total, total(truth), "{place}\n{in_use:#?}");
        }
    }
}

fn is(site: &TrueSite, stack: &[String]) -> bool {
    match site.at {
        // Valgrind shows what is inlined as frames, not which frame is a function's own.
        At::Caller => stack.iter().take(2).any(|name| *name == site.name),
        At::Within => stack.contains(&site.name),
        At::Module => false,
    }
}

fn live(site: &TrueSite) -> (u64, u64) {
    let known = "what is live is known without a tracer";
    (site.live_bytes.expect(known), site.live_allocations.expect(known))
}

fn total(truth: &Truth) -> (u64, u64) {
    truth.sites.iter().map(live).fold((0, 0), |sum, site| (sum.0 + site.0, sum.1 + site.1))
}

#[test]
fn the_kernel_agrees_with_the_truth_of_the_mappings() {
    let Some(path) = Recipe::new("mappings.c").build() else { return };
    let mut program = Program::start(&path);
    let before = oracle::address_space(program.pid());
    let truths = program.go();
    let grown = oracle::address_space(program.pid()) - before;
    assert_eq!(truths[0].totals()[0], Some(grown));
    assert!(program.end().success());
}

#[test]
fn every_fixture_runs_by_itself() {
    for (file, code) in [("mappings.c", 0), ("steady.c", 0), ("own_malloc.c", 0), ("short.c", 7)] {
        let Some(path) = Recipe::new(file).flags(&["-pthread"]).build() else { return };
        let run = std::process::Command::new(&path).arg("now").output().expect("a fixture runs");
        assert_eq!(run.status.code(), Some(code), "{file}");
        assert!(!truths_of(&String::from_utf8_lossy(&run.stdout)).is_empty(), "{file}");
    }
}
