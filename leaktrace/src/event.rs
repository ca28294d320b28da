//! What happened in a traced process, free of bytes, maps and kernels.
//!
//! Comes in: from [`crate::decode`]. Goes out: to [`crate::ledger`]. Never: a wire layout or a symbol.

use leaktrace_common::process::Lost;
use leaktrace_common::stack::Ending;

/// A thread-group id of the initial pid namespace. Reused by the kernel: see [`ProcessKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(pub u32);

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A thread id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tid(pub u32);

/// A process for good: pids are reused, a pid with a start time is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Its pid.
    pub pid: Pid,
    /// Nanoseconds since boot, in steps of 10 ms.
    pub start_ns: u64,
}

/// Identity of a stack: equal ids are equal return addresses in the same mappings. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(pub std::num::NonZeroU64);

/// The frames of a stack, innermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// Process whose use of the stack was the first.
    pub pid: Pid,
    /// Generation of that process's mappings ([`leaktrace_common::process::Traced::generation`]).
    pub generation: u32,
    /// Return addresses; the first is the call of the allocation function.
    pub addresses: Box<[u64]>,
    /// Why there are no more.
    pub ending: Ending,
}

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// From `malloc` and its kin.
    Heap,
    /// From `mmap`.
    Mmap,
}

impl Kind {
    /// Name in reports, JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Mmap => "mmap",
        }
    }
}

/// One thing that happened. Addresses are the target's, sizes are requested bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's text names its fields")]
pub enum Event {
    /// The frames of a stack id, before its first use.
    Stack { id: StackId, frames: Frames },
    /// A new heap block. If `addr` is outstanding already, its free was lost.
    Alloc { pid: Pid, addr: u64, size: u64, stack: Option<StackId> },
    /// A heap block was given back.
    Free { pid: Pid, addr: u64 },
    /// A `realloc` of `addr` began on `tid`: until its end the block is neither here nor there, and another
    /// thread may be handed its address.
    ReallocBegin { pid: Pid, tid: Tid, addr: u64 },
    /// The `realloc` that `tid` began ended: at `moved` (address, size), or with the block as it was.
    ReallocEnd { pid: Pid, tid: Tid, moved: Option<(u64, u64)>, stack: Option<StackId> },
    /// A new mapping; whatever it covers was unmapped by it (`MAP_FIXED`).
    Map { pid: Pid, addr: u64, len: u64, stack: Option<StackId> },
    /// `tid` is about to unmap a range: whole mappings, parts, or nothing that is known.
    UnmapBegin { pid: Pid, tid: Tid, addr: u64, len: u64 },
    /// The unmapping that `tid` began failed; all is as before.
    UnmapFailed { pid: Pid, tid: Tid },
    /// `tid` is about to move or resize a mapping.
    RemapBegin { pid: Pid, tid: Tid, addr: u64, len: u64 },
    /// That ended: at `moved` (address, length), or with the mapping as it was.
    RemapEnd { pid: Pid, tid: Tid, moved: Option<(u64, u64)>, stack: Option<StackId> },
    /// `parent` forked: the child starts with a copy of all that is outstanding.
    Fork { parent: Pid, child: ProcessKey, comm: Comm },
    /// The process runs a new program: its memory is gone, its pid stays. Also the first sight of a process
    /// that was waited for.
    Exec { process: ProcessKey, comm: Comm },
    /// The last thread of the process is gone.
    Exit { pid: Pid, lost: Lost },
}

/// A comm, at most 15 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Comm(pub String);
