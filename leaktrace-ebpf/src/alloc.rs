//! Entries of allocation functions.
//!
//! Comes in: size and pointer arguments. Goes out: a call in flight ([`crate::inflight`]), and the begin
//! record of a move. Never: the result, which [`crate::returns`] sees.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use leaktrace_common::counters::Counter;
use leaktrace_common::record::{Free, Header, MoveBegin, kind};

use crate::emit::{count, event, lost_free};
use crate::gate::Thread;
use crate::inflight::{self, ALLOC, Inflight, NEW, Nesting, POSIX_MEMALIGN, REALLOC};
use crate::stack;

/// `malloc(size)` and all that take the size first.
#[uprobe]
pub fn malloc(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    let size = unsafe { (*ctx.regs).rdi };
    enter(ctx.regs, ALLOC, size, 0)
}

/// `memalign(alignment, size)` and all that take the size second.
#[uprobe]
pub fn size_second(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    let size = unsafe { (*ctx.regs).rsi };
    enter(ctx.regs, ALLOC, size, 0)
}

/// `calloc(n, size)`. A product that overflows is refused by the function, so its value does not matter.
#[uprobe]
pub fn calloc(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    let size = unsafe { (*ctx.regs).rdi.wrapping_mul((*ctx.regs).rsi) };
    enter(ctx.regs, ALLOC, size, 0)
}

/// `mi_heap_calloc(heap, n, size)`.
#[uprobe]
pub fn calloc_second(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    let size = unsafe { (*ctx.regs).rsi.wrapping_mul((*ctx.regs).rdx) };
    enter(ctx.regs, ALLOC, size, 0)
}

/// `posix_memalign(out, alignment, size)`.
#[uprobe]
pub fn posix_memalign(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    let (out, size) = unsafe { ((*ctx.regs).rdi, (*ctx.regs).rdx) };
    enter(ctx.regs, POSIX_MEMALIGN, size, out)
}

/// `realloc(block, size)`.
#[uprobe]
pub fn realloc(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    let (block, size) = unsafe { ((*ctx.regs).rdi, (*ctx.regs).rsi) };
    enter_realloc(ctx.regs, block, size)
}

/// `mi_heap_realloc(heap, block, size)` and all that take the block second.
#[uprobe]
pub fn realloc_second(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    let (block, size) = unsafe { ((*ctx.regs).rsi, (*ctx.regs).rdx) };
    enter_realloc(ctx.regs, block, size)
}

/// `reallocarray(block, n, size)`.
#[uprobe]
pub fn reallocarray(ctx: ProbeContext) -> u32 {
    // SAFETY: the program's context.
    let (block, n, size) = unsafe { ((*ctx.regs).rdi, (*ctx.regs).rsi, (*ctx.regs).rdx) };
    // A product that overflows is refused by the function, so its value does not matter, but 0 means `free`.
    let total = if n == 0 || size == 0 { 0 } else { n.wrapping_mul(size).max(1) };
    enter_realloc(ctx.regs, block, total)
}

/// `operator new` of a library whose allocation is another's `malloc`: only its caller is of interest.
#[uprobe]
pub fn operator_new(ctx: ProbeContext) -> u32 {
    let _ = try_operator_new(ctx.regs);
    0
}

#[inline(always)]
fn try_operator_new(regs: *const pt_regs) -> Option<()> {
    let thread = Thread::current()?;
    // SAFETY: the program's context.
    let (sp, ip) = unsafe { ((*regs).rsp, (*regs).rip) };
    let caller = stack::caller(regs)?;
    if inflight::nested(&thread, sp, caller) {
        // `new[]` calls `new`: its caller is the site.
        return None;
    }
    let stack = stack::id(regs, &thread, caller);
    inflight::begin(&thread, &Inflight { sp, size: 0, argument: ip, stack, caller, kind: NEW, pad: 0 });
    None
}

/// Remembers a call that will return a new block or mapping.
#[inline(always)]
pub fn enter(regs: *const pt_regs, kind: u32, size: u64, argument: u64) -> u32 {
    let _ = try_enter(regs, kind, size, argument);
    0
}

#[inline(always)]
fn try_enter(regs: *const pt_regs, kind: u32, size: u64, argument: u64) -> Option<()> {
    let thread = Thread::current()?;
    // SAFETY: the program's context.
    let sp = unsafe { (*regs).rsp };
    let caller = stack::caller(regs)?;
    let stack = outermost_stack(regs, &thread, sp, caller)?;
    inflight::begin(&thread, &Inflight { sp, size, argument, stack, caller, kind, pad: 0 });
    None
}

/// The stack id of an outermost call; `None` for a nested one.
#[inline(always)]
pub fn outermost_stack(regs: *const pt_regs, thread: &Thread, sp: u64, caller: u64) -> Option<u64> {
    match inflight::current(thread) {
        None => Some(stack::id(regs, thread, caller)),
        Some(inflight) => match inflight::nesting(inflight, sp, caller) {
            Nesting::Outermost => Some(stack::id(regs, thread, caller)),
            Nesting::UnderNew(stack) => Some(stack),
            Nesting::Nested => None,
        },
    }
}

#[inline(always)]
fn enter_realloc(regs: *const pt_regs, block: u64, size: u64) -> u32 {
    let _ = try_enter_realloc(regs, block, size);
    0
}

#[inline(always)]
fn try_enter_realloc(regs: *const pt_regs, block: u64, size: u64) -> Option<()> {
    let thread = Thread::current()?;
    // SAFETY: the program's context.
    let sp = unsafe { (*regs).rsp };
    let caller = stack::caller(regs)?;
    let stack = outermost_stack(regs, &thread, sp, caller)?;
    let mut call = Inflight { sp, size, argument: 0, stack, caller, kind: ALLOC, pad: 0 };
    if block != 0 && size == 0 {
        // Frees the block; some allocators return a new empty one.
        let header = Header { kind: kind::FREE, detail: 0, count: 0, pid: thread.owner };
        if !event(Free { header, addr: block }) {
            lost_free(thread.traced());
        }
    } else if block != 0 {
        let header = Header { kind: kind::REALLOC_BEGIN, detail: 0, count: 0, pid: thread.owner };
        if event(MoveBegin { header, tid: thread.tid, pad: 0, addr: block }) {
            call.kind = REALLOC;
            call.argument = block;
        } else {
            // The old block stays in the ledger until its address is handed out again.
            lost_free(thread.traced());
        }
    }
    if !inflight::begin(&thread, &call) && call.kind == REALLOC {
        count(Counter::ResultUnreadable);
    }
    None
}
