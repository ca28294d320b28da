//! The dynamic loader's word that its list of libraries has changed.
//!
//! Comes in: a call of `_dl_debug_state`, the function that debuggers break on. Goes out: a request, and a wait
//! for the agent's probes, so that a new library is traced from its first allocation. Never: runs in a process
//! that is not traced.

use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use leaktrace_common::limits::HOLD_NS;
use leaktrace_common::record::{Control, Header, request};

use crate::emit::add;
use crate::gate::Thread;
use crate::hold::{NEW_GENERATION, hold};

/// `_dl_debug_state()`.
///
/// Sleepable, since it waits: placing a breakpoint takes an RCU grace period, and a program that is not
/// sleepable is a reader that the grace period waits for.
#[uprobe(sleepable)]
pub fn libraries(_ctx: ProbeContext) -> u32 {
    let Some(thread) = Thread::current() else { return 0 };
    let traced = thread.traced();
    // SAFETY: a map value, see `gate`.
    let (generation, start_ns) = unsafe { ((*traced).generation, (*traced).start_ns) };
    let header = Header { kind: request::LIBRARIES, detail: 1, count: 0, pid: thread.owner };
    let answer = hold(Control { header, other: thread.tid, generation, start_ns, comm: [0; 16] }, HOLD_NS);
    if answer == Some(NEW_GENERATION) {
        // SAFETY: as above; `generation` is in the lower half of an aligned pair (`generation`, `reserved`).
        unsafe { add((&raw mut (*traced).generation).cast(), 1) };
    }
    0
}
