//! Processes that fork, run programs, come and go.

use std::process::Command;

use leaktrace_tests::compile::Recipe;
use leaktrace_tests::leaktrace::Leaktrace;
use leaktrace_tests::program::{Program, truths_of};
use leaktrace_tests::truth::{self, Truth};

use super::{assert_traced_exactly, fixture, private_copy, trace};

#[test]
fn children_of_a_traced_process() {
    assert_traced_exactly(&Recipe::new("fork_exec.c"), 1);
}

#[test]
fn a_command_and_its_children_from_their_first_instruction() {
    let Some(path) = fixture(&Recipe::new("fork_exec.c")) else { return };
    let run = Leaktrace::run().command([path.as_os_str(), "now".as_ref()]).finish();
    let truths = truths_of(&run.text());
    assert_eq!(truths.len(), 6, "{}", run.text());
    truth::assert_exact(&run.report(), &truths);
}

#[test]
fn a_commands_failure_is_not_leaktraces() {
    let Some(path) = fixture(&Recipe::new("short.c")) else { return };
    let run = Leaktrace::run().command([path.as_os_str(), "now".as_ref()]).finish();
    truth::assert_exact(&run.report(), &gone(truths_of(&run.text())));
}

#[test]
fn fifty_short_processes_one_after_the_other() {
    assert_shell_traced_exactly("for i in $(seq 50); do \"$0\" now; done; true", 50);
}

#[test]
fn short_processes_side_by_side() {
    assert_shell_traced_exactly(
        "for i in $(seq 8); do for j in $(seq 6); do \"$0\" now & done; wait; done",
        48,
    );
}

/// Runs a shell script whose `$0` is the short fixture so many times.
fn assert_shell_traced_exactly(script: &str, times: usize) {
    let Some(path) = fixture(&Recipe::new("short.c")) else { return };
    let command = ["sh".as_ref(), "-c".as_ref(), script.as_ref(), path.as_os_str()];
    let run = Leaktrace::run().command(command).finish();
    let truths = gone(truths_of(&run.text()));
    let report = run.report();
    let comm = path.file_name().and_then(std::ffi::OsStr::to_str);
    let reported = report.processes.iter().filter(|process| Some(process.comm.as_str()) == comm).count();
    assert_eq!(reported, times, "{}", truth::summary(&report));
    // Where all CPUs but one start processes at the same moment, one of them may run before it is armed. It must be
    // named then, be rare, and change nothing for the others.
    let named = |pid: u32| report.completeness.warnings.iter().any(|text| text.contains(&pid.to_string()));
    let (late, in_time): (Vec<_>, Vec<_>) = truths.iter().partition(|truth| named(truth.pid));
    assert_eq!(
        report.completeness.exact,
        report.completeness.warnings.is_empty(),
        "{}",
        truth::summary(&report)
    );
    assert!(late.len() * 10 <= times, "{:?}", report.completeness);
    let differences: Vec<_> = in_time.into_iter().flat_map(|truth| truth::compare(&report, truth)).collect();
    assert!(differences.is_empty(), "{}\n{}", differences.join("\n"), truth::summary(&report));
}

#[test]
fn processes_of_a_name_those_that_run_and_those_that_come() {
    let Some(built) = fixture(&Recipe::new("short.c")) else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = private_copy(&built, directory.path());
    let comm = path.file_name().expect("a file has a name");
    let mut first = Program::start(&path);
    let session = Leaktrace::run().args(["--comm".as_ref(), comm]).start().ready();
    let mut truths = first.go();
    for _ in 0..20 {
        let run = Command::new(&path).arg("now").output().expect("a fixture runs");
        truths.extend(gone(truths_of(&String::from_utf8_lossy(&run.stdout))));
    }
    // Of another name, so not traced.
    let other = Command::new(&built).arg("now").output().expect("a fixture runs");
    let others = truths_of(&String::from_utf8_lossy(&other.stdout));
    let report = session.stop().report();
    truth::assert_exact(&report, &truths);
    assert_eq!(report.processes.len(), 21, "{}", truth::summary(&report));
    assert!(report.processes.iter().all(|process| process.pid != others[0].pid));
    assert_eq!(first.end().code(), Some(7));
}

#[test]
fn several_pids() {
    let Some(path) = fixture(&Recipe::new("short.c")) else { return };
    let mut programs = [Program::start(&path), Program::start(&path), Program::start(&path)];
    let pids: Vec<String> = programs.iter().map(|program| program.pid().to_string()).collect();
    let session = Leaktrace::run().args(["--pid", &pids.join(",")]).start().ready();
    let truths: Vec<Truth> = programs.iter_mut().flat_map(Program::go).collect();
    let report = session.stop().report();
    truth::assert_exact(&report, &truths);
    assert_eq!(report.processes.len(), 3, "{}", truth::summary(&report));
}

#[test]
fn a_run_ends_when_its_process_does() {
    let Some(path) = fixture(&Recipe::new("short.c")) else { return };
    let mut program = Program::start(&path);
    let session = Leaktrace::run().pid(program.pid()).start().ready();
    let truths = gone(program.go());
    assert_eq!(program.end().code(), Some(7));
    truth::assert_exact(&session.finish().report(), &truths);
}

#[test]
fn a_program_whose_file_is_gone() {
    let Some(built) = fixture(&Recipe::new("functions.c")) else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = private_copy(&built, directory.path());
    let mut program = Program::start(&path);
    std::fs::remove_file(&path).expect("a running program's file can be removed");
    let (report, truths) = trace(&mut program, Leaktrace::run(), 1);
    truth::assert_exact(&report, &truths);
    assert!(program.end().success());
}

/// Of processes that are known to have ended since they told.
fn gone(truths: Vec<Truth>) -> Vec<Truth> {
    truths.into_iter().map(|truth| Truth { exited: true, ..truth }).collect()
}
