//! One report in every format, straight from a run and from a saved file.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use leaktrace::report::model::Report;
use leaktrace_tests::compile::Recipe;
use leaktrace_tests::environment;
use leaktrace_tests::leaktrace::{Finished, Leaktrace, parse};
use leaktrace_tests::profile::Profile;
use leaktrace_tests::program::Program;

use super::fixture;

/// A traced fixture's last words in a format.
fn run_as(format: &str, program: &Path) -> Finished {
    let mut program = Program::start(program);
    let session = Leaktrace::run_as(format).pid(program.pid()).start().ready();
    program.go();
    let run = session.stop().succeeded();
    assert!(program.end().success());
    run
}

fn saved(report: &[u8]) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("report.json");
    std::fs::write(&file, report).expect("a file can be written");
    let path = file.to_str().expect("a temporary path is text").to_owned();
    (directory, path)
}

fn again(file: &str, format: &str) -> Finished {
    Leaktrace::new(["report", file, "--top", "1000000", "--format", format]).finish().succeeded()
}

fn live_bytes(report: &Report) -> u64 {
    report.processes.iter().map(|process| process.live_bytes).sum()
}

/// The sum of the numbers of folded stacks, each of which must be a line of frames and a number.
fn folded_sum(text: &str) -> u64 {
    let number = |line: &str| line.rsplit_once(' ').and_then(|(_, number)| number.parse::<u64>().ok());
    text.lines().map(|line| number(line).unwrap_or_else(|| panic!("not a folded stack: {line}"))).sum()
}

fn assert_profile_of(profile: &Profile, live: u64) {
    let sum = profile.sum("inuse_space").unwrap_or_else(|| panic!("{:?}", profile.value_types()));
    assert_eq!(u64::try_from(sum), Ok(live));
    assert!(profile.leaves().contains(&"from_calloc"), "{:?}", profile.leaves());
}

#[test]
fn a_saved_report_is_the_report_again() {
    let Some(path) = fixture(&Recipe::new("functions.c")) else { return };
    let run = run_as("json", &path);
    let report = run.report();
    let (_directory, file) = saved(&run.output);
    assert_eq!(parse(&again(&file, "json").stdout, ""), report);
    assert_eq!(folded_sum(&again(&file, "folded").text()), live_bytes(&report));
    assert_profile_of(&Profile::read(&again(&file, "pprof").stdout), live_bytes(&report));
    let text = again(&file, "text").text();
    assert!(text.contains("from_calloc") && text.contains("functions.c"), "{text}");
}

#[test]
fn a_run_writes_every_format() {
    let Some(path) = fixture(&Recipe::new("functions.c")) else { return };
    let live = live_bytes(&run_as("json", &path).report());
    assert_eq!(folded_sum(&String::from_utf8_lossy(&run_as("folded", &path).output)), live);
    assert_profile_of(&Profile::read(&run_as("pprof", &path).output), live);
    let text = run_as("text", &path).output;
    assert!(String::from_utf8_lossy(&text).contains("from_calloc"), "{}", String::from_utf8_lossy(&text));
}

#[test]
fn a_folded_stack_reads_from_the_outside_in() {
    let Some(path) = fixture(&Recipe::new("functions.c")) else { return };
    let folded = String::from_utf8_lossy(&run_as("folded", &path).output).into_owned();
    let line = folded.lines().find(|line| line.contains("from_calloc")).unwrap_or_else(|| panic!("{folded}"));
    let (outer, inner) = (line.find("main"), line.find("from_calloc"));
    assert!(outer.is_some() && outer < inner, "{line}");
}

#[test]
fn go_reads_the_profile() {
    let Some(path) = fixture(&Recipe::new("functions.c")) else { return };
    let Some(go) = environment::tool("go") else { return };
    let (_directory, file) = saved(&run_as("pprof", &path).output);
    let run = Command::new(go).args(["tool", "pprof", "-top", "-sample_index=inuse_space", &file]).output();
    let run = run.expect("go runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{stderr}");
    assert!(stdout.contains("from_pvalloc"), "{stdout}\n{stderr}");
}

#[test]
fn a_site_has_the_same_id_in_every_run_of_a_build() {
    let Some(path) = fixture(&Recipe::new("stacks.c")) else { return };
    let ids = || -> BTreeSet<String> {
        let report = run_as("json", &path).report();
        report.processes.iter().flat_map(|process| &process.sites).map(|site| site.site_id.clone()).collect()
    };
    let first = ids();
    assert_eq!(first.len(), 101, "sites have ids of their own");
    assert_eq!(first, ids());
}

#[test]
fn a_difference_names_what_grew_and_nothing_else() {
    let Some(path) = fixture(&Recipe::new("functions.c")) else { return };
    let run = run_as("json", &path);
    let mut report = run.report();
    let grown = report.processes[0]
        .sites
        .iter_mut()
        .find(|site| site.frames.first().and_then(|frame| frame.function.as_deref()) == Some("from_calloc"))
        .expect("from_calloc leaks");
    grown.live_bytes += 1000;
    grown.live_allocations += 10;
    report.processes[0].live_bytes += 1000;
    report.processes[0].live_allocations += 10;
    let (_before, before) = saved(&run.output);
    let (_after, after) = saved(&serde_json::to_vec(&report).expect("a report is JSON"));
    let text = Leaktrace::new(["diff", &before, &after]).finish().succeeded().text();
    assert!(text.contains("from_calloc"), "{text}");
    assert!(!text.contains("from_valloc"), "{text}");
    let same = Leaktrace::new(["diff", &before, &before]).finish().succeeded().text();
    assert!(!same.contains("from_calloc"), "{same}");
}
