//! From arguments as typed to a configuration that holds: what comes out of here needs no further check.
//!
//! Comes in: [`super::args`]. Goes out: one config per command, or a [`ConfigError`] that a person can act on.
//! Never: files, processes, privileges; whether a pid exists is the command's to find out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::Shell;
use leaktrace_common::comm::{CommPattern, PatternError};
use leaktrace_common::limits::{COMM_LEN, MAX_COMM_PATTERNS};

use super::args::{
    Cli, CommandArgs, DiffArgs, DoctorArgs, OutputArgs, ReportArgs, ReportFormat, RunArgs, StackArg,
    TableFormat, TableOutputArgs,
};
use crate::event::{Kind, Pid};

/// What to do, and how loudly.
#[derive(Debug)]
pub struct Invocation {
    /// Number of `-v`.
    pub verbosity: u8,
    /// What to do.
    pub command: Command,
}

/// One command with its configuration.
#[derive(Debug)]
pub enum Command {
    /// `leaktrace run`
    Run(RunConfig),
    /// `leaktrace report`
    Report(ReportConfig),
    /// `leaktrace diff`
    Diff(DiffConfig),
    /// `leaktrace doctor`
    Doctor(Output<TableFormat>),
    /// `leaktrace completions`
    Completions(Shell),
    /// `leaktrace man`: into a directory, or the main page to stdout.
    Man(Option<PathBuf>),
}

/// What `leaktrace run` does.
#[derive(Debug)]
pub struct RunConfig {
    /// Which processes.
    pub target: Target,
    /// When to stop, if not at the processes' end or a signal. Not zero.
    pub duration: Option<Duration>,
    /// Time between reports. Not zero.
    pub interval: Duration,
    /// Call sites per process in a report; `None` is ten in text and all elsewhere.
    pub top: Option<NonZeroUsize>,
    /// Younger blocks are left out.
    pub min_age: Duration,
    /// What to trace; not empty.
    pub kinds: BTreeSet<Kind>,
    /// How the kernel side finds the callers.
    pub stack: StackMethod,
    /// Where reports go.
    pub output: Output<ReportFormat>,
    /// Where to serve metrics.
    pub metrics: Option<SocketAddr>,
    /// Bytes of the event ring: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Outstanding blocks tracked at most; `None` leaves it to the ledger.
    pub max_blocks: Option<NonZeroUsize>,
}

/// Which processes to trace.
#[derive(Debug)]
pub enum Target {
    /// By name, those that start later included: 1 to [`MAX_COMM_PATTERNS`] patterns.
    Comm(Vec<NamePattern>),
    /// By pid, without repetitions.
    Pids(BTreeSet<Pid>),
    /// A command to start.
    Command {
        /// Looked up in `PATH` if it has no slash.
        program: OsString,
        /// Its arguments.
        args: Vec<OsString>,
    },
}

/// A `--comm` pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    /// As typed.
    pub text: String,
    /// As the kernel side matches it.
    pub compiled: CommPattern,
}

/// How the kernel side finds the callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StackMethod {
    /// By following frame pointers.
    FramePointers,
}

/// What `leaktrace report` does.
#[derive(Debug)]
pub struct ReportConfig {
    /// A saved report.
    pub input: Input,
    /// Call sites per process; `None` is ten in text and all elsewhere.
    pub top: Option<NonZeroUsize>,
    /// Where the report goes.
    pub output: Output<ReportFormat>,
}

/// What `leaktrace diff` does.
#[derive(Debug)]
pub struct DiffConfig {
    /// The earlier report.
    pub before: Input,
    /// The later one.
    pub after: Input,
    /// Call sites to show; `None` is ten in text and all elsewhere.
    pub top: Option<NonZeroUsize>,
    /// Where the difference goes.
    pub output: Output<TableFormat>,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// `-`
    Stdin,
    /// A file.
    File(PathBuf),
}

/// Where to write, and in which format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output<F> {
    /// In which format.
    pub format: F,
    /// `None` is stdout.
    pub file: Option<PathBuf>,
}

/// Arguments that are well-formed one by one but can't be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text names its fields")]
pub enum ConfigError {
    /// A glob that does not compile.
    #[error("--comm '{text}': {source}")]
    Pattern { text: String, source: PatternError },
    /// A name that no process can have.
    #[error("--comm '{text}': Linux cuts a process's name to {} bytes; use '{cut}'", COMM_LEN - 1)]
    NameTooLong { text: String, cut: String },
    /// More patterns than the kernel side matches.
    #[error("--comm was given {given} times, {MAX_COMM_PATTERNS} is the most; use globs")]
    TooManyPatterns { given: usize },
    /// A time that must pass did not.
    #[error("{option} must be longer than 0")]
    ZeroTime { option: &'static str },
    /// pprof is binary.
    #[error("--format pprof is binary and stdout is a terminal; add --output FILE")]
    BinaryToTerminal,
    /// Both reports from one stream.
    #[error("only one of A and B can be stdin (-)")]
    BothStdin,
}

impl Invocation {
    /// Checks what was typed.
    pub(super) fn new(cli: Cli, stdout_is_terminal: bool) -> Result<Self, ConfigError> {
        let command = match cli.command {
            CommandArgs::Run(args) => Command::Run(RunConfig::new(args, stdout_is_terminal)?),
            CommandArgs::Report(args) => Command::Report(ReportConfig::new(args, stdout_is_terminal)?),
            CommandArgs::Diff(args) => Command::Diff(DiffConfig::new(args)?),
            CommandArgs::Doctor(DoctorArgs { output }) => Command::Doctor(output.into()),
            CommandArgs::Completions(args) => Command::Completions(args.shell),
            CommandArgs::Man(args) => Command::Man(args.dir),
        };
        Ok(Self { verbosity: cli.verbose, command })
    }
}

impl RunConfig {
    fn new(args: RunArgs, stdout_is_terminal: bool) -> Result<Self, ConfigError> {
        if args.interval.is_zero() {
            return Err(ConfigError::ZeroTime { option: "--interval" });
        }
        if args.duration.is_some_and(|duration| duration.is_zero()) {
            return Err(ConfigError::ZeroTime { option: "--duration" });
        }
        Ok(Self {
            target: Target::new(args.comm, args.pid, args.command)?,
            duration: args.duration,
            interval: args.interval,
            top: args.top,
            min_age: args.min_age,
            kinds: args.kinds.into_iter().collect(),
            stack: match args.stack {
                StackArg::Auto | StackArg::Fp => StackMethod::FramePointers,
            },
            output: report_output(args.output, stdout_is_terminal)?,
            metrics: args.metrics,
            ring_bytes: args.ring_size,
            max_blocks: args.max_blocks,
        })
    }
}

impl Target {
    /// clap's group lets exactly one of the three through.
    fn new(comm: Vec<String>, pids: Vec<u32>, command: Vec<OsString>) -> Result<Self, ConfigError> {
        let mut command = command.into_iter();
        if let Some(program) = command.next() {
            return Ok(Self::Command { program, args: command.collect() });
        }
        if !pids.is_empty() {
            return Ok(Self::Pids(pids.into_iter().map(Pid).collect()));
        }
        if comm.len() > MAX_COMM_PATTERNS {
            return Err(ConfigError::TooManyPatterns { given: comm.len() });
        }
        Ok(Self::Comm(comm.into_iter().map(NamePattern::new).collect::<Result<_, _>>()?))
    }
}

impl NamePattern {
    fn new(text: String) -> Result<Self, ConfigError> {
        let longest = COMM_LEN - 1;
        let is_glob = text.contains(['*', '?', '[', '\\']);
        if !is_glob && text.len() > longest {
            let cut = text[..text.floor_char_boundary(longest)].to_owned();
            return Err(ConfigError::NameTooLong { text, cut });
        }
        match CommPattern::new(text.as_bytes()) {
            Ok(compiled) => Ok(Self { text, compiled }),
            Err(source) => Err(ConfigError::Pattern { text, source }),
        }
    }
}

impl ReportConfig {
    fn new(args: ReportArgs, stdout_is_terminal: bool) -> Result<Self, ConfigError> {
        Ok(Self {
            input: args.file.into(),
            top: args.top,
            output: report_output(args.output, stdout_is_terminal)?,
        })
    }
}

impl DiffConfig {
    fn new(args: DiffArgs) -> Result<Self, ConfigError> {
        let (before, after) = (Input::from(args.before), Input::from(args.after));
        if before == Input::Stdin && after == Input::Stdin {
            return Err(ConfigError::BothStdin);
        }
        Ok(Self { before, after, top: args.top, output: args.output.into() })
    }
}

impl From<PathBuf> for Input {
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::Stdin } else { Self::File(path) }
    }
}

impl From<TableOutputArgs> for Output<TableFormat> {
    fn from(args: TableOutputArgs) -> Self {
        Self { format: args.format, file: output_file(args.output) }
    }
}

fn report_output(args: OutputArgs, stdout_is_terminal: bool) -> Result<Output<ReportFormat>, ConfigError> {
    let file = output_file(args.output);
    if args.format == ReportFormat::Pprof && file.is_none() && stdout_is_terminal {
        return Err(ConfigError::BinaryToTerminal);
    }
    Ok(Output { format: args.format, file })
}

fn output_file(typed: Option<PathBuf>) -> Option<PathBuf> {
    typed.filter(|path| path.as_os_str() != "-")
}
