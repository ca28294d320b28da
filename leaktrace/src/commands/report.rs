//! `leaktrace report`: a saved report in another format.
//!
//! Comes in: a JSON document of `run`. Goes out: the same report as text, folded stacks or pprof. Never: looks
//! at the system that it came from.

use std::io::{IsTerminal as _, Read as _};

use anyhow::Context as _;

use super::output;
use crate::cli::config::{Input, ReportConfig};
use crate::cli::{Exit, ReportFormat};
use crate::report::model::Report;
use crate::report::{self, Format, Options};

/// Runs the command.
pub fn report(config: &ReportConfig) -> anyhow::Result<Exit> {
    let report = read(&config.input)?;
    let terminal = config.output.file.is_none() && std::io::stdout().is_terminal();
    let options = Options {
        top: config.top.map(std::num::NonZero::get),
        columns: terminal.then(columns).flatten(),
        ..Options::default()
    };
    output::write(config.output.file.as_deref(), |out| {
        report::write(&report, format(config.output.format), &options, out)
    })?;
    Ok(Exit::Done)
}

/// Reads a saved report.
pub(super) fn read(input: &Input) -> anyhow::Result<Report> {
    let (name, bytes) = match input {
        Input::Stdin => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).context("can't read stdin")?;
            ("stdin".to_owned(), bytes)
        }
        Input::File(path) => {
            let name = path.display().to_string();
            (name.clone(), std::fs::read(path).with_context(|| format!("can't read {name}"))?)
        }
    };
    report::json::read(&bytes).with_context(|| name)
}

/// The library's name for what was typed.
pub(super) fn format(typed: ReportFormat) -> Format {
    match typed {
        ReportFormat::Text => Format::Text,
        ReportFormat::Json => Format::Json,
        ReportFormat::Folded => Format::Folded,
        ReportFormat::Pprof => Format::Pprof,
    }
}

/// Width of the terminal on stdout.
pub(super) fn columns() -> Option<usize> {
    rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col))
}
