//! Lets a process wait, for a bounded time, until the agent has taken notice of it.
//!
//! Comes in: a request for the control ring. Goes out: the request; the process goes on when the agent answers
//! (it removes the process from [`HOLDS`]) or the time is over. Never: waits for an agent that is gone: the time
//! is bounded, and the programs go away with the agent. Never on the last CPU.
//!
//! There is no way for a BPF program to sleep, and stopping the process with a signal is visible to the shell
//! that started it, so it spins. This happens at exec, at fork and when the dynamic loader has mapped a
//! library, never on an allocation. It lasts about 0.2 ms: for what takes longer the agent stops the process on
//! its way back to user mode (see the agent's `probe::pause`), where it holds up nobody.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_loop;
use leaktrace_common::counters::Counter;
use leaktrace_common::record::Control;

use crate::emit::{add, count, count_by, request};
use crate::maps::{HOLDERS, HOLDS};

/// More turns than fit into the longest wait; the kernel allows 8 million.
const MAX_TURNS: u32 = 1 << 23;

/// The agent has not answered.
const WAITING: u32 = 1;
/// The agent's answer: the mappings that addresses point into have changed.
pub const NEW_GENERATION: u32 = 2;

/// CPUs that may spin at one time: all but the one that the agent answers on. Set by the agent before loading.
#[unsafe(no_mangle)]
static MAY_HOLD: u32 = 0;

/// State of a wait.
struct Wait {
    pid: u32,
    answer: u32,
    deadline: u64,
}

/// One turn: 1 ends the wait.
fn turn(_index: u64, wait: *mut Wait) -> i64 {
    // SAFETY: `bpf_loop` passes the pointer that it was given, to a live stack slot.
    let wait = unsafe { &mut *wait };
    // SAFETY: the value is copied.
    match unsafe { HOLDS.get(wait.pid) } {
        None => {
            wait.answer = 0;
            return 1;
        }
        Some(&NEW_GENERATION) => {
            wait.answer = NEW_GENERATION;
            return 1;
        }
        Some(_) => {}
    }
    // SAFETY: no arguments.
    i64::from(unsafe { bpf_ktime_get_ns() } > wait.deadline)
}

/// Sends the request and waits; returns the agent's answer: 0, [`NEW_GENERATION`], or `None` if it came too
/// late.
#[inline(always)]
pub fn hold(request_record: Control, limit_ns: u64) -> Option<u32> {
    let Some(turnstile) = Turnstile::enter() else {
        let _ = request(request_record);
        count(Counter::Unheld);
        return None;
    };
    let answer = wait(request_record, limit_ns);
    turnstile.leave();
    answer
}

/// Counts the CPUs that spin.
struct Turnstile(*mut u64);

impl Turnstile {
    #[inline(always)]
    fn enter() -> Option<Self> {
        let holders = HOLDERS.get_ptr_mut(0)?;
        add(holders, 1);
        let turnstile = Self(holders);
        // SAFETY: a map value; volatile reads, since other CPUs and the agent write. If two enter at once both
        // may see both, and both be turned away: that is the safe side.
        let (now, most) = unsafe { (holders.read_volatile(), (&raw const MAY_HOLD).read_volatile()) };
        if now <= u64::from(most) {
            return Some(turnstile);
        }
        turnstile.leave();
        None
    }

    #[inline(always)]
    fn leave(self) {
        add(self.0, u64::MAX);
    }
}

#[inline(always)]
fn wait(request_record: Control, limit_ns: u64) -> Option<u32> {
    let pid = request_record.header.pid;
    if HOLDS.insert(pid, WAITING, u64::from(BPF_ANY)).is_err() || !request(request_record) {
        let _ = HOLDS.remove(pid);
        count(Counter::Unheld);
        return None;
    }
    // SAFETY: no arguments.
    let start = unsafe { bpf_ktime_get_ns() };
    let mut wait = Wait { pid, answer: WAITING, deadline: start + limit_ns };
    // SAFETY: the callback has the signature that the kernel expects; `wait` outlives the call.
    unsafe { bpf_loop(MAX_TURNS, turn as *mut c_void, (&raw mut wait).cast(), 0) };
    count(Counter::Holds);
    // SAFETY: no arguments.
    count_by(Counter::HoldNanoseconds, unsafe { bpf_ktime_get_ns() } - start);
    let answered = wait.answer != WAITING;
    if wait.answer != 0 {
        let _ = HOLDS.remove(pid);
    }
    if !answered {
        count(Counter::Unheld);
        return None;
    }
    Some(wait.answer)
}
