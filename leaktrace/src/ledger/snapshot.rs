//! The ledger at one moment.
//!
//! Comes in: from [`super::Ledger::snapshot`]. Goes out: plain numbers by process and site. Never: symbols,
//! which are the next stage's.

use std::time::Duration;

use leaktrace_common::process::Lost;

use crate::event::{Comm, Kind, ProcessKey, StackId};

/// All processes, those that ended included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerSnapshot {
    /// By start time, then pid.
    pub processes: Vec<ProcessSnapshot>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSnapshot {
    /// Which.
    pub key: ProcessKey,
    /// Its name.
    pub comm: Comm,
    /// Whether it is gone.
    pub exited: bool,
    /// Its sites, unordered; sites without anything outstanding included.
    pub sites: Vec<SiteSnapshot>,
    /// Frees of blocks that the ledger never saw: older than the tracing, or their allocation was lost.
    pub unmatched_frees: u64,
    /// Blocks whose address was handed out again: their free was lost, or happened unseen.
    pub replaced: u64,
    /// Allocations that the ledger had no room for; they are in the totals, not in what is outstanding. Of a
    /// child also what it could not inherit for want of room.
    pub untracked: u64,
    /// Their bytes.
    pub untracked_bytes: u64,
    /// What the kernel side lost for this process, as far as the ledger was told (at its exit).
    pub lost: Lost,
    /// The most bytes that `lost.frees` blocks, the largest outstanding ones, can account for: by so much
    /// the outstanding bytes may be too high.
    pub doubtful_bytes: u64,
}

/// One call site of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteSnapshot {
    /// What it allocates.
    pub kind: Kind,
    /// Where; `None` if no stack could be taken, or if there was no room for its site.
    pub stack: Option<StackId>,
    /// Outstanding bytes.
    pub live_bytes: u64,
    /// Outstanding blocks; a mapping counts once for each piece that is left of it.
    pub live_allocations: u64,
    /// All bytes ever allocated here.
    pub allocated_bytes: u64,
    /// All blocks ever allocated here; what a child inherits isn't, and a move (`realloc`, `mremap`) is one
    /// of its new size at its own site.
    pub allocations: u64,
    /// Age of the oldest outstanding block, up to 17 ms too much; of a process that ended, at its end.
    pub oldest_age: Option<Duration>,
}
