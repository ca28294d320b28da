//! fork, exec and exit of traced processes, by tracepoints.
//!
//! Comes in: `sched_process_fork`, `sched_process_exec`, `sched_process_exit`. Goes out: the gate's entries,
//! [`Lifecycle`] records in order with the process's events, requests to arm. Never: touches a process that is
//! neither traced nor asked for.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use leaktrace_common::counters::Counter;
use leaktrace_common::limits::{COMM_LEN, HOLD_NS, MAX_COMM_PATTERNS};
use leaktrace_common::process::{FOLLOW_EXEC, Lost, Traced};
use leaktrace_common::record::{Control, Header, Lifecycle, kind, request};

use crate::emit::{self, count, event};
use crate::gate::Thread;
use crate::hold::hold;
use crate::kernel::Task;
use crate::maps::{COMM_PATTERNS, INFLIGHT, TRACED};

const NOTHING_LOST: Lost = Lost { allocs: 0, alloc_bytes: 0, frees: 0, moves: 0 };

/// In the parent, before the child runs.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn fork(ctx: RawTracePointContext) -> i32 {
    let _ = try_fork(&ctx);
    0
}

#[inline(always)]
fn try_fork(ctx: &RawTracePointContext) -> Option<()> {
    let thread = Thread::current()?;
    let (parent, child) = (Task::new(ctx.arg(0)), Task::new(ctx.arg(1)));
    let child_pid = child.tgid();
    if child_pid == thread.pid {
        return None;
    }
    // SAFETY: a map value, see `gate`.
    let mut traced = unsafe { *thread.traced() };
    let shares_memory = child.mm() == parent.mm();
    traced.start_ns = child.start_ns();
    traced.lost = NOTHING_LOST;
    if !shares_memory {
        traced.owner = child_pid;
    }
    if TRACED.insert(child_pid, traced, u64::from(BPF_ANY)).is_err() {
        count(Counter::ProcessesFull);
        return None;
    }
    debug!(ctx, "{} forked {}, shares memory: {}", thread.pid, child_pid, shares_memory as u32);
    if shares_memory {
        return None;
    }
    let comm = current_comm();
    lifecycle(kind::FORK, thread.owner, child_pid, &traced, comm);
    let header = Header { kind: request::FORK, detail: 1, count: 0, pid: child_pid };
    let (generation, start_ns) = (traced.generation, traced.start_ns);
    hold(Control { header, other: thread.owner, generation, start_ns, comm }, HOLD_NS);
    None
}

/// In the new program, before its first instruction.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec(ctx: RawTracePointContext) -> i32 {
    let _ = try_exec(&ctx);
    0
}

#[inline(always)]
fn try_exec(ctx: &RawTracePointContext) -> Option<()> {
    let pid_tgid = bpf_get_current_pid_tgid();
    let (pid, tid) = ((pid_tgid >> 32) as u32, pid_tgid as u32);
    let comm = current_comm();
    let wanted = comm_matches(&comm);
    let known = TRACED.get_ptr_mut(pid);
    if known.is_none() && !wanted {
        return None;
    }
    let _ = INFLIGHT.remove(tid);
    let mut traced = match known {
        // SAFETY: a map value, see `gate`.
        Some(known) => unsafe { *known },
        None => Traced { start_ns: current_task().start_ns(), ..Traced::default() },
    };
    if !wanted && traced.flags & FOLLOW_EXEC == 0 {
        leave(pid, &traced);
        return None;
    }
    traced.owner = pid;
    traced.lost = NOTHING_LOST;
    traced.generation = (traced.generation & 0xFFFF_0000).wrapping_add(0x1_0000);
    if TRACED.insert(pid, traced, u64::from(BPF_ANY)).is_err() {
        count(Counter::ProcessesFull);
        return None;
    }
    debug!(ctx, "{} runs a new program", pid);
    lifecycle(kind::EXEC, pid, 0, &traced, comm);
    let header = Header { kind: request::EXEC, detail: 1, count: 0, pid };
    let (generation, start_ns) = (traced.generation, traced.start_ns);
    // The thread that called exec has taken the leader's place; the leader carried the probes.
    let caller: u32 = ctx.arg(1);
    hold(Control { header, other: caller, generation, start_ns, comm }, HOLD_NS);
    None
}

/// In each thread that exits.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exit(ctx: RawTracePointContext) -> i32 {
    let _ = try_exit(&ctx);
    0
}

#[inline(always)]
fn try_exit(ctx: &RawTracePointContext) -> Option<()> {
    let thread = Thread::current()?;
    let _ = INFLIGHT.remove(thread.tid);
    // SAFETY: a map value, see `gate`.
    let traced = unsafe { *thread.traced() };
    if current_task().live_threads() == 0 {
        debug!(ctx, "{} exits", thread.pid);
        leave(thread.pid, &traced);
    } else if thread.tid == thread.pid {
        ask(request::LEADER_EXIT, thread.pid, &traced);
    }
    None
}

/// Ends the tracing of a process. A child of `vfork` that ends leaves its parent's memory alone.
#[inline(always)]
fn leave(pid: u32, traced: &Traced) {
    let _ = TRACED.remove(pid);
    if traced.owner == pid {
        lifecycle(kind::EXIT, pid, 0, traced, [0; COMM_LEN]);
        ask(request::EXIT, pid, traced);
    }
}

/// A request that nobody waits for.
#[inline(always)]
fn ask(what: u8, pid: u32, traced: &Traced) {
    let header = Header { kind: what, detail: 0, count: 0, pid };
    let (generation, start_ns) = (traced.generation, traced.start_ns);
    emit::request(Control { header, other: 0, generation, start_ns, comm: [0; COMM_LEN] });
}

#[inline(always)]
fn lifecycle(what: u8, pid: u32, other: u32, traced: &Traced, comm: [u8; COMM_LEN]) {
    let header = Header { kind: what, detail: 0, count: 0, pid };
    let (generation, start_ns, lost) = (traced.generation, traced.start_ns, traced.lost);
    if !event(Lifecycle { header, other, generation, start_ns, comm, lost }) {
        count(Counter::RingFullLifecycle);
    }
}

#[inline(always)]
fn current_comm() -> [u8; COMM_LEN] {
    bpf_get_current_comm().unwrap_or_default()
}

#[inline(always)]
fn current_task() -> Task {
    // SAFETY: no arguments; the task is the current one and cannot go away.
    Task::new(unsafe { bpf_get_current_task() } as *const u8)
}

#[inline(always)]
fn comm_matches(comm: &[u8; COMM_LEN]) -> bool {
    for slot in 0..MAX_COMM_PATTERNS as u32 {
        if COMM_PATTERNS.get(slot).is_some_and(|pattern| pattern.matches(comm)) {
            return true;
        }
    }
    false
}
