//! `leaktrace diff`: what grew between two saved reports, by site.
//!
//! Comes in: two JSON documents of `run`. Goes out: text or JSON. Never: a verdict.

use std::io::IsTerminal as _;

use super::output;
use super::report::{columns, read};
use crate::cli::config::DiffConfig;
use crate::cli::{Exit, TableFormat};
use crate::report::Options;
use crate::report::diff::{self, write_json, write_text};

/// Runs the command.
pub fn diff(config: &DiffConfig) -> anyhow::Result<Exit> {
    let (before, after) = (read(&config.before)?, read(&config.after)?);
    let difference = diff::diff(&before, &after);
    let terminal = config.output.file.is_none() && std::io::stdout().is_terminal();
    let options = Options {
        top: config.top.map(std::num::NonZero::get),
        columns: terminal.then(columns).flatten(),
        ..Options::default()
    };
    output::write(config.output.file.as_deref(), |out| match config.output.format {
        TableFormat::Text => write_text(&difference, &options, out),
        TableFormat::Json => write_json(&difference, out),
    })?;
    Ok(Exit::Done)
}
