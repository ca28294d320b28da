//! What a thread is doing between the entry and the return of an allocation function.
//!
//! Comes in: stack pointers and arguments at entry. Goes out: the same, at return. Never: more than the
//! outermost call of a thread: what an allocation function calls to do its work (`calloc` its `malloc`,
//! `malloc` its `mmap`) is not an allocation of the program.
//!
//! A call is known by its stack pointer at entry. A call that was left without returning (`longjmp`, a C++
//! exception) is known by a later call at or above its stack pointer.

use aya_ebpf::bindings::BPF_ANY;
use leaktrace_common::counters::Counter;

use crate::emit::count;
use crate::gate::Thread;
use crate::maps::INFLIGHT;

/// Nothing is in flight.
pub const IDLE: u32 = 0;
/// A new block of `size` bytes is returned.
pub const ALLOC: u32 = 1;
/// The block at `argument` moves; its begin record is out.
pub const REALLOC: u32 = 2;
/// A new block of `size` bytes is written to the pointer at `argument`.
pub const POSIX_MEMALIGN: u32 = 3;
/// A C++ `operator new` at code address `argument` is about to call the allocator.
pub const NEW: u32 = 4;
/// A mapping of `size` bytes is returned.
pub const MAP: u32 = 5;
/// A range is unmapped; its begin record is out.
pub const UNMAP: u32 = 6;
/// A mapping moves or changes to `size` bytes; its begin record is out.
pub const REMAP: u32 = 7;

/// How far the code of an `operator new` may be from the probe on the one that was entered: libstdc++'s are
/// neighbours of about 100 bytes, and call each other.
const NEW_CODE_BYTES: u64 = 2048;

/// How much stack there may be between an `operator new` and the allocator that it calls.
const NEW_STACK_BYTES: u64 = 512;

/// A thread's outermost call. Written by its own thread only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Inflight {
    /// Stack pointer at entry: the address of the return address.
    pub sp: u64,
    /// Requested bytes.
    pub size: u64,
    /// See the kinds above.
    pub argument: u64,
    /// Stack id.
    pub stack: u64,
    /// Return address at entry.
    pub caller: u64,
    /// One of the kinds above.
    pub kind: u32,
    /// Zero.
    pub pad: u32,
}

/// What a new entry is to the call in flight.
pub enum Nesting {
    /// The thread's outermost call.
    Outermost,
    /// Called by the call in flight to do its work.
    Nested,
    /// Called by the `operator new` in flight, whose stack id this is.
    UnderNew(u64),
}

/// The call in flight on this thread.
#[inline(always)]
pub fn current(thread: &Thread) -> Option<*mut Inflight> {
    INFLIGHT.get_ptr_mut(thread.tid)
}

/// What a call entered at `sp`, to return to `caller`, is to `inflight`.
#[inline(always)]
pub fn nesting(inflight: *const Inflight, sp: u64, caller: u64) -> Nesting {
    // SAFETY: a map value that only this thread writes.
    let outer = unsafe { *inflight };
    if outer.kind == IDLE || sp > outer.sp {
        return Nesting::Outermost;
    }
    if outer.kind == NEW {
        let first = outer.argument.wrapping_sub(NEW_CODE_BYTES);
        let in_new = caller.wrapping_sub(first) < 2 * NEW_CODE_BYTES && outer.sp - sp < NEW_STACK_BYTES;
        // Entered at the same stack pointer: `new` ended in a jump.
        return if in_new || sp == outer.sp { Nesting::UnderNew(outer.stack) } else { Nesting::Outermost };
    }
    // At the same stack pointer with the same return address: the outer call was left without returning and
    // this is the next one. With another one (the return probe's): the outer call ended in a jump here.
    if sp == outer.sp && caller == outer.caller { Nesting::Outermost } else { Nesting::Nested }
}

/// Whether a call entered at `sp` is nested in a `realloc` of `block`.
#[inline(always)]
pub fn in_realloc_of(thread: &Thread, sp: u64, block: u64) -> bool {
    let Some(inflight) = current(thread) else { return false };
    // SAFETY: a map value that only this thread writes.
    let outer = unsafe { *inflight };
    outer.kind == REALLOC && outer.argument == block && sp < outer.sp
}

/// Whether a call entered at `sp` is nested in any allocation function.
#[inline(always)]
pub fn nested(thread: &Thread, sp: u64, caller: u64) -> bool {
    match current(thread) {
        Some(inflight) => !matches!(nesting(inflight, sp, caller), Nesting::Outermost),
        None => false,
    }
}

/// Remembers a call until its return.
#[inline(always)]
pub fn begin(thread: &Thread, call: &Inflight) -> bool {
    if let Some(slot) = current(thread) {
        // SAFETY: a map value that only this thread writes.
        unsafe { *slot = *call };
        return true;
    }
    if INFLIGHT.insert(thread.tid, call, u64::from(BPF_ANY)).is_err() {
        count(Counter::InflightFull);
        return false;
    }
    true
}

/// Takes the call that was entered at `sp`, if it is the one in flight.
#[inline(always)]
pub fn end(thread: &Thread, sp: u64) -> Option<Inflight> {
    let slot = current(thread)?;
    // SAFETY: a map value that only this thread writes.
    unsafe {
        let call = *slot;
        if call.kind == IDLE || call.sp != sp {
            return None;
        }
        (*slot).kind = IDLE;
        Some(call)
    }
}
