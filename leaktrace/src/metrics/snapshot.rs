//! What `/metrics` shows, as plain numbers, and where the newest is kept.
//!
//! Comes in: from the agent, at every interval. Goes out: to [`super::collector`], at every scrape. Never: names or
//! help, which are [`super::registry`]'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use leaktrace_common::counters::COUNTERS;

use crate::event::Kind;

/// All numbers at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetricsSnapshot {
    /// When, in seconds since 1970.
    pub taken: f64,
    /// By group, from [`super::GroupTotals`].
    pub totals: Totals,
    /// Records that were read from the event ring.
    pub events: u64,
    /// Counters of the kernel side, in the order of [`leaktrace_common::counters::Counter::ALL`].
    pub kernel: [u64; COUNTERS as usize],
    /// Records that this version does not know.
    pub undecodable: u64,
    /// Processes that ran on before their probes were in place.
    pub late_probes: u64,
    /// Probes that are in place.
    pub probes_attached: u64,
    /// Probes that could not be attached, ever.
    pub probe_attach_errors: u64,
    /// Outstanding blocks in the ledger.
    pub tracked_blocks: u64,
    /// Outstanding blocks that the ledger has room for.
    pub tracked_blocks_limit: u64,
}

/// Sums over processes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// By name.
    pub groups: Vec<Group>,
    /// Groups with a name of their own at most.
    pub groups_limit: u64,
    /// Processes that were counted in [`super::groups::OTHER`] for want of room.
    pub groups_capped: u64,
    /// Frees of blocks that the ledger never saw.
    pub unmatched_frees: u64,
    /// Blocks whose address was handed out again before their free was seen.
    pub replaced: u64,
    /// Allocations that the ledger had no room for.
    pub untracked: u64,
}

/// The processes of one name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Their comm.
    pub name: String,
    /// Those alive.
    pub processes: u64,
    /// Resident memory of those alive; `None` if it is known of none.
    pub resident_bytes: Option<u64>,
    /// By kind of memory.
    pub kinds: BTreeMap<Kind, KindTotals>,
}

/// Memory of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KindTotals {
    /// Outstanding bytes, of processes alive.
    pub live_bytes: u64,
    /// Outstanding blocks, of processes alive.
    pub live_allocations: u64,
    /// All bytes ever allocated while traced.
    pub allocated_bytes: u64,
    /// All blocks ever allocated while traced.
    pub allocations: u64,
}

/// The newest snapshot: the agent publishes, any number of scrapes read, none waits.
#[derive(Debug, Default)]
pub struct Latest(ArcSwapOption<MetricsSnapshot>);

impl Latest {
    /// Replaces the newest.
    pub fn publish(&self, snapshot: MetricsSnapshot) {
        self.0.store(Some(Arc::new(snapshot)));
    }

    /// The newest, if there is one yet.
    pub fn get(&self) -> Option<Arc<MetricsSnapshot>> {
        self.0.load_full()
    }
}
