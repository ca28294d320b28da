//! Tells the kernel side which processes are traced, and answers those that wait.
//!
//! Comes in: pids. Goes out: entries of the gate's maps. Never: decides who is traced.

use aya::maps::{HashMap, MapData, MapError};
use leaktrace_common::process::{Lost, Traced};

use crate::event::{Pid, ProcessKey};

/// The answer to a process that waits; the kernel side counts its generation up.
const NEW_GENERATION: u32 = 2;

/// How often it is looked whether the gate is closed for all.
const MOST_PASSES: usize = 8;

/// The gate's maps.
pub struct Gate {
    traced: HashMap<MapData, u32, Traced>,
    holds: HashMap<MapData, u32, u32>,
}

/// Why the gate did not take a process.
#[derive(Debug, thiserror::Error)]
#[error(
    "process {pid} cannot be traced: {source} (at most {} processes are traced at a time)",
    leaktrace_common::limits::MAX_PROCESSES
)]
pub struct GateError {
    pid: Pid,
    source: MapError,
}

impl Gate {
    pub(super) fn new(traced: HashMap<MapData, u32, Traced>, holds: HashMap<MapData, u32, u32>) -> Self {
        Self { traced, holds }
    }

    /// Lets a process's events through; its mappings are of generation 0. Its children are traced too, and with
    /// `follow_exec` whatever it or they run.
    pub fn open(&mut self, process: ProcessKey, follow_exec: bool) -> Result<(), GateError> {
        let flags = if follow_exec { leaktrace_common::process::FOLLOW_EXEC } else { 0 };
        let entry = Traced { owner: process.pid.0, flags, start_ns: process.start_ns, ..Traced::default() };
        self.traced.insert(process.pid.0, entry, 0).map_err(|source| GateError { pid: process.pid, source })
    }

    /// Stops all events; returns what was lost for each process.
    pub fn close(&mut self) -> Vec<(Pid, Lost)> {
        let mut closed = Vec::new();
        // What forks or begins a program meanwhile opens the gate once more.
        for _ in 0..MOST_PASSES {
            let open: Vec<_> = self.traced.iter().filter_map(Result::ok).collect();
            if open.is_empty() {
                break;
            }
            for (pid, entry) in open {
                // It may just have ended.
                let _ = self.traced.remove(&pid);
                closed.push((Pid(pid), entry.lost));
            }
        }
        closed
    }

    /// What was lost for a process that is still traced.
    pub fn lost(&self, pid: Pid) -> Option<Lost> {
        self.traced.get(&pid.0, 0).ok().map(|entry| entry.lost)
    }

    /// Lets a process that waits go on; `false` if it had stopped waiting.
    pub fn release(&mut self, pid: Pid, new_generation: bool) -> bool {
        if new_generation {
            // Only an entry that is still there: one that is made anew would greet the next wait.
            const EXISTING: u64 = 2;
            return self.holds.insert(pid.0, NEW_GENERATION, EXISTING).is_ok();
        }
        self.holds.remove(&pid.0).is_ok()
    }
}
