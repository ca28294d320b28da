//! leaktrace while it traces one process, seen from outside.
//!
//! Comes in: a pid. Goes out: the agent's own cost from `/proc`, and its last report. Never: relies on more than
//! the command line, the `ready` line on stderr and the JSON contract.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::command::Running;

/// How long attaching, and the last report, may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Within this the agent has taken in all that the kernel side had left for it.
const DRAINED: Duration = Duration::from_millis(500);

/// The running agent.
#[derive(Debug)]
pub struct Agent {
    running: Running,
    messages: Receiver<String>,
    report: PathBuf,
}

impl Agent {
    /// Starts it and waits until its probes are armed.
    pub fn attach(leaktrace: &Path, pid: u32, report: &Path) -> Result<Self> {
        let mut command = Command::new(leaktrace);
        command.args(["run", "--pid", &pid.to_string(), "--min-age", "0s", "--interval", "1h"]);
        command.args(["--format", "json", "--output"]).arg(report);
        let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let stderr = running.child().stderr.take().context("stderr is piped")?;
        let agent = Self { running, messages: lines(stderr), report: report.to_owned() };
        agent.wait_until_ready()?;
        Ok(agent)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        loop {
            match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with("ready") => return Ok(()),
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("leaktrace ended before it was ready; it said:\n{}", said.join("\n"))
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("leaktrace was not ready within {PATIENCE:?}; it said:\n{}", said.join("\n"))
                }
            }
        }
    }

    /// CPU time of all its threads.
    pub fn cpu_time(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.running.pid()))? {
            let statistics = std::fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += on_cpu(&statistics).context("schedstat starts with a time")?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Its resident bytes.
    pub fn resident(&self) -> Result<u64> {
        resident(self.running.pid())
    }

    /// Ends it; its last report.
    pub fn finish(mut self) -> Result<Report> {
        if !self.running.end(Signal::TERM, PATIENCE)? {
            let said: Vec<_> = self.messages.iter().collect();
            bail!("leaktrace failed; it said:\n{}", said.join("\n"));
        }
        let text = std::fs::read_to_string(&self.report).context("leaktrace wrote no report")?;
        Report::parse(&text)
    }
}

/// Waits until an agent has taken in all that happened so far.
pub fn wait_until_drained() {
    std::thread::sleep(DRAINED);
}

/// The lines of a stream, read as they come so that its writer never waits.
fn lines(stream: ChildStderr) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Nanoseconds on a CPU, the first number of `schedstat`.
fn on_cpu(statistics: &str) -> Option<u64> {
    statistics.split_whitespace().next()?.parse().ok()
}

/// Resident bytes of a process.
pub fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    Ok(kibibytes.context("the process has no VmRSS")?.trim().parse::<u64>()? * 1024)
}

/// What the figures need of a report.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// Events that were recorded.
    pub events: u64,
    /// Records that were lost.
    pub lost: u64,
    /// Outstanding blocks of all processes.
    pub outstanding: u64,
}

impl Report {
    fn parse(text: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(text).context("leaktrace's report is not JSON")?;
        let number = |pointer: &str| {
            let value = report.pointer(pointer).and_then(Value::as_u64);
            value.with_context(|| format!("leaktrace's report has no number {pointer}"))
        };
        let processes = report.get("processes").and_then(Value::as_array);
        let processes = processes.context("leaktrace's report has no processes")?;
        Ok(Self {
            events: number("/completeness/events")?,
            lost: number("/completeness/lost")?,
            outstanding: processes
                .iter()
                .filter_map(|process| process.get("live_allocations")?.as_u64())
                .sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_and_a_missing_number_is_named() {
        let text = r#"{"completeness": {"events": 7, "lost": 1},
                       "processes": [{"live_allocations": 2}, {"live_allocations": 3}]}"#;
        assert_eq!(Report::parse(text).unwrap(), Report { events: 7, lost: 1, outstanding: 5 });
        let error = Report::parse(r#"{"completeness": {"events": 7}, "processes": []}"#).unwrap_err();
        assert!(error.to_string().contains("/completeness/lost"), "{error}");
    }

    /// A program that keeps to the contract, or not; `$report` is the path after `--output`.
    fn stand_in(directory: &Path, script: &str) -> PathBuf {
        let (script_file, program) = (directory.join("script"), directory.join("leaktrace"));
        let arguments = "while [ \"$1\" != --output ]; do shift; done; report=$2";
        std::fs::write(&script_file, format!("#!/bin/sh\n{arguments}\n{script}\n")).unwrap();
        // Written by another process: a child of another test could hold our descriptor, and a file that is
        // open for writing can't be executed.
        let installed = Command::new("install").arg("-m755").args([&script_file, &program]).status();
        assert!(installed.unwrap().success());
        program
    }

    #[test]
    fn an_agent_is_ready_runs_and_reports() {
        let directory = tempfile::tempdir().unwrap();
        let script = r#"
            report() { echo '{"completeness": {"events": 7, "lost": 0}, "processes": []}' > "$report"; exit 0; }
            trap report TERM
            echo attaching >&2; echo ready: 1 process >&2
            while :; do sleep 0.05; done"#;
        let program = stand_in(directory.path(), script);
        let agent = Agent::attach(&program, 1, &directory.path().join("report.json")).unwrap();
        assert!(agent.resident().unwrap() > 0 && agent.cpu_time().unwrap() > Duration::ZERO);
        assert_eq!(agent.finish().unwrap(), Report { events: 7, lost: 0, outstanding: 0 });
    }

    #[test]
    fn an_agent_that_ends_too_early_is_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let program = stand_in(directory.path(), "echo no BTF in this kernel >&2; exit 1");
        let error = Agent::attach(&program, 1, &directory.path().join("report.json")).unwrap_err();
        assert!(error.to_string().contains("no BTF in this kernel"), "{error}");
    }

    #[test]
    fn the_kernels_numbers_are_read() {
        assert_eq!(on_cpu("123456 789 10\n"), Some(123_456));
        assert_eq!(on_cpu(""), None);
        assert!(resident(std::process::id()).unwrap() > 100_000);
    }
}
