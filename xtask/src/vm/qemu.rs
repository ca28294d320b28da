//! One boot of a guest.
//!
//! Comes in: a kernel, its first file system, limits of time. Goes out: what the guest says on its second serial
//! port, line by line; what its kernel says on the first goes to a file. Never: outlives its caller, or waits for a
//! guest that has fallen silent.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::Running;
use crate::workspace;

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// The longest until a guest says its first word, on a busy machine.
const COMES_UP: Duration = Duration::from_mins(4);

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// An emulator: works everywhere, several times slower.
    Tcg,
}

/// A guest to be.
#[derive(Debug)]
pub struct Machine<'a> {
    /// Its kernel.
    pub kernel: &'a Path,
    /// Its first and only file system.
    pub initramfs: &'a Path,
    /// Where what its kernel says is kept.
    pub console: PathBuf,
    /// Memory in MiB.
    pub memory: u32,
    /// Who runs it.
    pub accelerator: Accelerator,
    /// The longest that it may be silent.
    pub silence: Duration,
    /// The longest that it may run.
    pub limit: Duration,
}

impl Machine<'_> {
    /// Runs it to its end.
    pub fn run(&self, mut hears: impl FnMut(&str)) -> Result<()> {
        let mut guest = Running::start(&mut self.command()?)?;
        let output = guest.child().stdout.take().context("stdout is piped")?;
        let (sender, lines) = channel();
        // It ends with the guest, which holds the other end of the pipe.
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let deadline = Instant::now() + self.limit;
        let mut silence = COMES_UP.min(self.silence);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left.min(silence)) {
                Ok(line) => hears(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if left <= silence => {
                    bail!("the guest did not end within {} s", self.limit.as_secs());
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the guest said nothing for {} s", silence.as_secs());
                }
            }
            silence = self.silence;
        }
        let status = guest.child().wait()?;
        if reader.join().is_err() || !status.success() {
            bail!("{PROGRAM} failed: {status}");
        }
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let mut qemu = Command::new(PROGRAM);
        qemu.env("PATH", workspace::path()?).stdin(Stdio::null()).stdout(Stdio::piped());
        match self.accelerator {
            Accelerator::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
            Accelerator::Tcg => qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"]),
        };
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-smp", "2"]);
        qemu.args(["-m", &format!("{}M", self.memory)]);
        qemu.arg("-serial").arg(format!("file:{}", self.console.display())).args(["-serial", "stdio"]);
        qemu.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs);
        // A panic ends the guest at once, and with it QEMU.
        qemu.args(["-append", "console=ttyS0 loglevel=5 panic=-1 oops=panic"]);
        Ok(qemu)
    }
}
