//! The only writer of the rings; counts every record that does not fit.
//!
//! Comes in: a finished record. Goes out: the record, or a counter. Never: waits, or wakes the agent for a
//! single event (a wakeup costs more than all the rest of a probe).

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use leaktrace_common::counters::Counter;
use leaktrace_common::limits;
use leaktrace_common::process::Traced;

use crate::maps::{CONTROL, COUNTS, EVENTS};

/// Size of the event ring, set by the agent before loading.
#[unsafe(no_mangle)]
static RING_BYTES: u32 = limits::DEFAULT_RING_BYTES;

/// Adds to a counter that others may add to.
#[inline(always)]
pub fn add(slot: *mut u64, n: u64) {
    // SAFETY: the pointer is into a map value; `lock add` is one instruction, so preemption cannot tear it.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(slot, n) };
}

/// Counts one of [`Counter`].
#[inline(always)]
pub fn count(counter: Counter) {
    count_by(counter, 1);
}

/// Adds `n` to one of [`Counter`].
#[inline(always)]
pub fn count_by(counter: Counter, n: u64) {
    if let Some(slot) = COUNTS.get_ptr_mut(counter as u32) {
        add(slot, n);
    }
}

/// Puts a record on the event ring; `false` if it did not fit.
#[inline(always)]
pub fn event<T: 'static>(record: T) -> bool {
    let Some(mut entry) = EVENTS.reserve::<T>(0) else { return false };
    entry.write(record);
    entry.submit(wakeup());
    true
}

/// The agent looks at the ring by itself; it is woken when a quarter is full, once.
#[inline(always)]
pub fn wakeup() -> u64 {
    // SAFETY: a volatile read, since the agent replaces the value behind the compiler's back.
    let quarter = u64::from(unsafe { core::ptr::read_volatile(&raw const RING_BYTES) } / 4);
    let waiting = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    // A window, not a threshold: above it each record would wake the agent that is awake already.
    let force = waiting >= quarter && waiting < quarter + quarter / 16;
    u64::from(if force { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}

/// Puts a request on the control ring and wakes the agent; `false` if it did not fit.
#[inline(always)]
pub fn request<T: 'static>(record: T) -> bool {
    let Some(mut entry) = CONTROL.reserve::<T>(0) else {
        count(Counter::ControlRingFull);
        return false;
    };
    entry.write(record);
    entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
    true
}

/// Counts an allocation or mapping of `bytes` that did not fit.
#[inline(always)]
pub fn lost_alloc(traced: *mut Traced, bytes: u64) {
    count(Counter::RingFullAlloc);
    // SAFETY: a map value, see `gate`.
    unsafe {
        add(&raw mut (*traced).lost.allocs, 1);
        add(&raw mut (*traced).lost.alloc_bytes, bytes);
    }
}

/// Counts a free or unmap that did not fit.
#[inline(always)]
pub fn lost_free(traced: *mut Traced) {
    count(Counter::RingFullFree);
    // SAFETY: a map value, see `gate`.
    unsafe { add(&raw mut (*traced).lost.frees, 1) };
}
