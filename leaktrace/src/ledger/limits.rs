//! How large the ledger may become.
//!
//! Comes in: [`Limits`], from whoever makes the ledger. Goes out: what room is left. Never: decides what
//! happens without room.

/// Bounds of a [`super::Ledger`]'s memory. Whatever finds no room is counted, see [`super::LedgerTotals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Outstanding blocks (29 to 57 bytes each) and pieces of mappings (about 80) over all processes.
    pub blocks: u64,
    /// Stacks whose frames are kept: 8 bytes a frame and about 100 more.
    pub stacks: usize,
    /// Processes that ended.
    pub closed_processes: usize,
    /// Call sites over all processes, the ended ones included: about 100 bytes each. Every process has two
    /// more, for what it allocates without a stack.
    pub sites: u64,
}

impl Default for Limits {
    /// About 0.9 GB if all of it is used, 1.3 GB for the moment in which the table of blocks grows to that.
    fn default() -> Self {
        Self { blocks: 16 << 20, stacks: 128 << 10, closed_processes: 1024, sites: 256 << 10 }
    }
}

/// What is used of a limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    used: u64,
    limit: u64,
}

impl Budget {
    pub fn new(limit: u64) -> Self {
        Self { used: 0, limit }
    }

    pub fn used(&self) -> u64 {
        self.used
    }

    #[inline]
    pub fn is_full(&self) -> bool {
        self.used >= self.limit
    }

    /// Whether `n` more stay within the limit.
    pub fn fits(&self, n: u64) -> bool {
        self.used.saturating_add(n) <= self.limit
    }

    /// Uses `n` more, whether or not they fit.
    #[inline]
    pub fn take(&mut self, n: u64) {
        self.used += n;
    }

    #[inline]
    pub fn give_back(&mut self, n: u64) {
        self.used -= n;
    }
}

/// What is used of the limits that processes share.
#[derive(Debug)]
pub(super) struct Room {
    pub blocks: Budget,
    pub sites: Budget,
    /// Allocations put down to "no stack", because there was no room for their site.
    pub unsited: u64,
}

impl Room {
    pub fn new(limits: &Limits) -> Self {
        Self { blocks: Budget::new(limits.blocks), sites: Budget::new(limits.sites), unsited: 0 }
    }
}
