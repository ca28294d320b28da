//! `leaktrace doctor`: what is missing here, and how to get it.
//!
//! Comes in: where to write. Goes out: a table or JSON; [`Exit::Done`] if `run` would work, [`Exit::Failed`]
//! otherwise. Never: a judgement of its own, or an attached probe: the kernel side
//! is loaded only to see whether the kernel accepts it.

use crate::capability::Capabilities;
use crate::cli::config::Output;
use crate::cli::{Exit, TableFormat};
use crate::commands::output;
use crate::probe::load;

/// Probes and writes the result.
pub fn doctor(to: &Output<TableFormat>) -> anyhow::Result<Exit> {
    let mut capabilities = Capabilities::probe()?;
    if capabilities.require_for_run().is_ok() {
        capabilities = capabilities.with_programs(load::trial().map_err(|error| error.to_string()));
    }
    output::write(to.file.as_deref(), |w| match to.format {
        TableFormat::Text => capabilities.write_text(w),
        TableFormat::Json => capabilities.write_json(w),
    })?;
    Ok(match capabilities.require_for_run() {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    })
}
