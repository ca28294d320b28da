//! What this kernel, these privileges and this machine allow.
//!
//! Comes in: the machine, probed once. Goes out: [`Capabilities`], one [`Check`] per thing that tracing needs, as a
//! table, as JSON, or as the error that `run` ends with. Never: changes the machine, or attaches a probe.

mod bpf;
mod check;
pub mod facts;
mod judge;
mod probe;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

pub use check::{Check, State};
pub use facts::Facts;

use crate::probe::load::Accepted;
use crate::report::model::SCHEMA;

/// What was found, and what it means.
#[derive(Debug, Clone)]
pub struct Capabilities {
    facts: Facts,
    checks: Vec<Check>,
}

/// `/proc`, where all begins, can't be read.
#[derive(Debug, thiserror::Error)]
#[error("can't read /proc/self/status: is /proc mounted?")]
pub struct ProbeError {
    source: procfs::ProcError,
}

/// Tracing can't work here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapabilityError {
    /// What is missing.
    pub missing: Vec<Check>,
}

impl std::error::Error for CapabilityError {}

impl fmt::Display for CapabilityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("can't trace on this machine:")?;
        for check in &self.missing {
            write!(f, "\n  {}: {}", check.name, check.detail)?;
            if let Some(remedy) = &check.remedy {
                write!(f, "\n    -> {remedy}")?;
            }
        }
        Ok(())
    }
}

/// The JSON document of `leaktrace doctor`.
#[derive(Serialize)]
struct Document<'c> {
    schema: &'static str,
    kind: &'static str,
    kernel: &'c str,
    architecture: &'static str,
    euid: u32,
    capabilities: Vec<&'static str>,
    ready: bool,
    checks: &'c [Check],
    /// Verified instructions by program, if the kernel side was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    programs: Option<BTreeMap<&'c str, Option<u32>>>,
}

impl Capabilities {
    /// Asks the kernel and the machine. Takes some milliseconds.
    pub fn probe() -> Result<Self, ProbeError> {
        probe::facts().map(Self::of).map_err(|source| ProbeError { source })
    }

    /// What these facts mean.
    pub fn of(facts: Facts) -> Self {
        let checks = judge::judge(&facts);
        Self { facts, checks }
    }

    /// The same with what came of loading the kernel side.
    #[must_use]
    pub fn with_programs(self, tried: Result<Vec<Accepted>, String>) -> Self {
        Self::of(Facts { programs: Some(tried), ..self.facts })
    }

    fn programs(&self) -> Option<BTreeMap<&str, Option<u32>>> {
        let accepted = self.facts.programs.as_ref()?.as_ref().ok()?;
        Some(accepted.iter().map(|program| (program.name.as_str(), program.verified_instructions)).collect())
    }

    /// What was found.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// One per thing that tracing needs.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Whether `leaktrace run` can attach, as far as can be told without attaching.
    pub fn require_for_run(&self) -> Result<(), CapabilityError> {
        let missing: Vec<_> =
            self.checks.iter().filter(|check| check.state == State::Missing).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(CapabilityError { missing }) }
    }

    /// Writes the checks as a table.
    pub fn write_text(&self, w: &mut dyn Write) -> io::Result<()> {
        table::write(self, w)
    }

    /// Writes facts and checks as one JSON document, schema `leaktrace/1`, kind `doctor`.
    pub fn write_json(&self, w: &mut dyn Write) -> io::Result<()> {
        let document = Document {
            schema: SCHEMA,
            kind: "doctor",
            kernel: &self.facts.kernel_release,
            architecture: self.facts.architecture,
            euid: self.facts.euid,
            capabilities: facts::Capability::ALL
                .into_iter()
                .filter(|capability| self.facts.capabilities.contains(*capability))
                .map(facts::Capability::name)
                .collect(),
            ready: self.require_for_run().is_ok(),
            checks: &self.checks,
            programs: self.programs(),
        };
        serde_json::to_writer_pretty(&mut *w, &document)?;
        writeln!(w)
    }
}
