//! Stops a process that has just begun, so that its probes can be placed before its first instruction.
//!
//! Comes in: a process of one thread that waits in the kernel (`hold` in the kernel side). Goes out: the same
//! process, stopped before it returns to user mode, and on its way again at the drop. Never: visible to its
//! parent (a ptrace stop is the tracer's alone), never more than once in its life, and never for good: if
//! leaktrace dies the kernel lets the process go.

use std::io;

use crate::event::Pid;

/// A process that is stopped, or will be when it returns to user mode.
#[derive(Debug)]
pub struct Pause(Pid);

impl Pause {
    /// Attaches to the process and asks it to stop; returns at once. Fails if a debugger has it.
    pub fn begin(pid: Pid) -> io::Result<Self> {
        ptrace(libc::PTRACE_SEIZE, pid, 0)?;
        let pause = Self(pid);
        ptrace(libc::PTRACE_INTERRUPT, pid, 0)?;
        Ok(pause)
    }
}

impl Drop for Pause {
    /// Waits until it has stopped, which it does as soon as it may run, and lets it go.
    fn drop(&mut self) {
        let mut status = 0;
        let pid = self.0.0 as libc::pid_t;
        loop {
            // SAFETY: the status is a valid place to write to.
            let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
            if waited == pid {
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
            tracing::debug!(pid = %self.0, %error, "a stopped process is gone");
        }
    }
}

fn ptrace(request: libc::c_uint, pid: Pid, data: libc::c_int) -> io::Result<()> {
    // SAFETY: these requests read or write no memory of ours.
    let result = unsafe { libc::ptrace(request, pid.0 as libc::pid_t, 0usize, data as usize) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
