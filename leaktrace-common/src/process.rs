//! Map values that describe a traced process to the kernel side.
//!
//! Comes in: what the agent decided. Goes out: what the gate of every probe reads. Never: anything whose
//! size depends on the process.

use core::mem::{offset_of, size_of};

/// Follow this process when it runs a new program, whatever its new comm.
pub const FOLLOW_EXEC: u32 = 1;

/// A traced process, keyed by its pid.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traced {
    /// Owner of the address space: the pid itself, or the parent between `vfork` and `exec`.
    pub owner: u32,
    /// Bits, see [`FOLLOW_EXEC`].
    pub flags: u32,
    /// Which mappings an address of this process points into: the upper 16 bits count programs run, the
    /// lower ones changes of the library list. Part of a stack's id, so that an address that a later library
    /// takes over is another frame.
    pub generation: u32,
    /// Zero; `generation` is counted up as the lower half of a 64-bit pair.
    pub reserved: u32,
    /// Start time, nanoseconds since boot, rounded down to 10 ms as `/proc/PID/stat` gives it.
    pub start_ns: u64,
    /// What was lost for this process.
    pub lost: Lost,
}

/// Records of one process that never reached the agent.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// Allocations and mappings.
    pub allocs: u64,
    /// Their bytes.
    pub alloc_bytes: u64,
    /// Frees and unmaps.
    pub frees: u64,
    /// Frees and unmaps' bytes are unknown; moves (`realloc`, `mremap`) count as one alloc and one free and
    /// are counted here once more, to tell them apart.
    pub moves: u64,
}

/// Nanoseconds of a `/proc/PID/stat` clock tick (`USER_HZ` is 100 on every Linux architecture we run on).
pub const TICK_NS: u64 = 10_000_000;

/// `start_boottime` of a task as `/proc/PID/stat` shows it, in nanoseconds.
#[inline(always)]
pub const fn start_time(start_boottime_ns: u64) -> u64 {
    start_boottime_ns - start_boottime_ns % TICK_NS
}

/// Offsets of kernel structure members that the kernel side reads, found in the running kernel's BTF by the
/// agent (Rust has no CO-RE).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelOffsets {
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `task_struct.start_boottime`
    pub task_start_boottime: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
}

const _: () = {
    assert!(size_of::<Traced>() == 56);
    assert!(offset_of!(Traced, generation) == 8 && offset_of!(Traced, start_ns) == 16);
    assert!(size_of::<Lost>() == 32);
    assert!(size_of::<KernelOffsets>() == 20);
};
