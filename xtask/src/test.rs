//! Every test: units first, then the suite that traces programs for real.
//!
//! Comes in: a filter. Goes out: libtest's output as it comes, then one line with the counts. Never: passes
//! because something that a test needs was missing.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::command::{self, Running, step};
use crate::{bootstrap, workspace};

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only tests whose names contain this.
    #[arg(long, default_value = "")]
    filter: String,
    /// Leave out the suite that traces programs for real, and what only it needs.
    #[arg(long)]
    no_root: bool,
    /// Tests of the suite that run at once; each runs a traced program and an agent. With more than one, new processes
    /// of one may find all CPUs busy answering for the other, and be late.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Runs the tests.
pub fn run(options: &Options) -> Result<()> {
    if options.no_root {
        bootstrap::run(bootstrap::Scope::Build)?;
    } else {
        if !rustix::process::geteuid().is_root() {
            bail!(
                "tracing needs root: run `cargo xtask test` as root, or `cargo xtask test --no-root` for the rest"
            );
        }
        bootstrap::run(bootstrap::Scope::Test)?;
    }
    let start = Instant::now();
    step("unit tests");
    let mut unit = workspace::cargo();
    unit.args(["test", "--workspace", "--exclude", "leaktrace-tests", "--no-fail-fast"]);
    let mut total = count(unit.args(["--", &options.filter]).env("PATH", workspace::path()?))?;
    if !options.no_root {
        step("building leaktrace");
        let leaktrace = workspace::build_leaktrace()?;
        step("tracing real programs");
        let mut suite = workspace::cargo();
        suite.args(["test", "--package", "leaktrace-tests", "--no-fail-fast", "--"]);
        suite.args([&options.filter, &format!("--test-threads={}", options.threads)]);
        suite.env("LEAKTRACE_REQUIRE_ROOT", "1").env("LEAKTRACE_BIN", leaktrace);
        total.add(&count(suite.env("PATH", workspace::path()?))?);
    }
    println!("{} in {:.0} s", total.line(), start.elapsed().as_secs_f64());
    total.verdict()
}

/// Counts of tests, from libtest's closing lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
    /// Names of the failed ones.
    pub failures: Vec<String>,
    /// A test program that did not even come to its closing line, or was not built.
    pub broken: bool,
}

impl Counts {
    /// Takes in one line of libtest's output.
    pub fn read(&mut self, line: &str) {
        if let Some(closing) = line.strip_prefix("test result: ") {
            let number = |what| {
                let before = closing.split(what).next()?;
                before.trim_end().rsplit(' ').next()?.parse::<u64>().ok()
            };
            self.passed += number("passed;").unwrap_or(0);
            self.failed += number("failed;").unwrap_or(0);
            self.ignored += number("ignored;").unwrap_or(0);
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }

    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.failures.extend_from_slice(&other.failures);
        self.broken |= other.broken;
    }

    pub fn line(&self) -> String {
        let mut line = format!("{} passed, {} failed, {} ignored", self.passed, self.failed, self.ignored);
        if !self.failures.is_empty() {
            line = format!("failed: {}\n{line}", self.failures.join(", "));
        }
        line
    }

    pub fn verdict(&self) -> Result<()> {
        if self.failed > 0 {
            bail!("{} tests failed", self.failed);
        }
        if self.broken {
            bail!("a test program was not built, or ended before its closing line: see above");
        }
        if self.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

/// Runs a test command, passing its output on.
fn count(command: &mut Command) -> Result<Counts> {
    command::announce(command);
    let mut tests = Running::start(command.stdout(Stdio::piped()))?;
    let output = tests.child().stdout.take().context("stdout is piped")?;
    let mut counts = Counts::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        counts.read(&line);
    }
    let succeeded = tests.child().wait()?.success();
    counts.broken = !succeeded && counts.failed == 0;
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(output: &str) -> Counts {
        let mut counts = Counts::default();
        output.lines().for_each(|line| counts.read(line));
        counts
    }

    #[test]
    fn closing_lines_add_up() {
        let counts = counts(
            "running 3 tests\n\
             test a ... ok\n\
             test b::c ... FAILED\n\
             test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s\n",
        );
        let expected =
            Counts { passed: 13, failed: 1, ignored: 1, failures: vec!["b::c".to_owned()], broken: false };
        assert_eq!(counts, expected);
        assert!(counts.line().ends_with("13 passed, 1 failed, 1 ignored"));
        assert!(counts.verdict().is_err());
    }

    #[test]
    fn nothing_run_and_nothing_built_do_not_pass() {
        assert!(counts("").verdict().is_err());
        assert!(Counts { passed: 5, broken: true, ..Counts::default() }.verdict().is_err());
        assert!(Counts { passed: 5, ..Counts::default() }.verdict().is_ok());
    }

    #[test]
    fn a_command_that_fails_without_a_failed_test_is_broken() {
        let closing = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured'; exit 1";
        let counted = count(Command::new("sh").args(["-c", closing])).unwrap();
        assert!(counted.broken && counted.passed == 2);
    }
}
