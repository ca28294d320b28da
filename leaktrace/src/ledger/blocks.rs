//! The outstanding heap blocks of one process, by address.
//!
//! Comes in: addresses and blocks. Goes out: the blocks that were there. Never: counts; that is the
//! [`super::sites::Account`]'s.
//!
//! A block takes 25 bytes of a table that is between 7/16 and 7/8 full: 29 to 57 bytes, which is also what a
//! process grows by (`examples/ledger.rs`). While a table doubles, the old one is there too, and nothing is
//! booked: a quarter of a second for 7 million blocks.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::mem;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::hash::spread;
use super::moment::Tick;
use super::sites::{Account, SiteIndex};
use crate::event::Tid;

/// What is known of a block or a piece of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Requested bytes.
    pub size: u64,
    pub site: SiteIndex,
    pub since: Tick,
}

/// A block with its address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub addr: u64,
    pub block: Block,
}

/// Blocks at their addresses, and those that a `realloc` has lifted from theirs.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    table: HashTable<Placed>,
    /// At most one for a thread: it is inside a `realloc`, or the end of that was lost.
    lifted: BTreeMap<Tid, Placed>,
}

/// A table below this many blocks stays as it is: it has 100 kB at most.
const SHRINK_ABOVE: usize = 2048;

/// A table that is filled to less than one in so many gives memory back.
const SHRINK_BELOW: usize = 16;

impl Blocks {
    #[inline]
    pub fn contains(&self, addr: u64) -> bool {
        self.table.find(spread(addr), |placed| placed.addr == addr).is_some()
    }

    /// Reads the entry of an address for nothing but to have it in the cache. Without a comparison, a
    /// mispredicted branch would wait for the memory.
    #[inline]
    pub fn fetch(&self, addr: u64) {
        black_box(self.table.iter_hash(spread(addr)).next().map(|placed| placed.addr));
    }

    /// Puts a block at an address; returns the one that was there.
    #[inline]
    pub fn insert(&mut self, addr: u64, block: Block) -> Option<Block> {
        match self.table.entry(spread(addr), |placed| placed.addr == addr, |placed| spread(placed.addr)) {
            Entry::Occupied(mut there) => Some(mem::replace(&mut there.get_mut().block, block)),
            Entry::Vacant(vacant) => {
                vacant.insert(Placed { addr, block });
                None
            }
        }
    }

    /// Takes the block at an address away.
    #[inline]
    pub fn remove(&mut self, addr: u64) -> Option<Block> {
        let there = self.table.find_entry(spread(addr), |placed| placed.addr == addr).ok()?;
        let (placed, _) = there.remove();
        let capacity = self.table.capacity();
        if self.table.len() < capacity / SHRINK_BELOW && capacity > SHRINK_ABOVE {
            self.table.shrink_to(self.table.len() * 2, |placed| spread(placed.addr));
        }
        Some(placed.block)
    }

    /// Takes the block at an address away and keeps it for a thread, which must have none; whether there was
    /// one.
    pub fn lift(&mut self, tid: Tid, addr: u64) -> bool {
        let block = self.remove(addr);
        block.map(|block| self.lifted.insert(tid, Placed { addr, block })).is_some()
    }

    /// The block that was lifted for a thread.
    pub fn lifted(&mut self, tid: Tid) -> Option<Placed> {
        self.lifted.remove(&tid)
    }

    /// Visits every block, lifted ones too.
    pub fn for_each(&self, mut visit: impl FnMut(&Block)) {
        self.table.iter().for_each(|placed| visit(&placed.block));
        self.lifted.values().for_each(|placed| visit(&placed.block));
    }

    /// A child's copy. It has only the thread that forked: what others had lifted is where it was, unless
    /// that is taken. `account` is the child's and knows all of it.
    pub fn inherited(&self, account: &mut Account<'_>) -> Self {
        let mut copy = Self { table: self.table.clone(), lifted: BTreeMap::new() };
        for Placed { addr, block } in self.lifted.values() {
            if copy.contains(*addr) {
                account.leave(block);
            } else {
                copy.insert(*addr, *block);
            }
        }
        copy
    }

    /// Number of blocks, lifted ones too.
    pub fn len(&self) -> u64 {
        (self.table.len() + self.lifted.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(size: u64) -> Block {
        Block { size, site: SiteIndex::default(), since: Tick::default() }
    }

    #[test]
    fn a_table_gives_the_memory_of_a_peak_back() {
        let mut blocks = Blocks::default();
        for i in 0..100_000 {
            blocks.insert(i * 16, block(i));
        }
        let peak = blocks.table.capacity();
        for i in 100..100_000 {
            assert_eq!(blocks.remove(i * 16), Some(block(i)));
        }
        assert!(blocks.table.capacity() < peak / 30, "{} of {peak}", blocks.table.capacity());
        for i in 0..100 {
            assert_eq!(blocks.remove(i * 16), Some(block(i)));
        }
    }

    #[test]
    fn a_block_is_small() {
        assert_eq!(size_of::<Placed>(), 24);
    }
}
