//! Ring records into events.
//!
//! Comes in: the bytes of one record of the event ring, as [`leaktrace_common::record`] lays them out; a
//! record may be longer than it needs to be. Goes out: an [`Event`], or a typed reason why there is none.
//! Never: panics, whatever the bytes; keeps a state; allocates, but for a stack's frames and a process's name.

#[cfg(test)]
mod tests;

use std::mem::{offset_of, size_of};
use std::num::NonZeroU64;

use leaktrace_common::limits::{COMM_LEN, MAX_FRAMES};
use leaktrace_common::process::Lost;
use leaktrace_common::record::{
    Alloc, Free, Header, Lifecycle, MoveBegin, MoveEnd, RangeBegin, STACK_PREFIX, Stack, kind,
};
use leaktrace_common::stack::Ending;
use thiserror::Error;

use crate::event::{Comm, Event, Frames, Pid, ProcessKey, StackId, Tid};

/// Why a record is no event. Each of them means that the kernel side and the agent are not of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The record ends before its last field.
    #[error("the record has {len} bytes, but needs {needed}")]
    TooShort {
        /// Bytes that its kind needs.
        needed: usize,
        /// Bytes that it has.
        len: usize,
    },
    /// None of [`kind`].
    #[error("the record's kind {kind} is unknown; kernel side and agent are not of one build")]
    UnknownKind {
        /// What it says.
        kind: u8,
    },
    /// More than [`MAX_FRAMES`].
    #[error("the stack claims {count} frames, but at most {MAX_FRAMES} are possible")]
    TooManyFrames {
        /// What it claims.
        count: u16,
    },
    /// None of [`Ending`].
    #[error("the stack's ending {ending} is unknown; kernel side and agent are not of one build")]
    UnknownEnding {
        /// What it says.
        ending: u8,
    },
    /// The frames of "no stack".
    #[error("the stack's id is 0, which means that there is no stack")]
    NoStackId,
}

/// Decodes one record.
#[inline]
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let header: Fields<{ size_of::<Header>() }> = Fields::of(bytes)?;
    let pid = Pid(header.u32(offset_of!(Header, pid)));
    Ok(match header.u8(offset_of!(Header, kind)) {
        kind::ALLOC => {
            let Placed { addr, size, stack } = Placed::alloc(bytes)?;
            Event::Alloc { pid, addr, size, stack }
        }
        kind::FREE => {
            let record: Fields<{ size_of::<Free>() }> = Fields::of(bytes)?;
            Event::Free { pid, addr: record.u64(offset_of!(Free, addr)) }
        }
        kind::REALLOC_BEGIN => {
            let record: Fields<{ size_of::<MoveBegin>() }> = Fields::of(bytes)?;
            let tid = Tid(record.u32(offset_of!(MoveBegin, tid)));
            Event::ReallocBegin { pid, tid, addr: record.u64(offset_of!(MoveBegin, addr)) }
        }
        kind::REALLOC_END => {
            let (tid, end) = move_end(bytes)?;
            Event::ReallocEnd { pid, tid, moved: end.moved(), stack: end.stack }
        }
        kind::MAP => {
            let Placed { addr, size, stack } = Placed::alloc(bytes)?;
            Event::Map { pid, addr, len: size, stack }
        }
        kind::UNMAP_BEGIN => {
            let (tid, addr, len) = range_begin(bytes)?;
            Event::UnmapBegin { pid, tid, addr, len }
        }
        kind::UNMAP_FAILED => Event::UnmapFailed { pid, tid: move_end(bytes)?.0 },
        kind::REMAP_BEGIN => {
            let (tid, addr, len) = range_begin(bytes)?;
            Event::RemapBegin { pid, tid, addr, len }
        }
        kind::REMAP_END => {
            let (tid, end) = move_end(bytes)?;
            Event::RemapEnd { pid, tid, moved: end.moved(), stack: end.stack }
        }
        kind::STACK => stack(bytes, pid)?,
        kind::FORK => {
            let record: LifecycleFields = Fields::of(bytes)?;
            let child = Pid(record.u32(offset_of!(Lifecycle, other)));
            Event::Fork { parent: pid, child: record.process(child), comm: record.comm() }
        }
        kind::EXEC => {
            let record: LifecycleFields = Fields::of(bytes)?;
            Event::Exec { process: record.process(pid), comm: record.comm() }
        }
        kind::EXIT => {
            let record: LifecycleFields = Fields::of(bytes)?;
            Event::Exit { pid, lost: record.lost() }
        }
        kind => return Err(DecodeError::UnknownKind { kind }),
    })
}

/// The first `N` bytes of a record. `N` and the offsets are constants where this is used, so that no bound is
/// checked twice.
#[derive(Clone, Copy)]
struct Fields<'r, const N: usize>(&'r [u8; N]);

type LifecycleFields<'r> = Fields<'r, { size_of::<Lifecycle>() }>;

impl<'r, const N: usize> Fields<'r, N> {
    #[inline]
    fn of(bytes: &'r [u8]) -> Result<Self, DecodeError> {
        bytes.first_chunk().map(Self).ok_or(DecodeError::TooShort { needed: N, len: bytes.len() })
    }

    #[inline]
    fn bytes<const LEN: usize>(self, offset: usize) -> [u8; LEN] {
        let mut field = [0; LEN];
        field.copy_from_slice(&self.0[offset..offset + LEN]);
        field
    }

    #[inline]
    fn u8(self, offset: usize) -> u8 {
        self.0[offset]
    }

    #[inline]
    fn u16(self, offset: usize) -> u16 {
        u16::from_le_bytes(self.bytes(offset))
    }

    #[inline]
    fn u32(self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    #[inline]
    fn u64(self, offset: usize) -> u64 {
        u64::from_le_bytes(self.bytes(offset))
    }

    #[inline]
    fn stack(self, offset: usize) -> Option<StackId> {
        NonZeroU64::new(self.u64(offset)).map(StackId)
    }
}

impl LifecycleFields<'_> {
    fn process(self, pid: Pid) -> ProcessKey {
        ProcessKey { pid, start_ns: self.u64(offset_of!(Lifecycle, start_ns)) }
    }

    fn comm(self) -> Comm {
        let padded: [u8; COMM_LEN] = self.bytes(offset_of!(Lifecycle, comm));
        let name = padded.split(|byte| *byte == 0).next().unwrap_or_default();
        Comm(String::from_utf8_lossy(name).into_owned())
    }

    fn lost(self) -> Lost {
        const AT: usize = offset_of!(Lifecycle, lost);
        Lost {
            allocs: self.u64(AT + offset_of!(Lost, allocs)),
            alloc_bytes: self.u64(AT + offset_of!(Lost, alloc_bytes)),
            frees: self.u64(AT + offset_of!(Lost, frees)),
            moves: self.u64(AT + offset_of!(Lost, moves)),
        }
    }
}

/// Where a block is, how large, and from where.
struct Placed {
    addr: u64,
    size: u64,
    stack: Option<StackId>,
}

impl Placed {
    #[inline]
    fn alloc(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record: Fields<{ size_of::<Alloc>() }> = Fields::of(bytes)?;
        Ok(Self {
            addr: record.u64(offset_of!(Alloc, addr)),
            size: record.u64(offset_of!(Alloc, size)),
            stack: record.stack(offset_of!(Alloc, stack)),
        })
    }

    /// Address and size after a move; `None` if it failed.
    fn moved(&self) -> Option<(u64, u64)> {
        (self.addr != 0).then_some((self.addr, self.size))
    }
}

fn move_end(bytes: &[u8]) -> Result<(Tid, Placed), DecodeError> {
    let record: Fields<{ size_of::<MoveEnd>() }> = Fields::of(bytes)?;
    let end = Placed {
        addr: record.u64(offset_of!(MoveEnd, addr)),
        size: record.u64(offset_of!(MoveEnd, size)),
        stack: record.stack(offset_of!(MoveEnd, stack)),
    };
    Ok((Tid(record.u32(offset_of!(MoveEnd, tid))), end))
}

fn range_begin(bytes: &[u8]) -> Result<(Tid, u64, u64), DecodeError> {
    let record: Fields<{ size_of::<RangeBegin>() }> = Fields::of(bytes)?;
    let tid = Tid(record.u32(offset_of!(RangeBegin, tid)));
    Ok((tid, record.u64(offset_of!(RangeBegin, addr)), record.u64(offset_of!(RangeBegin, len))))
}

fn stack(bytes: &[u8], pid: Pid) -> Result<Event, DecodeError> {
    const WORD: usize = size_of::<u64>();
    let prefix: Fields<STACK_PREFIX> = Fields::of(bytes)?;
    let ending = prefix.u8(offset_of!(Header, detail));
    let ending = Ending::from_wire(ending).ok_or(DecodeError::UnknownEnding { ending })?;
    let count = prefix.u16(offset_of!(Header, count));
    if usize::from(count) > MAX_FRAMES {
        return Err(DecodeError::TooManyFrames { count });
    }
    let needed = STACK_PREFIX + usize::from(count) * WORD;
    let frames = bytes.get(STACK_PREFIX..needed).ok_or(DecodeError::TooShort { needed, len: bytes.len() })?;
    let id = prefix.stack(offset_of!(Stack, id)).ok_or(DecodeError::NoStackId)?;
    let (addresses, _) = frames.as_chunks::<WORD>();
    let addresses = addresses.iter().map(|address| u64::from_le_bytes(*address)).collect();
    let generation = prefix.u32(offset_of!(Stack, generation));
    Ok(Event::Stack { id, frames: Frames { pid, generation, addresses, ending } })
}
