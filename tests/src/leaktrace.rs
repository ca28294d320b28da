//! The `leaktrace` binary, used as a person uses it.
//!
//! Comes in: a command line. Goes out: exit code, stdout, stderr, and what it wrote to its `--output`. Never: waits
//! forever: a run that does not end in time is killed and its stderr shown.
//!
//! The binary is `LEAKTRACE_BIN`, or is built with cargo in the profile of the tests.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::leaktrace::report::model::Report;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{compile, environment, schema};

/// The longest that a run may take on a busy machine, beyond what it is asked to.
const PATIENCE: Duration = Duration::from_secs(90);

/// The binary under test.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("LEAKTRACE_BIN") {
        Some(path) => PathBuf::from(path).canonicalize().expect("LEAKTRACE_BIN is a file"),
        None => build(),
    })
}

fn build() -> PathBuf {
    let directory = compile::profile_directory();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--package", "leaktrace", "--bin", "leaktrace", "--target-dir"])
        .arg(compile::target());
    if directory.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(status.success(), "leaktrace does not build");
    directory.join("leaktrace")
}

/// A run to be.
#[derive(Debug)]
pub struct Leaktrace {
    command: Command,
    scratch: TempDir,
}

impl Leaktrace {
    /// A bare command line.
    pub fn new<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(binary());
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, scratch: tempfile::tempdir().expect("a temporary directory") }
    }

    /// `leaktrace run` whose JSON report, with every site, goes to a file of ours. The target is still to come.
    pub fn run() -> Self {
        Self::run_as("json")
    }

    /// The same in another format.
    pub fn run_as(format: &str) -> Self {
        let mut run =
            Self::new(["run", "--format", format, "--top", "1000000", "--min-age", "0s", "--output"]);
        let output = run.output();
        run.command.arg(output);
        run
    }

    /// More arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// The target `--pid`.
    #[must_use]
    pub fn pid(self, pid: u32) -> Self {
        self.args(["--pid", &pid.to_string()])
    }

    /// The target `-- CMD ARGS…`.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(self, command: impl IntoIterator<Item = S>) -> Self {
        self.args(["--"]).args(command)
    }

    /// An environment variable, of leaktrace and so of the command that it runs.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// What the run, or the command that it runs, reads.
    #[must_use]
    pub fn stdin(mut self, file: std::fs::File) -> Self {
        self.command.stdin(file);
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Session {
        let output = self.output();
        let mut child = self.command.spawn().expect("leaktrace starts");
        let mut stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let stdout = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read until an error is what the test judges.
            let _ = stdout.read_to_end(&mut bytes);
            bytes
        });
        let said = Arc::new(Mutex::new(String::new()));
        let (sender, lines) = channel();
        let keeper = Arc::clone(&said);
        let stderr = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut all = keeper.lock().unwrap_or_else(PoisonError::into_inner);
                all.push_str(&line);
                all.push('\n');
                // Nobody listens once the run is ready.
                let _ = sender.send(line);
            }
        });
        Session { child, lines, said, stdout, stderr, output, _scratch: self.scratch }
    }

    /// Starts it and waits for its end.
    pub fn finish(self) -> Finished {
        self.start().finish()
    }

    fn output(&self) -> PathBuf {
        self.scratch.path().join("output")
    }
}

/// A run.
#[derive(Debug)]
pub struct Session {
    child: Child,
    lines: Receiver<String>,
    said: Arc<Mutex<String>>,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<()>,
    output: PathBuf,
    _scratch: TempDir,
}

impl Session {
    /// Waits until all targets that are known at the start are traced: a line of stderr that begins with `ready`.
    #[must_use]
    pub fn ready(mut self) -> Self {
        match self.says(|line| line.starts_with("ready")) {
            Ok(_) => self,
            Err(why) => {
                self.kill();
                panic!("leaktrace was never ready: {why}; it said:\n{}", self.said());
            }
        }
    }

    /// Waits for a line of stderr.
    pub fn says(&mut self, wanted: impl Fn(&str) -> bool) -> Result<String, RecvTimeoutError> {
        let deadline = Instant::now() + environment::patience(PATIENCE);
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))?;
            if wanted(&line) {
                return Ok(line);
            }
        }
    }

    /// The agent's pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// What a service manager sends.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid is not 0");
        // A child that was not waited for keeps its pid, even if it has exited.
        kill_process(pid, signal).expect("a child can be signalled");
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ctrl-C, then the end.
    pub fn stop(self) -> Finished {
        self.interrupt();
        self.finish()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        let deadline = Instant::now() + environment::patience(PATIENCE);
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if Instant::now() > deadline {
                self.kill();
                panic!("leaktrace did not end; it said:\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let stdout = std::mem::replace(&mut self.stdout, std::thread::spawn(Vec::new));
        let stderr = std::mem::replace(&mut self.stderr, std::thread::spawn(|| ()));
        stderr.join().expect("the reader of stderr does not panic");
        Finished {
            code: status.code(),
            signal: status.signal(),
            stdout: stdout.join().expect("the reader of stdout does not panic"),
            stderr: self.said(),
            output: std::fs::read(&self.output).unwrap_or_default(),
        }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A run that is over.
#[derive(Debug)]
pub struct Finished {
    /// Exit code.
    pub code: Option<i32>,
    /// Or the signal that ended it.
    pub signal: Option<i32>,
    /// What it, and the command that it ran, printed.
    pub stdout: Vec<u8>,
    /// What it said.
    pub stderr: String,
    /// What it wrote to its `--output`.
    pub output: Vec<u8>,
}

impl Finished {
    /// Exit code 0, or a panic with what it said.
    #[must_use]
    pub fn succeeded(self) -> Self {
        assert_eq!(
            self.code,
            Some(0),
            "leaktrace failed (signal {:?}); it said:\n{}",
            self.signal,
            self.stderr
        );
        self
    }

    /// stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The report in the output file of a run that succeeded.
    pub fn report(&self) -> Report {
        assert_eq!(
            self.code,
            Some(0),
            "leaktrace failed (signal {:?}); it said:\n{}",
            self.signal,
            self.stderr
        );
        parse(&self.output, &self.stderr)
    }
}

/// A report from its JSON, which must hold what the contract says.
pub fn parse(json: &[u8], said: &str) -> Report {
    let text = String::from_utf8_lossy(json);
    let value = serde_json::from_slice(json).unwrap_or_else(|e| {
        panic!("the report is not one JSON document: {e}\n{text}\nleaktrace said:\n{said}")
    });
    schema::assert_valid(&value);
    serde_json::from_value(value).unwrap_or_else(|e| panic!("not a report: {e}\n{text}"))
}
