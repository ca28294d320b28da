//! Small programs for tests: built in a directory of their own, started, and ended by us alone.
//!
//! Comes in: sources. Goes out: files and running processes. A program prints `ready`, or words that end with
//! it, when it is where the test wants it, and waits for its standard input to close.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::process::Process;
use crate::event::Pid;

/// A directory in which programs are built.
pub struct Workshop(tempfile::TempDir);

impl Workshop {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Compiles C.
    pub fn c(&self, source: &str, name: &str, flags: &[&str]) -> PathBuf {
        self.compile("gcc", "c", source, name, flags)
    }

    /// Compiles C++.
    pub fn cxx(&self, source: &str, name: &str, flags: &[&str]) -> PathBuf {
        self.compile("g++", "cc", source, name, flags)
    }

    /// Compiles Rust.
    pub fn rust(&self, source: &str, name: &str, flags: &[&str]) -> PathBuf {
        self.compile("rustc", "rs", source, name, flags)
    }

    fn compile(&self, compiler: &str, extension: &str, source: &str, name: &str, flags: &[&str]) -> PathBuf {
        let source = self.write(&format!("{name}.{extension}"), source);
        let program = self.path().join(name);
        let mut arguments = vec![source.to_str().unwrap(), "-o", program.to_str().unwrap()];
        arguments.extend(flags);
        tool(compiler, &arguments);
        program
    }
}

/// Runs a tool to its end; its output.
pub fn tool(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A process that a test started. Ends with it.
pub struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    words: Vec<String>,
}

impl Running {
    /// Starts a program and waits until it is ready.
    pub fn start(program: &Path) -> Self {
        Self::try_start(&mut Command::new(program)).unwrap()
    }

    /// `None` if the program can't be executed or ends before it is ready.
    pub fn try_start(command: &mut Command) -> Option<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, output, words: Vec::new() };
        running.wait_until_ready().then_some(running)
    }

    /// Lets it go on to the next `ready`.
    pub fn go_on(&mut self) {
        use std::io::Write as _;
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        assert!(self.wait_until_ready());
    }

    fn wait_until_ready(&mut self) -> bool {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some(words) = line.trim_end().strip_suffix("ready") {
                self.words = words.split_whitespace().map(String::from).collect();
                return true;
            }
            line.clear();
        }
        false
    }

    /// Addresses that it printed before `ready`, as `0x…`.
    pub fn addresses(&self) -> Vec<u64> {
        let hexadecimal = |word: &String| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
        self.words.iter().filter_map(hexadecimal).collect()
    }

    pub fn pid(&self) -> Pid {
        Pid(self.child.id())
    }

    pub fn process(&self) -> Process {
        Process::open(self.pid()).unwrap()
    }

    /// Ends it and waits until it is gone.
    pub fn end(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
