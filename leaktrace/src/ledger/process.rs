//! One running process: what each event does to it.
//!
//! Comes in: the process's events, without their pid. Goes out: its numbers. Never: knows another process.
//!
//! **A `realloc`** counts as an allocation of its new size at its own site, and its old block is gone from
//! the old site: as if it were `malloc`, copy and `free`, which it often is, and so that a buffer that grows
//! is outstanding where it was made this large. Between its two events the old block is out of the way but
//! outstanding. If its end is never seen, the old block is forgotten at its thread's next `realloc`: nearly
//! all succeed, and what is forgotten is a lost allocation of the kernel side's count, while a block that
//! stayed would be a leak that is none. An end without a beginning is an allocation. `mremap` likewise.

use leaktrace_common::process::Lost;

use super::blocks::{Block, Blocks, Placed};
use super::limits::Room;
use super::mappings::Mappings;
use super::moment::Tick;
use super::sites::{Account, Amount, Sites};
use super::totals::{Anomalies, ProcessTotals};
use crate::event::{Comm, Kind, ProcessKey, StackId, Tid};

/// A process and all that it has outstanding.
#[derive(Debug)]
pub(super) struct Process {
    pub key: ProcessKey,
    pub comm: Comm,
    pub sites: Sites,
    pub anomalies: Anomalies,
    pub lost: Lost,
    blocks: Blocks,
    mappings: Mappings,
    /// Heap blocks without room whose free has not been seen: the next frees of unknown blocks are put down
    /// to them. Which free is whose can't be told without keeping the blocks, and this needs to be right in
    /// sum only.
    untracked_heap: u64,
}

/// Where and when something was allocated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub stack: Option<StackId>,
    pub at: Tick,
}

impl Process {
    pub fn new(key: ProcessKey, comm: Comm) -> Self {
        Self {
            key,
            comm,
            sites: Sites::default(),
            anomalies: Anomalies::default(),
            lost: Lost::default(),
            blocks: Blocks::default(),
            mappings: Mappings::default(),
            untracked_heap: 0,
        }
    }

    #[inline]
    pub fn alloc(&mut self, addr: u64, size: u64, origin: Origin, room: &mut Room) {
        let mut account = Account { sites: &mut self.sites, room };
        let site = account.allocated(Kind::Heap, origin.stack, size);
        if account.room.blocks.is_full() && !self.blocks.contains(addr) {
            self.anomalies.untracked(Amount { blocks: 1, bytes: size });
            self.untracked_heap += 1;
            return;
        }
        let block = Block { size, site, since: origin.at };
        if let Some(replaced) = self.blocks.insert(addr, block) {
            account.leave(&replaced);
            self.anomalies.replaced += 1;
        }
        account.enter(&block);
    }

    /// Has the processor fetch a heap block.
    #[inline]
    pub fn fetch(&self, addr: u64) {
        self.blocks.fetch(addr);
    }

    #[inline]
    pub fn free(&mut self, addr: u64, room: &mut Room) {
        match self.blocks.remove(addr) {
            Some(block) => Account { sites: &mut self.sites, room }.leave(&block),
            None => self.unmatched_free(),
        }
    }

    fn unmatched_free(&mut self) {
        if self.untracked_heap > 0 {
            self.untracked_heap -= 1;
        } else {
            self.anomalies.unmatched_frees += 1;
        }
    }

    /// A `realloc` of an unknown block is the free of one, whether or not it succeeds.
    pub fn realloc_begin(&mut self, tid: Tid, addr: u64, room: &mut Room) {
        if let Some(unended) = self.blocks.lifted(tid) {
            Account { sites: &mut self.sites, room }.leave(&unended.block);
            self.anomalies.unended_moves += 1;
        }
        if !self.blocks.lift(tid, addr) {
            self.unmatched_free();
        }
    }

    pub fn realloc_end(&mut self, tid: Tid, moved: Option<(u64, u64)>, origin: Origin, room: &mut Room) {
        let lifted = self.blocks.lifted(tid);
        match (lifted, moved) {
            (Some(Placed { addr, block }), None) => {
                // A `realloc` that failed never gave its block away: one that is there now is a newer one
                // only if the beginning belonged to an earlier `realloc`.
                if self.blocks.contains(addr) {
                    Account { sites: &mut self.sites, room }.leave(&block);
                    self.anomalies.replaced += 1;
                } else {
                    self.blocks.insert(addr, block);
                }
            }
            (lifted, Some((addr, size))) => {
                if let Some(Placed { block, .. }) = lifted {
                    Account { sites: &mut self.sites, room }.leave(&block);
                }
                self.alloc(addr, size, origin, room);
            }
            (None, None) => {}
        }
    }

    pub fn map(&mut self, addr: u64, len: u64, origin: Origin, room: &mut Room) {
        let mut account = Account { sites: &mut self.sites, room };
        let site = account.allocated(Kind::Mmap, origin.stack, len);
        let block = Block { size: len, site, since: origin.at };
        if !self.mappings.map(addr, block, &mut account) {
            self.anomalies.untracked(Amount { blocks: 1, bytes: len });
        }
    }

    pub fn unmap_begin(&mut self, tid: Tid, addr: u64, len: u64, room: &mut Room) {
        self.end_move(tid, room);
        self.mappings.unmap(tid, addr, len, &mut Account { sites: &mut self.sites, room });
    }

    pub fn unmap_failed(&mut self, tid: Tid, room: &mut Room) {
        self.end_move(tid, room);
        self.mappings.undo_unmap(tid, &mut Account { sites: &mut self.sites, room });
    }

    pub fn remap_begin(&mut self, tid: Tid, addr: u64, len: u64, room: &mut Room) {
        self.end_move(tid, room);
        self.mappings.start_move(tid, addr, len, &mut Account { sites: &mut self.sites, room });
    }

    pub fn remap_end(&mut self, tid: Tid, moved: Option<(u64, u64)>, origin: Origin, room: &mut Room) {
        let mut account = Account { sites: &mut self.sites, room };
        match moved {
            Some((addr, len)) => {
                self.mappings.moved(tid, &mut account);
                self.map(addr, len, origin, room);
            }
            None => self.mappings.undo_move(tid, &mut account),
        }
    }

    /// The end of the thread's last `mremap` was lost if it does something else now.
    fn end_move(&mut self, tid: Tid, room: &mut Room) {
        if self.mappings.moved(tid, &mut Account { sites: &mut self.sites, room }) {
            self.anomalies.unended_moves += 1;
        }
    }

    /// The child of a fork, with a copy of all that is outstanding; of nothing if that finds no room: a part
    /// would be a made-up number, and the whole is counted as untracked.
    pub fn fork(&self, key: ProcessKey, comm: Comm, room: &mut Room) -> Self {
        let mut child = Self::new(key, comm);
        child.untracked_heap = self.untracked_heap;
        let live = self.sites.live();
        let sites = self.sites.counted();
        if !room.blocks.fits(live.blocks) || !room.sites.fits(sites) {
            child.anomalies.untracked(live);
            child.untracked_heap += self.blocks.len();
            return child;
        }
        room.blocks.take(live.blocks);
        room.sites.take(sites);
        child.sites = self.sites.inherited();
        let mut account = Account { sites: &mut child.sites, room };
        child.mappings = self.mappings.inherited(&mut account);
        child.blocks = self.blocks.inherited(&mut account);
        child
    }

    /// Visits every outstanding block.
    pub fn for_each_block(&self, mut visit: impl FnMut(&Block)) {
        self.blocks.for_each(&mut visit);
        self.mappings.for_each(&mut visit);
    }

    /// Gives all its room back: its memory is gone.
    pub fn release(self, room: &mut Room) {
        room.blocks.give_back(self.sites.live().blocks);
        room.sites.give_back(self.sites.counted());
    }

    pub fn totals(&self) -> ProcessTotals<'_> {
        let (live, ever) = (self.sites.live(), self.sites.ever());
        ProcessTotals {
            key: self.key,
            comm: &self.comm,
            live_bytes: live.bytes,
            live_allocations: live.blocks,
            allocated_bytes: ever.bytes,
            allocations: ever.blocks,
            anomalies: self.anomalies,
        }
    }
}
