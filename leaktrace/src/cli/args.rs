//! The command line as typed: one struct per command, from which help, man pages and completions come.
//!
//! Comes in: clap's matches. Goes out: to [`super::config`], which checks what spans several arguments. Never:
//! files, processes or defaults that clap's help would not show.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{StringValueParser, TypedValueParser};
use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use leaktrace_common::limits;

use super::units;
use crate::event::Kind;

/// Shows what a running program has allocated and not freed, by call site.
#[derive(Debug, Parser)]
#[command(name = "leaktrace", version, arg_required_else_help = true, disable_help_flag = true, after_help = EXAMPLES)]
pub(super) struct Cli {
    /// Say more on stderr: -v debug, -vv trace
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 100)]
    pub(super) verbose: u8,
    /// Print help
    // clap's own flag has a long form that spreads over screens; what that adds is in the man pages.
    #[arg(short, long, global = true, action = ArgAction::HelpShort, display_order = 101)]
    help: Option<bool>,
    #[command(subcommand)]
    pub(super) command: CommandArgs,
}

const EXAMPLES: &str = "\
Examples:
  leaktrace run --comm redis-server        trace a service until Ctrl-C
  leaktrace run -- ./server --port 8080    trace a command from its first instruction
  leaktrace doctor                         what is missing on this machine";

#[derive(Debug, Subcommand)]
pub(super) enum CommandArgs {
    Run(RunArgs),
    Report(ReportArgs),
    Diff(DiffArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Trace processes; report at every interval and at the end
#[derive(Debug, Args)]
#[command(
    after_help = RUN_EXAMPLES,
    group = ArgGroup::new("target").args(["comm", "pid", "command"]).required(true),
    override_usage = "leaktrace run [OPTIONS] --comm NAME | --pid PID[,PID…] | -- CMD [ARGS]…"
)]
pub(super) struct RunArgs {
    /// Every process of this name, those that start later included; a glob, repeatable
    #[arg(long, value_name = "NAME", help_heading = "Target (exactly one)")]
    pub(super) comm: Vec<String>,
    /// These processes
    #[arg(
        long,
        value_name = "PID",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..=PID_MAX),
        help_heading = "Target (exactly one)"
    )]
    pub(super) pid: Vec<u32>,
    /// Start this command; trace it and its children from the first instruction, until it ends
    #[arg(last = true, value_name = "CMD", help_heading = "Target (exactly one)")]
    pub(super) command: Vec<OsString>,

    /// Stop after this time [default: when the processes end, or at Ctrl-C]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(super) duration: Option<Duration>,
    /// Report this often
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration)]
    pub(super) interval: Duration,
    /// Show this many call sites of a process [default: 10 in text, all in other formats]
    #[arg(long, value_name = "N")]
    pub(super) top: Option<NonZeroUsize>,
    /// Leave out what is younger: it may still be freed
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = units::duration)]
    pub(super) min_age: Duration,
    /// Trace these kinds of memory
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        default_value = "heap,mmap",
        value_parser = kind_parser()
    )]
    pub(super) kinds: Vec<Kind>,
    /// How to find the callers
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub(super) stack: StackArg,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// Serve Prometheus metrics there while tracing, for example on 127.0.0.1:9755
    #[arg(long, value_name = "ADDR:PORT", value_parser = socket_address)]
    pub(super) metrics: Option<SocketAddr>,

    /// Bytes of the ring between the kernel and leaktrace; a power of two
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = ring_bytes, hide = true)]
    pub(super) ring_size: u32,
    /// Outstanding blocks that are tracked at most, of all processes together
    #[arg(long, value_name = "N", hide = true)]
    pub(super) max_blocks: Option<NonZeroUsize>,
}

const RUN_EXAMPLES: &str = "\
Examples:
  leaktrace run --comm 'worker-*' --duration 5m
  leaktrace run --pid 4711 --interval 1m --metrics 127.0.0.1:9755
  leaktrace run --format json --output leak.json -- ./server --port 8080
  leaktrace run --format pprof --output leak.pb.gz --pid 4711   # go tool pprof leak.pb.gz

Needs root; `leaktrace doctor` says what else.";

/// Show a saved JSON report in another format
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  leaktrace report leak.json
  leaktrace report leak.json --format folded | flamegraph.pl > leak.svg")]
pub(super) struct ReportArgs {
    /// Written by `run --format json`; - is stdin
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Show this many call sites of a process [default: 10 in text, all in other formats]
    #[arg(long, value_name = "N")]
    pub(super) top: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Show what grew between two saved JSON reports, by call site
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  leaktrace diff before.json after.json")]
pub(super) struct DiffArgs {
    /// The earlier report
    #[arg(value_name = "A")]
    pub(super) before: PathBuf,
    /// The later report
    #[arg(value_name = "B")]
    pub(super) after: PathBuf,
    /// Show this many call sites [default: 10 in text, all in other formats]
    #[arg(long, value_name = "N")]
    pub(super) top: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(super) output: TableOutputArgs,
}

/// Say what this kernel, these privileges and this machine allow, and how to get what is missing
#[derive(Debug, Args)]
#[command(after_help = "Exits 0 if `leaktrace run` would work, 1 otherwise.")]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    pub(super) output: TableOutputArgs,
}

/// Print shell completions
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  leaktrace completions bash > /etc/bash_completion.d/leaktrace")]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(super) shell: Shell,
}

/// Print the man page, or write one page per command
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  leaktrace man | man -l -
  leaktrace man --dir /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// Write leaktrace.1, leaktrace-run.1, … into this directory
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

/// Where a report goes, and as what.
#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Format of the report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) format: ReportFormat,
    /// Write to this file [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
}

/// As [`OutputArgs`], of a result without stacks to draw.
#[derive(Debug, Args)]
pub(super) struct TableOutputArgs {
    /// Format of the result
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) format: TableFormat,
    /// Write to this file [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
}

/// Formats of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For reading
    Text,
    /// One document, schema leaktrace/1
    Json,
    /// Folded stacks, for flame graphs
    Folded,
    /// Gzipped profile.proto, for `go tool pprof`
    Pprof,
}

/// Formats of everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// For reading
    Text,
    /// One document, schema leaktrace/1
    Json,
}

/// How to find the callers, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum StackArg {
    /// What works here; today: fp
    Auto,
    /// Follow frame pointers
    Fp,
}

/// The kernel's `PID_MAX_LIMIT` on 64-bit machines.
const PID_MAX: i64 = 4 * 1024 * 1024;

fn kind_parser() -> impl TypedValueParser<Value = Kind> {
    StringValueParser::new().try_map(|name| match name.as_str() {
        "heap" => Ok(Kind::Heap),
        "mmap" => Ok(Kind::Mmap),
        _ => Err("kinds are heap and mmap"),
    })
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, for example 127.0.0.1:9755".to_owned())
}

fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes = units::size(text).map_err(|error| error.to_string())?;
    let least = limits::MIN_RING_BYTES;
    match u32::try_from(bytes) {
        Ok(bytes) if bytes >= least && bytes.is_power_of_two() => Ok(bytes),
        _ => Err(format!("the ring's size must be a power of two from {least} bytes to 2GiB")),
    }
}
