//! The call sites of one process, and the account that they keep.
//!
//! Comes in: blocks that appear and vanish. Goes out: bytes and blocks by site, outstanding and ever. Never:
//! knows an address.
//!
//! Sums wrap: a size is whatever the target says, and with wrapping sums what was entered leaves again
//! exactly.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::blocks::Block;
use super::hash::spread;
use super::limits::Room;
use crate::event::{Kind, StackId};

/// A site's place in its process's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SiteIndex(u32);

impl SiteIndex {
    #[inline]
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// A site and what it has allocated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    pub kind: Kind,
    pub stack: Option<StackId>,
    pub live: Amount,
    pub ever: Amount,
}

impl Site {
    fn hash(kind: Kind, stack: Option<StackId>) -> u64 {
        spread(stack.map_or(0, |stack| stack.0.get()) ^ (kind as u64) << 63)
    }

    /// The two sites of a process that need no room.
    fn needs_no_room(&self) -> bool {
        self.stack.is_none()
    }
}

/// Some blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Amount {
    pub bytes: u64,
    pub blocks: u64,
}

impl Amount {
    #[inline]
    pub fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.wrapping_add(bytes);
        self.blocks += 1;
    }

    #[inline]
    fn remove(&mut self, bytes: u64) {
        self.bytes = self.bytes.wrapping_sub(bytes);
        self.blocks -= 1;
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), |sum, amount| Self {
            bytes: sum.bytes.wrapping_add(amount.bytes),
            blocks: sum.blocks + amount.blocks,
        })
    }
}

/// All sites of a process. They stay while it lives, so that a [`SiteIndex`] stays right.
#[derive(Debug, Default)]
pub(super) struct Sites {
    list: Vec<Site>,
    /// Places in `list`, by kind and stack, which are looked up there: 5 bytes a site.
    index: HashTable<SiteIndex>,
}

impl Sites {
    pub fn iter(&self) -> impl Iterator<Item = &Site> {
        self.list.iter()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Sites that count against the limit.
    pub fn counted(&self) -> u64 {
        self.list.iter().filter(|site| !site.needs_no_room()).count() as u64
    }

    /// What is outstanding: by construction as much as a walk over all blocks would find.
    pub fn live(&self) -> Amount {
        self.list.iter().map(|site| site.live).sum()
    }

    /// What was ever allocated.
    pub fn ever(&self) -> Amount {
        self.list.iter().map(|site| site.ever).sum()
    }

    /// The sites of a child: as much is outstanding, nothing was allocated.
    pub fn inherited(&self) -> Self {
        let list = self.list.iter().map(|site| Site { ever: Amount::default(), ..*site }).collect();
        Self { list, index: self.index.clone() }
    }

    /// The site of an allocation. Without room for one more it is the one without a stack.
    #[inline]
    fn site(&mut self, kind: Kind, stack: Option<StackId>, room: &mut Room) -> SiteIndex {
        let list = &self.list;
        let found = self.index.find(Site::hash(kind, stack), |index| {
            let site = &list[index.get()];
            site.stack == stack && site.kind == kind
        });
        match found {
            Some(index) => *index,
            None => self.new_site(kind, stack, room),
        }
    }

    #[cold]
    fn new_site(&mut self, kind: Kind, mut stack: Option<StackId>, room: &mut Room) -> SiteIndex {
        if stack.is_some() {
            if room.sites.is_full() {
                room.unsited += 1;
                stack = None;
            } else {
                room.sites.take(1);
            }
        }
        let list = &mut self.list;
        let entry = self.index.entry(
            Site::hash(kind, stack),
            |index| list[index.get()].stack == stack && list[index.get()].kind == kind,
            |index| Site::hash(list[index.get()].kind, list[index.get()].stack),
        );
        match entry {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                let index = SiteIndex(list.len() as u32);
                vacant.insert(index);
                list.push(Site { kind, stack, live: Amount::default(), ever: Amount::default() });
                index
            }
        }
    }
}

/// Where every block that appears or vanishes is booked, so that a process's sites and the ledger's room
/// never disagree.
#[derive(Debug)]
pub(super) struct Account<'a> {
    pub sites: &'a mut Sites,
    pub room: &'a mut Room,
}

impl Account<'_> {
    /// Counts an allocation, not yet what is outstanding; returns its site.
    #[inline]
    pub fn allocated(&mut self, kind: Kind, stack: Option<StackId>, size: u64) -> SiteIndex {
        let index = self.sites.site(kind, stack, self.room);
        self.sites.list[index.get()].ever.add(size);
        index
    }

    /// A block is outstanding from now on.
    #[inline]
    pub fn enter(&mut self, block: &Block) {
        self.sites.list[block.site.get()].live.add(block.size);
        self.room.blocks.take(1);
    }

    /// A block is no longer outstanding.
    #[inline]
    pub fn leave(&mut self, block: &Block) {
        self.sites.list[block.site.get()].live.remove(block.size);
        self.room.blocks.give_back(1);
    }

    /// One piece of a mapping became two.
    pub fn split(&mut self, site: SiteIndex) {
        self.sites.list[site.get()].live.blocks += 1;
        self.room.blocks.take(1);
    }

    /// Two pieces of a mapping became one.
    pub fn join(&mut self, site: SiteIndex) {
        self.sites.list[site.get()].live.blocks -= 1;
        self.room.blocks.give_back(1);
    }
}
