//! Sizes of maps, rings and loops, each with the reason for its number.
//!
//! Comes in: nothing. Goes out: constants. Never: anything that depends on the machine.

/// Frames of a stack that are kept. `perf` and the kernel stop at 127 too (`PERF_MAX_STACK_DEPTH`).
pub const MAX_FRAMES: usize = 127;

/// Bytes of the event ring by default: 64 MiB hold about 1.3 million records, over a second of two CPUs
/// allocating flat out through probes. A power of two and a multiple of the page size.
pub const DEFAULT_RING_BYTES: u32 = 64 << 20;

/// Smallest event ring that the kernel takes: one page.
pub const MIN_RING_BYTES: u32 = 4096;

/// Bytes of the control ring: a control record is 40 bytes, and 64 KiB hold 1,300 process starts that the
/// agent has not answered yet.
pub const CONTROL_RING_BYTES: u32 = 64 << 10;

/// Processes traced at one time. A Linux host runs at most 4 million, a busy one some thousands.
pub const MAX_PROCESSES: u32 = 16 * 1024;

/// Threads inside an allocation function at one time or before; an entry lives from a thread's first
/// allocation to its exit.
pub const MAX_THREADS: u32 = 128 * 1024;

/// Stacks whose frames the agent has been sent. A stack that falls out is sent again: costs a record, loses
/// nothing.
pub const SEEN_STACKS: u32 = 64 * 1024;

/// `--comm` patterns of one run.
pub const MAX_COMM_PATTERNS: usize = 8;

/// Length of a comm with its terminating NUL (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

/// Longest time a traced process waits in the kernel at exec, at fork or in its dynamic loader until the agent
/// has taken notice of it, in nanoseconds; about 0.2 ms is usual. Its CPU does nothing else meanwhile.
pub const HOLD_NS: u64 = 20_000_000;
