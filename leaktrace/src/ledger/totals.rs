//! Numbers that cost no walk over blocks: for metrics.
//!
//! Comes in: from the ledger's accounts. Goes out: plain numbers. Never: ages, which only a
//! [`super::LedgerSnapshot`] has.

use super::sites::Amount;
use crate::event::{Comm, ProcessKey};

/// What did not fit together, of a process or of all. Every one of them makes a report less exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Anomalies {
    /// Frees of blocks that the ledger never saw: older than the tracing, or their allocation was lost. Frees
    /// of untracked blocks aren't among them: of a process with untracked blocks, as many frees of unknown
    /// blocks are put down to those.
    pub unmatched_frees: u64,
    /// Blocks whose address was handed out again: their free was lost, or happened unseen.
    pub replaced: u64,
    /// Moves (`realloc`, `mremap`) whose end was never seen; what they moved was forgotten.
    pub unended_moves: u64,
    /// Allocations that the ledger had no room for, and blocks that a child could not inherit for the same
    /// reason.
    pub untracked: u64,
    /// Their bytes.
    pub untracked_bytes: u64,
}

impl Anomalies {
    pub(super) fn untracked(&mut self, amount: Amount) {
        self.untracked += amount.blocks;
        self.untracked_bytes = self.untracked_bytes.wrapping_add(amount.bytes);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.unmatched_frees += other.unmatched_frees;
        self.replaced += other.replaced;
        self.unended_moves += other.unended_moves;
        self.untracked(Amount { blocks: other.untracked, bytes: other.untracked_bytes });
    }
}

/// The whole ledger. Counts only grow; what is called "number of" goes up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerTotals {
    /// Number of running processes.
    pub running: usize,
    /// Number of processes that ended and are kept.
    pub closed: usize,
    /// Processes that ended and were dropped, because there was no room for more of them.
    pub closed_dropped: u64,
    /// Number of outstanding blocks and pieces of mappings of running processes.
    pub tracked_blocks: u64,
    /// Number of call sites.
    pub sites: u64,
    /// Allocations put down to "no stack", because there was no room for one more site.
    pub unsited: u64,
    /// Number of stacks whose frames are known.
    pub stacks: usize,
    /// Stacks whose frames were dropped, because there was no room for them.
    pub stacks_dropped: u64,
    /// Events of processes that the ledger did not know.
    pub unknown_process: u64,
    /// What did not fit together, in all processes that ever were.
    pub anomalies: Anomalies,
}

/// One running process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessTotals<'a> {
    /// Which.
    pub key: ProcessKey,
    /// Its name.
    pub comm: &'a Comm,
    /// Outstanding bytes.
    pub live_bytes: u64,
    /// Outstanding blocks and pieces of mappings.
    pub live_allocations: u64,
    /// All bytes ever allocated while traced.
    pub allocated_bytes: u64,
    /// All blocks ever allocated while traced.
    pub allocations: u64,
    /// What did not fit together.
    pub anomalies: Anomalies,
}
