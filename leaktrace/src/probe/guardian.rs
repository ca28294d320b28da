//! A child process that outlives the agent by a moment: it removes what the agent, killed with SIGKILL, could
//! not.
//!
//! Comes in: a pipe that closes when the agent is gone, however it went. Goes out: no definition of the
//! agent's is left in tracefs. Never: allocates, takes a signal meant for the agent's terminal, or lives
//! longer than ten seconds after the agent.
//!
//! It is also the task that anchors the agent's perf events (a program hangs on an event of some task, and
//! must not go with a traced process): it sleeps in `read`, so breakpoints in its memory cost nobody.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::Pid;

use super::tracefs::Tracefs;

/// The guardian of this process.
#[derive(Debug)]
pub struct Guardian {
    /// Its pid.
    pub pid: u32,
    /// Closing it tells the guardian that the agent is gone.
    alive: Option<OwnedFd>,
}

impl Guardian {
    /// Forks the guardian. Call it before the first thread is started: the child is a copy of this thread
    /// alone.
    pub fn spawn(tracefs: &Tracefs) -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // SAFETY: no other thread runs yet, so the child may use all of the library, locks included.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(write);
                watch(&read, tracefs);
                // SAFETY: ends the child without running the agent's exit handlers.
                unsafe { libc::_exit(0) }
            }
            pid => Ok(Self { pid: pid as u32, alive: Some(write) }),
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(pid) = Pid::from_raw(self.pid as i32) {
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
    }
}

/// The guardian's life.
fn watch(alive: &OwnedFd, tracefs: &Tracefs) {
    // Not in the agent's process group: Ctrl-C is for the agent.
    let _ = rustix::process::setsid();
    // SAFETY: constant name, documented call.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"leaktrace-guard".as_ptr()) };
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: ignoring a signal needs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let mut byte = [0];
    while matches!(rustix::io::read(alive, &mut byte), Err(rustix::io::Errno::INTR)) {}
    // The kernel closes the agent's perf events one after the other; a definition in use can't be removed.
    for _ in 0..100 {
        if tracefs.sweep() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
