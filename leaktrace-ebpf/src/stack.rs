//! The user stack at the entry of an allocation function, by frame pointers.
//!
//! Comes in: the registers at entry, the stack pointer on the return address. Goes out: a stack id; the
//! frames once, on the event ring. Never: symbols, or a walk after a return probe has replaced the return
//! address.
//!
//! The frames do not fit on the BPF stack, so the stack is walked once for its id and, if the id is new, once
//! more into a ring record.

use core::hint::black_box;

use aya_ebpf::bindings::{BPF_ANY, pt_regs};
use aya_ebpf::helpers::bpf_probe_read_user;
use leaktrace_common::counters::Counter;
use leaktrace_common::limits::MAX_FRAMES;
use leaktrace_common::record::{Header, SHORT_STACK_FRAMES, STACK_PREFIX, Stack, kind};
use leaktrace_common::stack::{Ending, StackId};

use crate::emit::{count, wakeup};
use crate::gate::Thread;
use crate::maps::{EVENTS, SEEN_STACKS};

/// A frame may be this far from the next: larger than any stack array in practice, smaller than the distance
/// from a stack to the heap, where a frame pointer that holds something else often points.
const MAX_FRAME_BYTES: u64 = 16 << 20;

/// `[fp]` and `[fp + 8]`.
#[repr(C)]
#[derive(Clone, Copy)]
struct SavedFrame {
    caller_fp: u64,
    return_address: u64,
}

/// Where a walk stands.
struct Walk {
    fp: u64,
    sp: u64,
}

impl Walk {
    #[inline(always)]
    fn new(regs: *const pt_regs) -> Self {
        // SAFETY: the program's context.
        unsafe { Self { fp: (*regs).rbp, sp: (*regs).rsp } }
    }

    /// The next outer return address.
    #[inline(always)]
    fn next(&mut self) -> Result<u64, Ending> {
        if self.fp == 0 {
            return Err(Ending::Complete);
        }
        if self.fp & 7 != 0 || self.fp <= self.sp || self.fp - self.sp > MAX_FRAME_BYTES {
            return Err(Ending::Broken);
        }
        // SAFETY: the helper checks the address; a fault is an error, not a crash.
        let Ok(saved) = (unsafe { bpf_probe_read_user(self.fp as *const SavedFrame) }) else {
            return Err(Ending::Unreadable);
        };
        if saved.return_address == 0 {
            return Err(Ending::Complete);
        }
        self.sp = self.fp;
        self.fp = saved.caller_fp;
        Ok(saved.return_address)
    }
}

/// The return address at entry.
#[inline(always)]
pub fn caller(regs: *const pt_regs) -> Option<u64> {
    // SAFETY: the program's context; the helper checks the address.
    unsafe { bpf_probe_read_user((*regs).rsp as *const u64) }.ok()
}

/// The id of the current stack; sends its frames if the agent does not have them.
///
/// Not inlined: one copy serves all programs, and the verifier walks it on its own.
#[inline(always)]
pub fn id(regs: *const pt_regs, thread: &Thread, caller: u64) -> u64 {
    let generation = thread.generation();
    let mut walk = Walk::new(regs);
    let mut id = StackId::new(generation).frame(caller);
    let mut frames = 1usize;
    let mut ending = Ending::TooDeep;
    for _ in 1..MAX_FRAMES {
        match walk.next() {
            Ok(address) => {
                id = id.frame(address);
                frames += 1;
            }
            Err(end) => {
                ending = end;
                break;
            }
        }
    }
    let id = id.finish();
    count(Counter::Stacks);
    let (frames, ending) = (forget(frames as u64, caller), forget(ending as u64, caller));
    // SAFETY: only the presence of the key is used.
    if unsafe { SEEN_STACKS.get(id) }.is_none() {
        send(regs, thread, caller, id, frames, ending);
    }
    id
}

/// `number`, of which the verifier knows no more than of `unknown`.
///
/// A walk may end after each frame, for several reasons. If the verifier knew which, it would walk what follows once
/// for each: more than a million instructions on Linux 6.1, where it gives up.
#[inline(always)]
fn forget(number: u64, unknown: u64) -> u64 {
    number ^ black_box(unknown) ^ black_box(unknown)
}

#[inline(always)]
fn send(regs: *const pt_regs, thread: &Thread, caller: u64, id: u64, frames: u64, ending: u64) {
    let header = Header { kind: kind::STACK, detail: ending as u8, count: frames as u16, pid: thread.owner };
    let sent = if frames <= SHORT_STACK_FRAMES as u64 {
        write::<SHORT_STACK_FRAMES>(regs, header, thread.generation(), caller, id)
    } else {
        write::<MAX_FRAMES>(regs, header, thread.generation(), caller, id)
    };
    if !sent {
        count(Counter::RingFullStack);
        return;
    }
    if ending == Ending::TooDeep as u64 {
        count(Counter::StackTooDeep);
    } else if ending == Ending::Broken as u64 {
        count(Counter::StackBroken);
    } else if ending == Ending::Unreadable as u64 {
        count(Counter::StackUnreadable);
    }
    // Full or not, the map is an optimisation: a stack that is not in it is sent again.
    let _ = SEEN_STACKS.insert(id, 1, u64::from(BPF_ANY));
}

/// A [`Stack`] record with room for `N` frames.
#[repr(C)]
struct Room<const N: usize> {
    header: Header,
    generation: u32,
    pad: u32,
    id: u64,
    frames: [u64; N],
}

const _: () = assert!(size_of::<Room<MAX_FRAMES>>() == size_of::<Stack>());
const _: () = assert!(core::mem::offset_of!(Room<1>, frames) == STACK_PREFIX);

/// Walks again, into the ring. The stack cannot have changed: its thread is in this program.
#[inline(always)]
fn write<const N: usize>(
    regs: *const pt_regs,
    header: Header,
    generation: u32,
    caller: u64,
    id: u64,
) -> bool {
    let Some(mut entry) = EVENTS.reserve::<Room<N>>(0) else { return false };
    let room = entry.as_mut_ptr();
    // SAFETY: `room` is reserved ring memory of the size of `Room<N>`; `i` stays below `N`.
    unsafe {
        (&raw mut (*room).header).write(header);
        (&raw mut (*room).generation).write(generation);
        (&raw mut (*room).pad).write(0);
        (&raw mut (*room).id).write(id);
        let frames = (&raw mut (*room).frames).cast::<u64>();
        frames.write(caller);
        let mut walk = Walk::new(regs);
        for i in 1..N {
            let Ok(address) = walk.next() else { break };
            frames.add(i).write(address);
        }
    }
    entry.submit(wakeup());
    true
}
