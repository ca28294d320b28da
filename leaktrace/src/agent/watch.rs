//! Begins to trace a process that runs already, or that is about to run its program.
//!
//! Comes in: a process. Goes out: its probes, its entry in the ledger, an open gate, in this order. Never: a
//! process that is half traced: what fails is undone.

use super::arm::Armer;
use super::shared::Shared;
use crate::event::Pid;
use crate::probe::gate::GateError;
use crate::target::{Process, ProcessError};

/// Why a running process can't be traced.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// What it is.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The gate is full.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The kernel says no.
    #[error("process {pid} cannot be probed: {source}")]
    Arm {
        /// Which.
        pid: Pid,
        /// Its errno.
        source: std::io::Error,
    },
    /// Nothing to probe.
    #[error(
        "process {pid} ({exe}) has no allocation function that leaktrace knows: nothing would be seen. \
         Is it a stripped static program? Its debug file would help; `-v` says what was looked at"
    )]
    NothingToProbe {
        /// Which.
        pid: Pid,
        /// Its program.
        exe: String,
    },
}

/// Traces a process that runs already.
pub fn watch(
    shared: &Shared,
    armer: &mut Armer,
    process: &Process,
    follow_exec: bool,
) -> Result<(), WatchError> {
    let (key, pid) = (process.key(), process.key().pid);
    process.check_traceable()?;
    let mappings = shared.registry.capture(key, 0)?;
    let armed = armer.arm(pid, &mappings).map_err(|source| WatchError::Arm { pid, source });
    let watched = armed.and_then(|outcome| {
        if outcome.new_files == 0 {
            return Err(WatchError::NothingToProbe { pid, exe: mappings.exe().to_string() });
        }
        let comm = process.comm()?;
        announce(pid, &comm.0);
        // The ledger must know the process before its first event comes.
        shared.intake.ledger().watch(key, comm, shared.intake.now());
        Ok(shared.gate().open(key, follow_exec)?)
    });
    if watched.is_err() {
        shared.board().disarm(pid);
    }
    watched
}

/// Opens the gate for a process that is about to run its program; its exec arms it.
pub fn expect(shared: &Shared, armer: &mut Armer, process: &Process) -> Result<(), WatchError> {
    let (key, pid) = (process.key(), process.key().pid);
    // Events that are on the task before its exec are in the loader from its first instruction.
    let mappings = shared.registry.capture(key, 0)?;
    armer.arm(pid, &mappings).map_err(|source| WatchError::Arm { pid, source })?;
    Ok(shared.gate().open(key, true)?)
}

/// Tells a person, and scripts that wait for it.
pub fn announce(pid: Pid, comm: &str) {
    eprintln!("tracing {pid} ({comm})");
}
