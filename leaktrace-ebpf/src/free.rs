//! `free` and all that give back the block of their first argument.
//!
//! Comes in: an address. Goes out: a [`Free`] record, before the block can be handed out again. Never: a record
//! for NULL.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use leaktrace_common::record::{Free, Header, kind};

use crate::emit::{event, lost_free};
use crate::gate::Thread;
use crate::inflight;

/// `free(block)`.
#[uprobe]
pub fn free(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    give_back(ctx.regs, unsafe { (*ctx.regs).rdi })
}

/// `f(_, block)`.
#[uprobe]
pub fn free_second(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    give_back(ctx.regs, unsafe { (*ctx.regs).rsi })
}

#[inline(always)]
fn give_back(regs: *const pt_regs, block: u64) -> u32 {
    if block == 0 {
        return 0;
    }
    let Some(thread) = Thread::current() else { return 0 };
    // SAFETY: the program's context.
    let sp = unsafe { (*regs).rsp };
    // A `realloc` that frees what it moves has said so.
    if inflight::in_realloc_of(&thread, sp, block) {
        return 0;
    }
    let header = Header { kind: kind::FREE, detail: 0, count: 0, pid: thread.owner };
    if !event(Free { header, addr: block }) {
        lost_free(thread.traced());
    }
    0
}
