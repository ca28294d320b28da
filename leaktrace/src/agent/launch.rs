//! Starts a command that does not run its first instruction before it is traced.
//!
//! Comes in: a program and its arguments. Goes out: a child process that waits before its exec. Never: changes
//! the command's environment, files or signals.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::thread::JoinHandle;

use rustix::pipe::{PipeFlags, pipe_with};

/// A child that waits before its exec.
#[derive(Debug)]
pub struct Launched {
    /// Its pid.
    pub pid: u32,
    go: std::fs::File,
    spawning: JoinHandle<io::Result<Child>>,
}

/// Forks the child and returns once it waits.
pub fn launch(program: &OsString, arguments: &[OsString]) -> io::Result<Launched> {
    let (pid_read, pid_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (go_read, go_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut command = Command::new(program);
    command.args(arguments);
    let child_side = move || {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        rustix::io::write(&pid_write, &pid.to_ne_bytes())?;
        // Returns when the agent says go, and also when it is gone.
        rustix::io::read(&go_read, &mut [0u8; 1])?;
        Ok(())
    };
    // SAFETY: between fork and exec it only calls write and read.
    unsafe { command.pre_exec(child_side) };
    // `spawn` returns after the exec, which is to happen later.
    let spawning = std::thread::Builder::new().name("launch".to_owned()).spawn(move || command.spawn())?;
    let mut pid = [0; 4];
    if let Err(error) = std::fs::File::from(pid_read).read_exact(&mut pid) {
        // The fork itself failed: `spawn` knows why.
        return Err(join(spawning).err().unwrap_or(error));
    }
    Ok(Launched { pid: u32::from_ne_bytes(pid), go: go_write.into(), spawning })
}

impl Launched {
    /// Lets the child run its program; an error says why it could not.
    pub fn go(mut self) -> io::Result<Child> {
        self.go.write_all(&[1])?;
        join(self.spawning)
    }
}

fn join(spawning: JoinHandle<io::Result<Child>>) -> io::Result<Child> {
    spawning.join().unwrap_or_else(|_| Err(io::Error::other("the launching thread ended unexpectedly")))
}
