//! `leaktrace doctor`: what is missing here, and how to get it.
//!
//! Comes in: where to write. Goes out: a table or JSON; [`Exit::Done`] if `run` would work, [`Exit::Failed`]
//! otherwise. Never: a judgement of its own.

use crate::capability::Capabilities;
use crate::cli::config::Output;
use crate::cli::{Exit, TableFormat};
use crate::commands::output;

/// Probes and writes the result.
pub fn doctor(to: &Output<TableFormat>) -> anyhow::Result<Exit> {
    let capabilities = Capabilities::probe()?;
    output::write(to.file.as_deref(), |w| match to.format {
        TableFormat::Text => capabilities.write_text(w),
        TableFormat::Json => capabilities.write_json(w),
    })?;
    Ok(match capabilities.require_for_run() {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    })
}
