//! The command line: one definition that yields parsing, help, man pages and completions.
//!
//! Comes in: the arguments. Goes out: an [`Invocation`], checked, and an [`Exit`] at the end. Never: does any of
//! the work; that is `commands`'.
//!
//! Two steps, as in [ripgrep](https://github.com/BurntSushi/ripgrep/tree/master/crates/core/flags): arguments as
//! typed (`args`), then a configuration that holds ([`config`]).

mod args;
pub mod config;
mod exit;
pub mod log;
pub mod units;

#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

pub use args::{ReportFormat, TableFormat};
pub use config::Invocation;
pub use exit::Exit;

/// The definition of the command line, for man pages, completions and help.
pub fn command() -> clap::Command {
    args::Cli::command()
}

/// Reads the arguments, the program's name first.
///
/// The error prints itself and knows its exit code: 2, or 0 for `--help` and `--version`.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    stdout_is_terminal: bool,
) -> Result<Invocation, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let typed = args::Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Invocation::new(typed, stdout_is_terminal).map_err(|error| {
        let name = matches.subcommand_name().unwrap_or_default();
        // The usage below the message is that of the command that was typed.
        let typed_command = match command.find_subcommand_mut(name) {
            Some(subcommand) => subcommand,
            None => &mut command,
        };
        typed_command.error(ErrorKind::ValueValidation, error)
    })
}
