//! Reads the kernel side's counters.
//!
//! Comes in: the counter map. Goes out: [`Counts`]. Never: resets them: they count from the start of the run.

use aya::maps::{MapData, PerCpuArray};
use leaktrace_common::counters::Counter;

/// The counter map.
pub struct LossCounters(PerCpuArray<MapData, u64>);

/// All counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts([u64; Counter::ALL.len()]);

impl LossCounters {
    /// Wraps the map.
    pub fn new(map: PerCpuArray<MapData, u64>) -> Self {
        Self(map)
    }

    /// Reads all of them. A slot that cannot be read is 0; that does not happen with an array map.
    pub fn read(&self) -> Counts {
        let mut counts = Counts([0; Counter::ALL.len()]);
        for (slot, count) in counts.0.iter_mut().enumerate() {
            *count = self.0.get(&(slot as u32), 0).map_or(0, |cpus| cpus.iter().sum());
        }
        counts
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self([0; Counter::ALL.len()])
    }
}

impl Counts {
    /// One counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Every counter with its name.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.iter().map(|counter| (*counter, self.get(*counter)))
    }

    /// Records that were lost, of all reasons.
    pub fn lost(&self) -> u64 {
        use Counter as C;
        [
            C::RingFullAlloc,
            C::RingFullFree,
            C::RingFullLifecycle,
            C::InflightFull,
            C::ResultUnreadable,
            C::ProcessesFull,
        ]
        .iter()
        .map(|counter| self.get(*counter))
        .sum()
    }
}
