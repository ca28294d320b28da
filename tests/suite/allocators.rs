//! The same truth, whoever allocates.

use std::process::Command;

use leaktrace_tests::compile::Recipe;

use super::{assert_command_traced_exactly, assert_traced_exactly, fixture};

/// With libc in the program, libc's own allocations are the program's.
const IN_PROGRAM: &str = "-DOTHERS=ANY";

fn c(name: &str, flags: &[&str]) -> Recipe {
    Recipe::new("allocators.c").named(&format!("c-{name}")).flags(&["-pthread"]).flags(flags)
}

fn cxx(name: &str, flags: &[&str]) -> Recipe {
    Recipe::new("allocators_cxx.cpp").named(&format!("cxx-{name}")).flags(flags)
}

#[test]
fn glibc() {
    assert_traced_exactly(&c("glibc", &[]), 1);
    assert_traced_exactly(&cxx("glibc", &[]), 1);
}

#[test]
fn static_glibc() {
    assert_traced_exactly(&c("static", &["-static", IN_PROGRAM]), 1);
    assert_traced_exactly(&cxx("static", &["-static", IN_PROGRAM]), 1);
}

#[test]
fn jemalloc() {
    assert_traced_exactly(&c("jemalloc", &["-ljemalloc"]), 1);
    assert_traced_exactly(&cxx("jemalloc", &["-ljemalloc"]), 1);
}

#[test]
fn static_jemalloc() {
    let flags = ["-l:libjemalloc.a", "-lstdc++", "-lm", "-ldl", IN_PROGRAM];
    assert_traced_exactly(&c("jemalloc-a", &flags), 1);
    assert_traced_exactly(&cxx("jemalloc-a", &flags), 1);
}

#[test]
fn preloaded_jemalloc() {
    for recipe in [c("glibc", &[]), cxx("glibc", &[])] {
        let Some(path) = fixture(&recipe) else { return };
        assert_command_traced_exactly(Command::new(path).env("LD_PRELOAD", "libjemalloc.so.2"), 1);
    }
}

#[test]
fn mimalloc() {
    assert_traced_exactly(&c("mimalloc", &["-lmimalloc"]), 1);
    assert_traced_exactly(&cxx("mimalloc", &["-lmimalloc", "-DENDS_WITHOUT_MEMORY"]), 1);
}

#[test]
fn tcmalloc() {
    assert_traced_exactly(&c("tcmalloc", &["-ltcmalloc_minimal"]), 1);
    assert_traced_exactly(&cxx("tcmalloc", &["-ltcmalloc_minimal"]), 1);
}

#[test]
fn musl() {
    assert_traced_exactly(&c("musl", &[]).compiler("musl-gcc"), 1);
    assert_traced_exactly(&c("musl-static", &["-static", IN_PROGRAM]).compiler("musl-gcc"), 1);
}

#[test]
fn an_allocator_of_the_programs_own() {
    assert_traced_exactly(&Recipe::new("own_malloc.c").flags(&["-pthread"]), 1);
}

#[test]
fn interfaces_beside_malloc() {
    let recipe = |name: &str, flags: &[&str]| Recipe::new("allocators_own.c").named(name).flags(flags);
    assert_traced_exactly(&recipe("own-jemalloc", &["-DWITH_JEMALLOC", "-ljemalloc"]), 1);
    assert_traced_exactly(&recipe("own-mimalloc", &["-DWITH_MIMALLOC", "-lmimalloc"]), 1);
}
