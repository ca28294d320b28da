//! Every task of this workspace by one door: `cargo xtask TASK`.
//!
//! Comes in: the command line. Goes out: one module's `run`. Results go to stdout, progress to stderr. Never:
//! links `leaktrace`, because `bootstrap` has to run before that can be built.
#![expect(clippy::print_stdout, reason = "a task's result is what it prints")]

mod bench;
mod bootstrap;
mod command;
mod demo;
mod dist;
mod lint;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Every task of leaktrace by one door.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Check what building (and testing) needs and install what is missing.
    Bootstrap(bootstrap::Options),
    /// Run every test: unit tests, then programs traced for real (that part needs root).
    Test(test::Options),
    /// Run the suite in virtual machines with other kernels.
    VmTest(vm::Options),
    /// Check formatting, clippy and the rules of CONTRIBUTING.md.
    Lint,
    /// Trace a small leaking program and a Redis server under load, and print the report (needs root).
    Demo(demo::Options),
    /// Measure what tracing costs (needs root).
    Bench(bench::Options),
    /// Write man pages and shell completions into target/dist.
    Dist,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Bootstrap(options) => bootstrap::run(options.scope()),
        Task::Test(options) => test::run(&options),
        Task::VmTest(options) => vm::run(&options),
        Task::Lint => lint::run(),
        Task::Demo(options) => demo::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Dist => dist::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Without a backtrace, which says nothing to someone who lacks a package.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
