//! Running other programs so that a person sees what happens.
//!
//! Comes in: a `Command`. Goes out: success, its output, or a process that ends with its handle. Never: leaves
//! a process behind, or touches one that it did not start.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};

/// How long a process may take to end when asked to, before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Says what a task does next.
pub fn step(text: &str) {
    eprintln!("==> {text}");
}

/// Shows a command before it runs.
pub fn announce(command: &Command) {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    eprintln!("  + {}", words.join(" "));
}

/// Shows and runs a command; its output is the person's to see.
pub fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let name = name(command);
    let status = command.status().with_context(|| format!("{name} can't be started"))?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    Ok(())
}

/// Runs a command unseen; returns its trimmed stdout.
pub fn output(command: &mut Command) -> Result<String> {
    let name = name(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{name} can't be started"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{name} failed ({}): {}",
            output.status,
            stderr.trim().lines().next().unwrap_or("it said nothing")
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// A process of ours: ends when dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = name(command);
        command.spawn().map(Self).with_context(|| format!("{name} can't be started"))
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Asks it to end, waits, and kills it if it doesn't; whether it ended successfully by itself.
    pub fn end(&mut self, signal: Signal, patience: Duration) -> Result<bool> {
        if self.0.try_wait()?.is_none() {
            rustix::process::kill_process(Pid::from_child(&self.0), signal)?;
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.0.kill()?;
        self.0.wait()?;
        Ok(false)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.end(Signal::TERM, PATIENCE) {
            eprintln!("process {} could not be ended: {error}", self.pid());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_an_error_with_its_words() {
        let error = output(Command::new("sh").args(["-c", "echo reason >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("reason") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = output(&mut Command::new("leaktrace-no-such-program")).unwrap_err();
        assert!(error.to_string().contains("leaktrace-no-such-program"));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let running = Running::start(Command::new("sleep").arg("600")).unwrap();
        let pid = running.pid();
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
        drop(running);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_process_that_ignores_the_signal_is_killed() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo set; while :; do sleep 0.1; done"]).stdout(Stdio::piped());
        let mut running = Running::start(&mut command).unwrap();
        let mut set = [0; 4];
        std::io::Read::read_exact(running.child().stdout.as_mut().unwrap(), &mut set).unwrap();
        assert!(!running.end(Signal::TERM, Duration::from_millis(200)).unwrap());
        assert!(!std::path::Path::new(&format!("/proc/{}", running.pid())).exists());
    }
}
