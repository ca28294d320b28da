//! Reads members of kernel structures, at offsets that the agent found in the kernel's BTF.
//!
//! Comes in: a `task_struct` pointer. Goes out: numbers. Never: fails: an unreadable member is 0.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use leaktrace_common::process::{KernelOffsets, start_time};

/// Set by the agent before loading.
#[unsafe(no_mangle)]
static KERNEL_OFFSETS: KernelOffsets =
    KernelOffsets { task_tgid: 0, task_mm: 0, task_start_boottime: 0, task_signal: 0, signal_live: 0 };

/// A `task_struct`.
#[derive(Clone, Copy)]
pub struct Task(*const u8);

#[inline(always)]
fn offsets() -> KernelOffsets {
    // SAFETY: a volatile read, since the agent replaces the value behind the compiler's back.
    unsafe { core::ptr::read_volatile(&raw const KERNEL_OFFSETS) }
}

#[inline(always)]
fn read<T: Default>(base: *const u8, offset: u32) -> T {
    // SAFETY: the helper checks the address; a fault is an error, not a crash.
    unsafe { bpf_probe_read_kernel(base.add(offset as usize).cast()) }.unwrap_or_default()
}

impl Task {
    /// From a tracepoint's argument.
    #[inline(always)]
    pub fn new(task: *const u8) -> Self {
        Self(task)
    }

    #[inline(always)]
    pub fn tgid(self) -> u32 {
        read(self.0, offsets().task_tgid)
    }

    /// Address of its memory descriptor: equal ones share memory.
    #[inline(always)]
    pub fn mm(self) -> u64 {
        read(self.0, offsets().task_mm)
    }

    /// As `/proc/PID/stat` shows it, in nanoseconds since boot.
    #[inline(always)]
    pub fn start_ns(self) -> u64 {
        start_time(read(self.0, offsets().task_start_boottime))
    }

    /// Threads of its process that have not begun to exit.
    #[inline(always)]
    pub fn live_threads(self) -> u32 {
        let signal: u64 = read(self.0, offsets().task_signal);
        read(signal as *const u8, offsets().signal_live)
    }
}
