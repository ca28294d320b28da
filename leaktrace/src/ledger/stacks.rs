//! The frames of all stacks.
//!
//! Comes in: frames, before their stack's first use, and again when the kernel side has forgotten that it
//! sent them. Goes out: the same, by id. Never: symbols.
//!
//! Stacks of processes that are long gone would fill any table, so a full one is swept: stacks of no known
//! site go. The kernel side does not send frames twice soon, so the latest stacks stay even without a site:
//! their allocation is still to come.

use hashbrown::HashSet;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::event::{Frames, StackId};

/// Stacks that stay without a site. On the ring, the frames of a stack come right before its first use; other
/// CPUs' records may stand between, one for each CPU.
const RECENT: u64 = 4096;

/// Stack ids that sites refer to.
pub(super) type Used = HashSet<StackId, FxBuildHasher>;

/// Frames by stack id.
#[derive(Debug)]
pub(super) struct Stacks {
    limit: usize,
    /// With the number of the arrival.
    frames: FxHashMap<StackId, (u64, Frames)>,
    arrivals: u64,
    /// Arrivals before which a sweep isn't worth its walk over all sites.
    next_sweep: u64,
    dropped: u64,
}

impl Stacks {
    pub fn new(limit: usize) -> Self {
        Self { limit, frames: FxHashMap::default(), arrivals: 0, next_sweep: 0, dropped: 0 }
    }

    pub fn get(&self, id: StackId) -> Option<&Frames> {
        self.frames.get(&id).map(|(_, frames)| frames)
    }

    /// Whether a sweep could make room for the next stack.
    pub fn is_sweep_due(&self) -> bool {
        self.frames.len() >= self.limit && self.arrivals >= self.next_sweep
    }

    /// Drops stacks that no site refers to, the latest excepted.
    pub fn sweep(&mut self, used: &Used) {
        let recent = self.arrivals.saturating_sub(RECENT.min(self.limit as u64 / 2));
        self.frames.retain(|id, (arrival, _)| *arrival >= recent || used.contains(id));
        self.next_sweep = self.arrivals + self.limit as u64 / 8;
    }

    /// Keeps a stack's frames, if there is room.
    pub fn insert(&mut self, id: StackId, frames: Frames) {
        let arrival = self.arrivals;
        self.arrivals += 1;
        if self.frames.contains_key(&id) {
            return;
        }
        if self.frames.len() >= self.limit {
            self.dropped += 1;
            return;
        }
        self.frames.insert(id, (arrival, frames));
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
