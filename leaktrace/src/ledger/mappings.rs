//! The outstanding mappings of one process, by address range.
//!
//! Comes in: ranges that are mapped, unmapped and moved. Goes out: what they do to a process's
//! [`Account`]. Never: knows why a range is unknown; most are (files, stacks, what is older than the trace).
//!
//! Unmapping the middle of a mapping leaves two **pieces**, each with the mapping's site and time.
//! Outstanding bytes are exact; the number of outstanding blocks counts pieces: it is what is there to be
//! unmapped, and it may be higher than the number of `mmap` calls.
//!
//! The system works in pages: a range that is cut away is rounded up to whole pages, a mapping's size stays
//! the one that was requested.

use std::collections::BTreeMap;
use std::ops::Range;

use rustc_hash::FxHashMap;

use super::blocks::Block;
use super::sites::Account;
use crate::event::Tid;

/// The smallest page of any Linux machine; on one with larger pages, ranges are multiples of those anyway.
const PAGE: u64 = 4096;

/// Unmappings that can be undone. Only threads inside `munmap` need theirs; that one succeeded isn't said.
const UNDOABLE: usize = 1024;

/// A mapping, or what is left of it.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Its size is this piece's.
    block: Block,
    /// The mapping it is of: pieces that touch again become one again if it's the same.
    origin: u64,
}

/// Pieces with their addresses.
type Pieces = Vec<(u64, Piece)>;

/// Mappings at their addresses, and what threads have taken away.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    /// By start; they don't overlap, not even within a page.
    pieces: BTreeMap<u64, Piece>,
    /// Mappings so far.
    origins: u64,
    /// By thread: what its last `munmap` took, and which unmapping that was. No longer outstanding.
    unmapped: FxHashMap<Tid, (u64, Pieces)>,
    /// Unmappings so far.
    unmappings: u64,
    /// By thread: what its `mremap` is moving. Still outstanding. Never empty.
    moving: BTreeMap<Tid, Pieces>,
}

impl Mappings {
    /// Enters a mapping in place of all that its pages held; `false` if there is no room for it.
    pub fn map(&mut self, addr: u64, block: Block, account: &mut Account<'_>) -> bool {
        let block = Block { size: block.size.min(u64::MAX - addr), ..block };
        if block.size == 0 {
            return true;
        }
        self.cut(pages(addr, block.size), account);
        if account.room.blocks.is_full() {
            return false;
        }
        account.enter(&block);
        self.pieces.insert(addr, Piece { block, origin: self.origins });
        self.origins += 1;
        true
    }

    /// Takes a range away, so that [`Self::undo_unmap`] can put it back.
    pub fn unmap(&mut self, tid: Tid, addr: u64, len: u64, account: &mut Account<'_>) {
        let cut = self.cut(pages(addr, len), account);
        self.unmappings += 1;
        if cut.is_empty() {
            self.unmapped.remove(&tid);
            return;
        }
        if self.unmapped.len() >= UNDOABLE {
            let recent = self.unmappings - UNDOABLE as u64 / 2;
            self.unmapped.retain(|_, (unmapping, _)| *unmapping > recent);
        }
        self.unmapped.insert(tid, (self.unmappings, cut));
    }

    /// Puts back what the thread's last unmapping took.
    pub fn undo_unmap(&mut self, tid: Tid, account: &mut Account<'_>) {
        let Some((_, pieces)) = self.unmapped.remove(&tid) else { return };
        for (start, piece) in pieces {
            self.put_back(start, piece, account);
        }
    }

    /// Takes a range out of the address map until [`Self::moved`] or [`Self::undo_move`]; it stays
    /// outstanding.
    pub fn start_move(&mut self, tid: Tid, addr: u64, len: u64, account: &mut Account<'_>) {
        self.unmapped.remove(&tid);
        let cut = self.cut(pages(addr, len), account);
        if !cut.is_empty() {
            for (_, piece) in &cut {
                account.enter(&piece.block);
            }
            self.moving.insert(tid, cut);
        }
    }

    /// Forgets what the thread was moving: it is elsewhere now. Whether there was any.
    pub fn moved(&mut self, tid: Tid, account: &mut Account<'_>) -> bool {
        let moving = self.moving.remove(&tid);
        for (_, piece) in moving.iter().flatten() {
            account.leave(&piece.block);
        }
        moving.is_some()
    }

    /// Puts back what the thread was moving.
    pub fn undo_move(&mut self, tid: Tid, account: &mut Account<'_>) {
        for (start, piece) in self.moving.remove(&tid).unwrap_or_default() {
            account.leave(&piece.block);
            self.put_back(start, piece, account);
        }
    }

    /// Visits every piece, those that are being moved too.
    pub fn for_each(&self, mut visit: impl FnMut(&Block)) {
        self.pieces.values().for_each(|piece| visit(&piece.block));
        self.moving.values().flatten().for_each(|(_, piece)| visit(&piece.block));
    }

    /// A child's copy. It has only the thread that forked: what others were moving is where it was.
    /// `account` is the child's and knows all of it.
    pub fn inherited(&self, account: &mut Account<'_>) -> Self {
        let mut copy = Self {
            pieces: self.pieces.clone(),
            origins: self.origins,
            moving: self.moving.clone(),
            ..Self::default()
        };
        for tid in self.moving.keys() {
            copy.undo_move(*tid, account);
        }
        copy
    }

    /// Takes all pieces in a range out, those at its ends in part.
    fn cut(&mut self, range: Range<u64>, account: &mut Account<'_>) -> Pieces {
        if range.is_empty() {
            return Pieces::new();
        }
        self.split(range.start, account);
        self.split(range.end, account);
        let cut: Pieces = self.pieces.extract_if(range, |_, _| true).collect();
        for (_, piece) in &cut {
            account.leave(&piece.block);
        }
        cut
    }

    /// Makes two pieces of one that crosses an address.
    fn split(&mut self, at: u64, account: &mut Account<'_>) {
        let Some((start, piece)) = self.pieces.range_mut(..at).next_back() else { return };
        let head = at - start;
        if head >= piece.block.size {
            return;
        }
        let tail = Piece { block: Block { size: piece.block.size - head, ..piece.block }, ..*piece };
        piece.block.size = head;
        account.split(tail.block.site);
        self.pieces.insert(at, tail);
    }

    /// Makes one piece of two that touch at an address, if they are of one mapping.
    fn join(&mut self, at: u64, account: &mut Account<'_>) {
        let Some(tail) = self.pieces.get(&at).copied() else { return };
        let Some((start, head)) = self.pieces.range_mut(..at).next_back() else { return };
        if start + head.block.size == at && head.origin == tail.origin {
            head.block.size += tail.block.size;
            account.join(tail.block.site);
            self.pieces.remove(&at);
        }
    }

    /// Puts a piece back where nothing newer has taken its pages.
    fn put_back(&mut self, start: u64, piece: Piece, account: &mut Account<'_>) {
        let end = start + piece.block.size;
        let mut from = start.max(self.taken_until(start));
        while from < end {
            let next = self.pieces.range(from..end).next().map_or(end, |(start, _)| *start);
            if from < next {
                let part = Piece { block: Block { size: next - from, ..piece.block }, ..piece };
                account.enter(&part.block);
                self.pieces.insert(from, part);
                self.join(from, account);
                self.join(next, account);
            }
            from = self.pieces.get(&next).map_or(end, |newer| pages(next, newer.block.size).end);
        }
    }

    /// End of the pages of the last piece that begins before an address.
    fn taken_until(&self, addr: u64) -> u64 {
        self.pieces.range(..addr).next_back().map_or(0, |(start, piece)| pages(*start, piece.block.size).end)
    }
}

/// The pages of a range that starts at one.
fn pages(addr: u64, len: u64) -> Range<u64> {
    let end = addr.saturating_add(len).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
    addr..end
}
