//! The program that is traced: `xtask/bench/load.c`, which allocates on request.
//!
//! Comes in: requests. Goes out: what it measured itself. Never: allocates between requests.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::command::Running;

/// The running program.
#[derive(Debug)]
pub struct Load {
    running: Running,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Load {
    /// Starts it, and has it open its heap and its streams.
    pub fn start(program: &Path) -> Result<Self> {
        let mut running = Running::start(Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let requests = running.child().stdin.take().context("stdin is piped")?;
        let answers = running.child().stdout.take().context("stdout is piped")?;
        let mut load = Self { running, requests, answers: BufReader::new(answers) };
        load.pair(1000, 0)?;
        Ok(load)
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// CPU nanoseconds of one malloc and its free, over `pairs` of them below `depth` frames.
    pub fn pair(&mut self, pairs: u32, depth: u32) -> Result<f64> {
        Ok(self.ask(&format!("pair {pairs} {depth}"))? as f64 / f64::from(pairs))
    }

    /// Allocates and frees on `threads` threads; the pairs that it came to.
    pub fn flood(&mut self, threads: u32, milliseconds: u32) -> Result<u64> {
        self.ask(&format!("flood {threads} {milliseconds}"))
    }

    /// Allocates `blocks` blocks of `size` bytes and keeps them.
    pub fn hold(&mut self, blocks: u32, size: u32) -> Result<()> {
        self.ask(&format!("hold {blocks} {size}")).map(drop)
    }

    fn ask(&mut self, request: &str) -> Result<u64> {
        writeln!(self.requests, "{request}").context("the load has ended")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        answer.trim().parse().with_context(|| format!("the load answered `{answer}` to `{request}`"))
    }
}
