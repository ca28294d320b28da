//! Records of the event ring and of the control ring.
//!
//! Comes in: fields that a probe read. Goes out: fixed layouts, little endian, 8-byte aligned; the first 8
//! bytes of each are a [`Header`]. Never: pointers, enums with holes, implicit padding. Addresses are the
//! target's virtual addresses, sizes are requested bytes, pids are thread-group ids of the initial pid
//! namespace.

use core::mem::{offset_of, size_of};

use crate::limits::{COMM_LEN, MAX_FRAMES};

/// What a record of the event ring is. Stable: numbers are never reused.
pub mod kind {
    /// [`super::Alloc`]: a heap block.
    pub const ALLOC: u8 = 1;
    /// [`super::Free`]: a heap block given back.
    pub const FREE: u8 = 2;
    /// [`super::MoveBegin`]: a `realloc` is about to move a block.
    pub const REALLOC_BEGIN: u8 = 3;
    /// [`super::MoveEnd`]: the `realloc` returned.
    pub const REALLOC_END: u8 = 4;
    /// [`super::Alloc`]: a mapping (`size` is its length).
    pub const MAP: u8 = 5;
    /// [`super::RangeBegin`]: an `munmap` is about to run.
    pub const UNMAP_BEGIN: u8 = 6;
    /// [`super::MoveEnd`]: an `munmap` failed; what [`UNMAP_BEGIN`] took away is still there.
    pub const UNMAP_FAILED: u8 = 7;
    /// [`super::RangeBegin`]: an `mremap` is about to run.
    pub const REMAP_BEGIN: u8 = 8;
    /// [`super::MoveEnd`]: the `mremap` returned.
    pub const REMAP_END: u8 = 9;
    /// [`super::Stack`]: the frames of a stack id, sent before its first use.
    pub const STACK: u8 = 10;
    /// [`super::Lifecycle`]: a traced process forked; `pid` is the parent, `other` the child.
    pub const FORK: u8 = 11;
    /// [`super::Lifecycle`]: `pid` runs a new program.
    pub const EXEC: u8 = 12;
    /// [`super::Lifecycle`]: the last thread of `pid` is gone.
    pub const EXIT: u8 = 13;
}

/// What a record of the control ring asks of the agent.
pub mod request {
    /// A process that matches runs a new program: arm it.
    pub const EXEC: u8 = 1;
    /// A traced process forked: arm the child.
    pub const FORK: u8 = 2;
    /// The dynamic loader has mapped or unmapped libraries: look again.
    pub const LIBRARIES: u8 = 3;
    /// The process is gone: close its probes.
    pub const EXIT: u8 = 4;
    /// The thread that carries the probes left, others live on: arm another.
    pub const LEADER_EXIT: u8 = 5;
}

/// The first 8 bytes of every record.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// One of [`kind`] or [`request`].
    pub kind: u8,
    /// Of a [`Stack`]: why it ends where it does ([`crate::stack::Ending`]). Otherwise 0.
    pub detail: u8,
    /// Of a [`Stack`]: number of frames. Otherwise 0.
    pub count: u16,
    /// Owner of the address space.
    pub pid: u32,
}

/// A new block or mapping.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alloc {
    /// [`kind::ALLOC`] or [`kind::MAP`].
    pub header: Header,
    /// Where it is.
    pub addr: u64,
    /// Requested bytes.
    pub size: u64,
    /// Stack id, 0 if none could be taken.
    pub stack: u64,
}

/// A block given back.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// [`kind::FREE`].
    pub header: Header,
    /// Where it was.
    pub addr: u64,
}

/// A block is about to move: until [`MoveEnd`] of the same thread its address may belong to someone else.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveBegin {
    /// [`kind::REALLOC_BEGIN`].
    pub header: Header,
    /// Thread that moves it.
    pub tid: u32,
    /// Zero.
    pub pad: u32,
    /// The block's address before the move.
    pub addr: u64,
}

/// A range is about to be unmapped or remapped.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeBegin {
    /// [`kind::UNMAP_BEGIN`] or [`kind::REMAP_BEGIN`].
    pub header: Header,
    /// Thread that does it.
    pub tid: u32,
    /// Zero.
    pub pad: u32,
    /// Start of the range.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// The end of what a [`MoveBegin`] or [`RangeBegin`] of the same thread began.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveEnd {
    /// [`kind::REALLOC_END`], [`kind::REMAP_END`] or [`kind::UNMAP_FAILED`].
    pub header: Header,
    /// Thread that did it.
    pub tid: u32,
    /// Zero.
    pub pad: u32,
    /// Where the block or range is now, 0 if the call failed and all is as before.
    pub addr: u64,
    /// Its new size in bytes.
    pub size: u64,
    /// Stack id, 0 if none could be taken.
    pub stack: u64,
}

/// A process forked, ran a new program or ended.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle {
    /// [`kind::FORK`], [`kind::EXEC`], [`kind::EXIT`].
    pub header: Header,
    /// Of a fork: the child. Otherwise 0.
    pub other: u32,
    /// Generation of the process's mappings, see [`crate::process::Traced::generation`].
    pub generation: u32,
    /// Start time of the process that is new, ran a program or ended: nanoseconds since boot.
    pub start_ns: u64,
    /// Its comm, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// Of an exit: records that were lost for this process, see [`crate::process::Lost`].
    pub lost: crate::process::Lost,
}

/// The frames of one stack, innermost first: return addresses, and the allocation function's own frame is
/// left out. The record on the ring may be shorter: `header.count` frames follow `id`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Stack {
    /// [`kind::STACK`] with `detail` and `count`.
    pub header: Header,
    /// Generation of the mappings that the frames point into.
    pub generation: u32,
    /// Zero.
    pub pad: u32,
    /// Never 0.
    pub id: u64,
    /// `header.count` of them are valid.
    pub frames: [u64; MAX_FRAMES],
}

/// Bytes of a [`Stack`] record before its frames.
pub const STACK_PREFIX: usize = offset_of!(Stack, frames);

/// A [`Stack`] record cut to 31 frames: most stacks fit, and the ring holds four times as many.
pub const SHORT_STACK_FRAMES: usize = 31;

/// A request of the control ring.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// One of [`request`] in `kind`; `detail` is 1 if the process waits for the answer.
    pub header: Header,
    /// Of a fork: the parent. Of changed libraries: the thread that changed them. Of an exec: the thread that
    /// called it, as it was called before.
    pub other: u32,
    /// Generation of the process's mappings.
    pub generation: u32,
    /// Start time of `header.pid`: nanoseconds since boot.
    pub start_ns: u64,
    /// Its comm, NUL-padded.
    pub comm: [u8; COMM_LEN],
}

const _: () = {
    assert!(size_of::<Header>() == 8);
    assert!(offset_of!(Header, pid) == 4);
    assert!(size_of::<Alloc>() == 32);
    assert!(offset_of!(Alloc, addr) == 8 && offset_of!(Alloc, size) == 16 && offset_of!(Alloc, stack) == 24);
    assert!(size_of::<Free>() == 16);
    assert!(size_of::<MoveBegin>() == 24);
    assert!(offset_of!(MoveBegin, tid) == 8 && offset_of!(MoveBegin, addr) == 16);
    assert!(size_of::<RangeBegin>() == 32);
    assert!(offset_of!(RangeBegin, addr) == 16 && offset_of!(RangeBegin, len) == 24);
    assert!(size_of::<MoveEnd>() == 40);
    assert!(offset_of!(MoveEnd, addr) == 16 && offset_of!(MoveEnd, stack) == 32);
    assert!(size_of::<Lifecycle>() == 72);
    assert!(offset_of!(Lifecycle, start_ns) == 16 && offset_of!(Lifecycle, lost) == 40);
    assert!(STACK_PREFIX == 24 && size_of::<Stack>() == STACK_PREFIX + 8 * MAX_FRAMES);
    assert!(size_of::<Control>() == 40);
    assert!(offset_of!(Control, start_ns) == 16);
};
