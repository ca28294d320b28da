//! Stops a thread on its way back to user mode, so that probes can be placed before its next instruction.
//!
//! Comes in: a thread that waits in the kernel (`hold` in the kernel side). Goes out: the same thread, stopped
//! before it returns to user mode, and on its way again at the drop. Never: visible to its parent (a ptrace stop
//! is the tracer's alone), and never for good: if leaktrace dies the kernel lets the thread go. Other threads of
//! its process run on.

use std::io;

use crate::event::Tid;

/// A thread that is stopped, or will be when it returns to user mode.
#[derive(Debug)]
pub struct Pause(Tid);

impl Pause {
    /// Attaches to the thread and asks it to stop; returns at once. Fails if a debugger has it. The thread that
    /// begins a pause must end it.
    pub fn begin(tid: Tid) -> io::Result<Self> {
        ptrace(libc::PTRACE_SEIZE, tid, 0)?;
        let pause = Self(tid);
        ptrace(libc::PTRACE_INTERRUPT, tid, 0)?;
        Ok(pause)
    }
}

impl Drop for Pause {
    /// Waits until it has stopped, which it does as soon as it may run, and lets it go.
    fn drop(&mut self) {
        let mut status = 0;
        let tid = self.0.0 as libc::pid_t;
        loop {
            // SAFETY: the status is a valid place to write to.
            let waited = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
            if waited == tid {
                break;
            }
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return;
            }
        }
        if !libc::WIFSTOPPED(status) {
            return;
        }
        // A signal that came first is the process's own: it gets it back.
        let stopped_by_us = status >> 16 == libc::PTRACE_EVENT_STOP;
        let signal = if stopped_by_us { 0 } else { libc::WSTOPSIG(status) };
        if let Err(error) = ptrace(libc::PTRACE_DETACH, self.0, signal) {
            tracing::debug!(tid, %error, "a stopped thread is gone");
        }
    }
}

fn ptrace(request: libc::c_uint, tid: Tid, data: libc::c_int) -> io::Result<()> {
    // SAFETY: these requests read or write no memory of ours.
    let result = unsafe { libc::ptrace(request, tid.0 as libc::pid_t, 0usize, data as usize) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
