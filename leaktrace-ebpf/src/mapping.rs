//! Entries of libc's `mmap`, `munmap` and `mremap`.
//!
//! Comes in: addresses and lengths. Goes out: begin records, calls in flight. Never: what an allocator maps for
//! itself while it allocates.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use leaktrace_common::record::{Header, RangeBegin, kind};

use crate::alloc::{enter, outermost_stack};
use crate::emit::{event, lost_free};
use crate::gate::Thread;
use crate::inflight::{self, Inflight, MAP, REMAP, UNMAP};
use crate::stack;

/// `mmap(addr, len, prot, flags, fd, offset)`.
#[uprobe]
pub fn mmap(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    let len = unsafe { (*ctx.regs).rsi };
    enter(ctx.regs, MAP, len, 0)
}

/// `munmap(addr, len)`.
#[uprobe]
pub fn munmap(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    let (addr, len) = unsafe { ((*ctx.regs).rdi, (*ctx.regs).rsi) };
    let _ = range(ctx.regs, UNMAP, addr, len, 0);
    0
}

/// `mremap(old, old_len, new_len, flags, …)`.
#[uprobe]
pub fn mremap(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    let (addr, len, new_len) = unsafe { ((*ctx.regs).rdi, (*ctx.regs).rsi, (*ctx.regs).rdx) };
    let _ = range(ctx.regs, REMAP, addr, len, new_len);
    0
}

#[inline(always)]
fn range(regs: *const pt_regs, call: u32, addr: u64, len: u64, new_len: u64) -> Option<()> {
    let thread = Thread::current()?;
    // SAFETY: the program's context.
    let sp = unsafe { (*regs).rsp };
    let caller = stack::caller(regs)?;
    let (record, stack) = if call == UNMAP {
        if inflight::nested(&thread, sp, caller) {
            return None;
        }
        (kind::UNMAP_BEGIN, 0)
    } else {
        (kind::REMAP_BEGIN, outermost_stack(regs, &thread, sp, caller)?)
    };
    let header = Header { kind: record, detail: 0, count: 0, pid: thread.owner };
    if !event(RangeBegin { header, tid: thread.tid, pad: 0, addr, len }) {
        lost_free(thread.traced());
        return None;
    }
    inflight::begin(
        &thread,
        &Inflight { sp, size: new_len, argument: addr, stack, caller, kind: call, pad: 0 },
    );
    None
}
