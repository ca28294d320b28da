//! Returns of allocation functions: what they returned, and the records that say so.
//!
//! Comes in: the result register and the call in flight. Goes out: the call's record. Never: a record for a
//! call that failed, but the end of a move that was begun.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::macros::{uprobe, uretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use leaktrace_common::counters::Counter;
use leaktrace_common::record::{Alloc, Header, MoveEnd, kind};

use crate::emit::{count, event, lost_alloc};
use crate::gate::Thread;
use crate::inflight::{self, ALLOC, Inflight, MAP, POSIX_MEMALIGN, REALLOC, REMAP, UNMAP};

/// The highest results of a system call are error numbers.
const FIRST_ERROR: u64 = -4095i64 as u64;

/// After the return of a function with a return probe: the return address is popped.
#[uretprobe]
pub fn returned(ctx: RetProbeContext) -> u32 {
    // SAFETY: the program's context.
    let entry_sp = unsafe { (*ctx.regs).rsp } - 8;
    let _ = finish(ctx.regs, entry_sp);
    0
}

/// On the `ret` of a function that may throw, where a return probe would break the unwinder.
#[uprobe]
pub fn returning(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    let entry_sp = unsafe { (*ctx.regs).rsp };
    let _ = finish(ctx.regs, entry_sp);
    0
}

#[inline(always)]
fn finish(regs: *const pt_regs, entry_sp: u64) -> Option<()> {
    let thread = Thread::current()?;
    let call = inflight::end(&thread, entry_sp)?;
    // SAFETY: the program's context.
    let result = unsafe { (*regs).rax };
    match call.kind {
        ALLOC if result != 0 => alloc(&thread, kind::ALLOC, result, &call),
        POSIX_MEMALIGN if result as u32 == 0 => {
            // SAFETY: the helper checks the address; a fault is an error, not a crash.
            match unsafe { bpf_probe_read_user(call.argument as *const u64) } {
                Ok(block) => alloc(&thread, kind::ALLOC, block, &call),
                Err(_) => count(Counter::ResultUnreadable),
            }
        }
        MAP if result < FIRST_ERROR => alloc(&thread, kind::MAP, result, &call),
        REALLOC => move_end(&thread, kind::REALLOC_END, result, &call),
        REMAP => {
            let moved = if result < FIRST_ERROR { result } else { 0 };
            move_end(&thread, kind::REMAP_END, moved, &call);
        }
        UNMAP if result as u32 != 0 => move_end(&thread, kind::UNMAP_FAILED, 0, &call),
        _ => {}
    }
    None
}

#[inline(always)]
fn alloc(thread: &Thread, record: u8, addr: u64, call: &Inflight) {
    let header = Header { kind: record, detail: 0, count: 0, pid: thread.owner };
    if !event(Alloc { header, addr, size: call.size, stack: call.stack }) {
        lost_alloc(thread.traced(), call.size);
    }
}

#[inline(always)]
fn move_end(thread: &Thread, record: u8, addr: u64, call: &Inflight) {
    let header = Header { kind: record, detail: 0, count: 0, pid: thread.owner };
    let end = MoveEnd { header, tid: thread.tid, pad: 0, addr, size: call.size, stack: call.stack };
    if !event(end) {
        lost_alloc(thread.traced(), call.size);
    }
}
