//! Traces real programs with the `leaktrace` binary and compares with what they say about themselves.
//!
//! Needs root to trace; what the machine lacks is skipped with a word on stderr, unless `LEAKTRACE_REQUIRE_ROOT=1` or
//! `LEAKTRACE_REQUIRE_TOOLS=1`. Run it with few threads: each test is a traced program and an agent.

mod allocators;
mod bad_targets;
mod command_line;
mod exact;
mod formats;
mod loss;
mod machine;
mod metrics;
mod processes;
mod real_programs;
mod side_effects;
mod truths;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use leaktrace::report::model::Report;
use leaktrace_tests::compile::Recipe;
use leaktrace_tests::environment;
use leaktrace_tests::leaktrace::Leaktrace;
use leaktrace_tests::program::Program;
use leaktrace_tests::truth::{self, Truth};

/// The fixture, if this machine can trace and build it.
fn fixture(recipe: &Recipe) -> Option<PathBuf> {
    if environment::only_builds() || environment::root() { recipe.build() } else { None }
}

/// Attaches to a fixture before its first phase and takes the report after its last one, which must be exact.
fn assert_traced_exactly(recipe: &Recipe, phases: usize) {
    if let Some(path) = fixture(recipe) {
        assert_command_traced_exactly(&mut Command::new(path), phases);
    }
}

/// The same for a fixture with an environment of its own.
fn assert_command_traced_exactly(command: &mut Command, phases: usize) {
    let mut program = Program::start_command(command);
    let (report, truths) = trace(&mut program, Leaktrace::run(), phases);
    truth::assert_exact(&report, &truths);
    assert!(program.end().success(), "the fixture ends as it does untraced");
}

/// What `run` reports of so many phases of a running fixture, and what the last one says is true.
fn trace(program: &mut Program, run: Leaktrace, phases: usize) -> (Report, Vec<Truth>) {
    let session = run.pid(program.pid()).start().ready();
    let mut truths = Vec::new();
    for _ in 0..phases {
        truths = program.go();
    }
    (session.stop().report(), truths)
}

/// A copy of a program in a directory of its own, under a name that nothing else on the machine has.
fn private_copy(program: &Path, directory: &Path) -> PathBuf {
    let unique = directory.file_name().and_then(std::ffi::OsStr::to_str).expect("a temporary name is text");
    // A comm has 15 bytes.
    let copy = directory.join(format!("lt{}", unique.trim_start_matches('.')));
    std::fs::copy(program, &copy).expect("a program can be copied");
    copy
}

/// Waits until something holds.
fn within(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + environment::patience(patience);
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
