//! Processes that ended.
//!
//! Comes in: their last snapshots. Goes out: the same, until there is no room for them. Never: blocks.

use std::collections::VecDeque;

use super::limits::Room;
use super::snapshot::ProcessSnapshot;

/// An ended process and what it had outstanding.
#[derive(Debug)]
struct Ended {
    live_bytes: u64,
    snapshot: ProcessSnapshot,
}

/// Ended processes, in the order of their ends.
#[derive(Debug)]
pub(super) struct Closed {
    limit: usize,
    ended: VecDeque<Ended>,
    dropped: u64,
}

impl Closed {
    pub fn new(limit: usize) -> Self {
        Self { limit, ended: VecDeque::new(), dropped: 0 }
    }

    pub fn push(&mut self, snapshot: ProcessSnapshot, room: &mut Room) {
        room.sites.take(counted_sites(&snapshot));
        let live_bytes = snapshot.sites.iter().fold(0, |sum: u64, site| sum.wrapping_add(site.live_bytes));
        self.ended.push_back(Ended { live_bytes, snapshot });
        while self.ended.len() > self.limit {
            self.drop_one(room);
        }
    }

    /// Makes room for so many sites of running processes, as far as dropping ended ones can.
    #[inline]
    pub fn make_room(&mut self, sites: u64, room: &mut Room) {
        while !room.sites.fits(sites) && self.drop_one(room) {}
    }

    /// Drops the one with the least outstanding of the older half: so one that just ended can be seen, and
    /// one that leaked much stays. Whether there was any.
    fn drop_one(&mut self, room: &mut Room) -> bool {
        let older = self.ended.len().div_ceil(2);
        let least = self.ended.iter().take(older).enumerate().min_by_key(|(_, ended)| ended.live_bytes);
        let Some(ended) = least.map(|(index, _)| index).and_then(|index| self.ended.remove(index)) else {
            return false;
        };
        room.sites.give_back(counted_sites(&ended.snapshot));
        self.dropped += 1;
        true
    }

    pub fn iter(&self) -> impl Iterator<Item = &ProcessSnapshot> {
        self.ended.iter().map(|ended| &ended.snapshot)
    }

    pub fn len(&self) -> usize {
        self.ended.len()
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Sites that need room: those with a stack, see [`super::Limits::sites`].
fn counted_sites(snapshot: &ProcessSnapshot) -> u64 {
    snapshot.sites.iter().filter(|site| site.stack.is_some()).count() as u64
}
