//! The command line as a user meets it: help texts as golden files, arguments in, configuration or message out.

use std::time::Duration;

use clap::error::ErrorKind;
use proptest::prelude::*;

use super::config::{Command, Input, RunConfig, StackMethod, Target};
use super::*;
use crate::event::{Kind, Pid};

fn parse_words(words: &[&str]) -> Result<Command, clap::Error> {
    let arguments = std::iter::once("leaktrace").chain(words.iter().copied()).map(OsString::from);
    parse(arguments, false).map(|invocation| invocation.command)
}

fn run(words: &[&str]) -> RunConfig {
    match parse_words(&[&["run"], words].concat()) {
        Ok(Command::Run(config)) => config,
        other => panic!("{other:?}"),
    }
}

/// What is printed for wrong usage; it must end with exit code 2.
fn complaint(words: &[&str]) -> String {
    let error = parse_words(words).expect_err("wrong usage is refused");
    assert_eq!(error.exit_code(), Exit::Usage as i32, "{error}");
    error.render().to_string()
}

#[test]
fn the_definition_is_consistent() {
    command().debug_assert();
}

#[test]
fn help() {
    let shown = |words: &[&str]| {
        let error = command().term_width(100).try_get_matches_from(words).expect_err("help ends the parsing");
        assert_eq!(error.kind(), ErrorKind::DisplayHelp);
        error.render().to_string()
    };
    insta::assert_snapshot!("help", shown(&["leaktrace", "--help"]));
    for subcommand in command().get_subcommands() {
        let name = subcommand.get_name();
        insta::assert_snapshot!(format!("help_{name}"), shown(&["leaktrace", name, "--help"]));
    }
}

#[test]
fn help_and_version_end_well() {
    for (words, kind) in
        [(&["--help"][..], ErrorKind::DisplayHelp), (&["--version"], ErrorKind::DisplayVersion)]
    {
        let error = parse_words(words).expect_err("help is not an invocation");
        assert_eq!((error.kind(), error.exit_code()), (kind, Exit::Done as i32));
    }
}

#[test]
fn run_defaults_are_those_of_the_contract() {
    let config = run(&["--pid", "4711"]);
    assert_eq!(config.interval, Duration::from_secs(10));
    assert_eq!(config.min_age, Duration::ZERO, "a report that leaves something out is asked for");
    assert_eq!(config.top, None);
    assert_eq!(config.duration, None);
    assert!(config.kinds.iter().eq(&[Kind::Heap, Kind::Mmap]));
    assert_eq!(config.stack, StackMethod::FramePointers);
    assert_eq!((config.output.format, config.output.file), (ReportFormat::Text, None));
    assert_eq!(config.ring_bytes, leaktrace_common::limits::DEFAULT_RING_BYTES);
    assert_eq!((config.metrics, config.max_blocks), (None, None));
}

#[test]
fn run_takes_its_options() {
    let config = run(&[
        "--duration=5m",
        "--interval",
        "500ms",
        "--top",
        "3",
        "--min-age",
        "0",
        "--kinds",
        "mmap,mmap",
        "--stack",
        "fp",
        "--format",
        "json",
        "-o",
        "out.json",
        "--metrics",
        "[::1]:9755",
        "--ring-size",
        "1MiB",
        "--max-blocks",
        "1000",
        "--comm",
        "a*",
        "--comm",
        "b",
    ]);
    assert_eq!(config.duration, Some(Duration::from_mins(5)));
    assert_eq!(config.interval, Duration::from_millis(500));
    assert_eq!(config.min_age, Duration::ZERO);
    assert_eq!(config.top.unwrap().get(), 3);
    assert!(config.kinds.iter().eq(&[Kind::Mmap]));
    assert_eq!(config.output.format, ReportFormat::Json);
    assert_eq!(config.output.file.unwrap().to_str(), Some("out.json"));
    assert_eq!(config.metrics.unwrap().to_string(), "[::1]:9755");
    assert_eq!(config.ring_bytes, 1 << 20);
    assert_eq!(config.max_blocks.unwrap().get(), 1000);
    let Target::Comm(patterns) = config.target else { panic!() };
    assert!(patterns.iter().map(|p| p.text.as_str()).eq(["a*", "b"]));
}

#[test]
fn a_command_keeps_its_own_options() {
    let Target::Command { program, args } = run(&["--", "./server", "--pid", "1", "--", "-v"]).target else {
        panic!()
    };
    assert_eq!(program, "./server");
    assert_eq!(args, ["--pid", "1", "--", "-v"]);
}

#[test]
fn pids_are_a_set() {
    let Target::Pids(pids) = run(&["--pid", "7,3", "--pid", "7"]).target else { panic!() };
    assert!(pids.into_iter().eq([Pid(3), Pid(7)]));
}

#[test]
fn a_dash_is_a_stream() {
    let Ok(Command::Report(config)) = parse_words(&["report", "-", "--output", "-"]) else { panic!() };
    assert_eq!((config.input, config.output.file), (Input::Stdin, None));
}

#[test]
fn wrong_usage_says_what_is_wrong() {
    let long = ["--comm"; 9].iter().flat_map(|c| [*c, "x"]);
    let nine: Vec<&str> = std::iter::once("run").chain(long).collect();
    let cases: &[(&str, &[&str])] = &[
        ("no_target", &["run"]),
        ("two_targets", &["run", "--pid", "1", "--comm", "x"]),
        ("target_and_command", &["run", "--pid", "1", "--", "true"]),
        ("pid_zero", &["run", "--pid", "0"]),
        ("pid_list_with_a_hole", &["run", "--pid", "1,,2"]),
        ("duration_without_unit", &["run", "--pid", "1", "--duration", "30"]),
        ("zero_duration", &["run", "--pid", "1", "--duration", "0s"]),
        ("zero_interval", &["run", "--pid", "1", "--interval", "0"]),
        ("top_zero", &["run", "--pid", "1", "--top", "0"]),
        ("unknown_kind", &["run", "--pid", "1", "--kinds", "heap,gpu"]),
        ("unknown_format", &["run", "--pid", "1", "--format", "xml"]),
        ("metrics_without_address", &["run", "--pid", "1", "--metrics", "9755"]),
        ("ring_no_power_of_two", &["run", "--pid", "1", "--ring-size", "3MiB"]),
        ("ring_too_large", &["run", "--pid", "1", "--ring-size", "4GiB"]),
        ("open_class", &["run", "--comm", "worker-[0-9"]),
        ("empty_name", &["run", "--comm", ""]),
        ("name_longer_than_a_comm", &["run", "--comm", "systemd-timesyncd"]),
        ("nine_names", &nine),
        ("both_stdin", &["diff", "-", "-"]),
        ("pprof_is_no_table", &["diff", "a", "b", "--format", "pprof"]),
        ("unknown_command", &["scan", "--pid", "1"]),
    ];
    let all: Vec<String> =
        cases.iter().map(|(name, words)| format!("[{name}]\n{}", complaint(words))).collect();
    insta::assert_snapshot!("wrong_usage", all.join("\n"));
}

#[test]
fn pprof_does_not_go_to_a_terminal() {
    let arguments = |output: &[&'static str]| {
        let words = [&["leaktrace", "run", "--pid", "1", "--format", "pprof"], output].concat();
        parse(words.into_iter().map(OsString::from), true)
    };
    assert!(arguments(&["--output", "x.pb.gz"]).is_ok());
    assert!(arguments(&["--output", "-"]).unwrap_err().to_string().contains("stdout is a terminal"));
}

proptest! {
    /// Whatever is typed, the answer is a configuration or a message.
    #[test]
    fn nothing_typed_panics(words in proptest::collection::vec("[a-z0-9,.*\\[\\\\é-]{0,20}", 0..6)) {
        let words: Vec<&str> = ["run", "--comm"].into_iter().chain(words.iter().map(String::as_str)).collect();
        drop(parse_words(&words));
    }
}
