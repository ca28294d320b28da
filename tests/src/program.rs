//! A running fixture and the protocol with it (`fixtures/fixture.h`).
//!
//! Comes in: a program. Goes out: its pid, its truths phase by phase, its exit status. Never: outlives the test:
//! dropping it ends the process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::environment;
use crate::truth::Truth;

/// The longest that a phase may take under a tracer on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A fixture that waits for the harness between its phases.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Program {
    /// Starts a fixture and waits until it is ready.
    pub fn start(path: &Path) -> Self {
        Self::start_command(&mut Command::new(path))
    }

    /// Starts a command that runs a fixture and waits until it is ready.
    pub fn start_command(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let program = Self { child, stdin, lines };
        let line = program.line();
        assert_eq!(line, format!("ready {}", program.pid()), "{command:?} is not ready");
        program
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it do its next phase; what it tells.
    pub fn go(&mut self) -> Vec<Truth> {
        self.tell("go");
        let mut truths = Vec::new();
        loop {
            let line = self.line();
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("truth", json) => truths.push(Truth::parse(json)),
                ("done", "") => return truths,
                _ => panic!("the fixture said `{line}`"),
            }
        }
    }

    /// Lets it exit.
    pub fn end(mut self) -> ExitStatus {
        self.tell("end");
        drop(self.stdin.take());
        self.child.wait().expect("a child can be waited for")
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn tell(&mut self, word: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open until the end");
        writeln!(stdin, "{word}").expect("the fixture listens");
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(environment::patience(PATIENCE)).expect("the fixture answers in time")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The truths in what a fixture printed that ran by itself (`now`), among whatever else is there.
pub fn truths_of(stdout: &str) -> Vec<Truth> {
    assert!(!stdout.lines().any(|line| line.starts_with("failed ")), "a fixture failed:\n{stdout}");
    stdout.lines().filter_map(|line| line.strip_prefix("truth ")).map(Truth::parse).collect()
}
