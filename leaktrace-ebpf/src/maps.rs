//! Every map, once.
//!
//! Comes in: sizes from [`leaktrace_common::limits`]; the agent may override the ring's. Goes out: statics.
//! Never: state between two steps in a per-CPU map: a uprobe program can be preempted.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use leaktrace_common::comm::CommPattern;
use leaktrace_common::counters::COUNTERS;
use leaktrace_common::limits;
use leaktrace_common::process::Traced;

use crate::inflight::Inflight;

/// All records of all processes, in one order.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(limits::DEFAULT_RING_BYTES, 0);

/// Requests that the agent answers at once.
#[map]
pub static CONTROL: RingBuf = RingBuf::with_byte_size(limits::CONTROL_RING_BYTES, 0);

/// Traced processes by pid.
#[map]
pub static TRACED: HashMap<u32, Traced> = HashMap::with_max_entries(limits::MAX_PROCESSES, BPF_F_NO_PREALLOC);

/// Processes that wait for the agent, by pid; see [`crate::hold`].
#[map]
pub static HOLDS: HashMap<u32, u32> = HashMap::with_max_entries(limits::MAX_PROCESSES, BPF_F_NO_PREALLOC);

/// CPUs that spin in a wait, in slot 0.
#[map]
pub static HOLDERS: Array<u64> = Array::with_max_entries(1, 0);

/// Threads inside an allocation function, by tid. An entry stays until its thread exits: a lookup costs a
/// tenth of an insertion.
#[map]
pub static INFLIGHT: HashMap<u32, Inflight> =
    HashMap::with_max_entries(limits::MAX_THREADS, BPF_F_NO_PREALLOC);

/// Ids of stacks whose frames the agent has.
#[map]
pub static SEEN_STACKS: LruHashMap<u64, u8> = LruHashMap::with_max_entries(limits::SEEN_STACKS, 0);

/// [`leaktrace_common::counters::Counter`] by slot, for each CPU: a shared one would be fought for. Safe although
/// a program can be preempted and go on, since each use is one atomic addition.
#[map]
pub static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// `--comm` patterns; unused slots match nothing.
#[map]
pub static COMM_PATTERNS: Array<CommPattern> = Array::with_max_entries(limits::MAX_COMM_PATTERNS as u32, 0);
