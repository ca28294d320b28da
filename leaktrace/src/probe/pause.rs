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
pub struct Pause {
    tid: Tid,
    /// Its wait status, once it has stopped.
    stopped: Option<libc::c_int>,
}

/// What a look for a wait status came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// There is one.
    Stopped,
    /// There is none yet.
    Running,
    /// There will be none.
    Gone,
}

impl Pause {
    /// Attaches to the thread and asks it to stop; returns at once. Fails if a debugger has it. The thread that
    /// begins a pause must end it.
    pub fn begin(tid: Tid) -> io::Result<Self> {
        ptrace(libc::PTRACE_SEIZE, tid, 0)?;
        let pause = Self { tid, stopped: None };
        ptrace(libc::PTRACE_INTERRUPT, tid, 0)?;
        Ok(pause)
    }

    /// Waits until it has stopped; returns the address of its next instruction, `None` if it is gone.
    pub fn next_instruction(&mut self) -> Option<u64> {
        self.wait()?;
        // SAFETY: all zeroes is a valid value of this plain structure.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: the request writes one `user_regs_struct`.
        let result = unsafe {
            libc::ptrace(libc::PTRACE_GETREGS, self.tid.0 as libc::pid_t, 0usize, &raw mut registers)
        };
        (result == 0).then_some(registers.rip)
    }

    /// Whether it has stopped, or is gone.
    pub fn has_stopped(&mut self) -> bool {
        self.stopped.is_some() || self.look(libc::WNOHANG) != Look::Running
    }

    /// Waits until it has stopped, which it does as soon as it may run.
    fn wait(&mut self) -> Option<libc::c_int> {
        if self.stopped.is_none() {
            self.look(0);
        }
        self.stopped.filter(|status| libc::WIFSTOPPED(*status))
    }

    /// Looks for its wait status.
    fn look(&mut self, flags: libc::c_int) -> Look {
        let tid = self.tid.0 as libc::pid_t;
        loop {
            let mut status = 0;
            // SAFETY: the status is a valid place to write to.
            let waited = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | flags) };
            if waited == tid {
                self.stopped = Some(status);
                return Look::Stopped;
            }
            if waited == 0 {
                return Look::Running;
            }
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return Look::Gone;
            }
        }
    }
}

impl Drop for Pause {
    /// Lets it go.
    fn drop(&mut self) {
        let Some(status) = self.wait() else { return };
        // A signal that came first is the thread's own: it gets it back.
        let stopped_by_us = status >> 16 == libc::PTRACE_EVENT_STOP;
        let signal = if stopped_by_us { 0 } else { libc::WSTOPSIG(status) };
        if let Err(error) = ptrace(libc::PTRACE_DETACH, self.tid, signal) {
            tracing::debug!(tid = self.tid.0, %error, "a stopped thread is gone");
        }
    }
}

fn ptrace(request: libc::c_uint, tid: Tid, data: libc::c_int) -> io::Result<()> {
    // SAFETY: these requests read or write no memory of ours.
    let result = unsafe { libc::ptrace(request, tid.0 as libc::pid_t, 0usize, data as usize) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
