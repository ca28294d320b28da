//! Parses the command line, runs the command, turns its result into an exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use leaktrace::cli::config::Command;
use leaktrace::cli::{self, Exit, Invocation};
use leaktrace::commands::{diff, doctor, generate, report, run};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os(), std::io::stdout().is_terminal()) {
        Ok(invocation) => match execute(invocation) {
            Ok(exit) => exit.into(),
            Err(error) => {
                eprintln!("leaktrace: {error:#}");
                Exit::Failed.into()
            }
        },
        Err(usage) => usage.exit(),
    }
}

fn execute(invocation: Invocation) -> anyhow::Result<Exit> {
    cli::log::init(invocation.verbosity)?;
    match invocation.command {
        Command::Completions(shell) => generate::completions(shell),
        Command::Man(directory) => generate::man(directory.as_deref()),
        Command::Doctor(output) => doctor::doctor(&output),
        Command::Run(config) => run::run(&config, invocation.verbosity),
        Command::Report(config) => report::report(&config),
        Command::Diff(config) => diff::diff(&config),
    }
}
