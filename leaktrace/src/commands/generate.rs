//! `leaktrace completions` and `leaktrace man`: what the definition of the command line also yields.
//!
//! Comes in: a shell, or a directory. Goes out: a completion script, man pages. Never: text of its own.

use std::path::Path;

use anyhow::Context;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::{self, Exit};
use crate::commands::output;

/// Prints the completion script for `shell`.
pub fn completions(shell: Shell) -> anyhow::Result<Exit> {
    let mut command = cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    output::write(None, |w| w.write_all(&script))?;
    Ok(Exit::Done)
}

/// Prints the main man page, or writes one page per command into `directory`, which is created.
pub fn man(directory: Option<&Path>) -> anyhow::Result<Exit> {
    // `help` explains itself; its page would only repeat the list of commands.
    let command = cli::command().disable_help_subcommand(true);
    match directory {
        None => output::write(None, |mut w| Man::new(command).render(&mut w))?,
        Some(directory) => std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(command, directory))
            .with_context(|| format!("can't write man pages to {}", directory.display()))?,
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        man(Some(directory.path())).unwrap();
        let mut pages: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        let mut expected = vec!["leaktrace.1".to_owned()];
        expected.extend(cli::command().get_subcommands().map(|c| format!("leaktrace-{}.1", c.get_name())));
        expected.sort();
        assert_eq!(pages, expected);
    }
}
