//! What a script relies on: exit codes, what goes to stdout, when a run ends.

use std::time::Duration;

use leaktrace_tests::compile::Recipe;
use leaktrace_tests::leaktrace::{Leaktrace, parse};
use leaktrace_tests::program::Program;
use leaktrace_tests::truth::{self, disagreements};

use super::fixture;

#[test]
fn wrong_usage_is_2() {
    for args in [
        &[][..],
        &["nonsense"],
        &["--no-such-option"],
        &["run"],
        &["run", "--pid"],
        &["run", "--pid", "nobody"],
        &["run", "--pid", "1", "--comm", "x"],
        &["run", "--pid", "1", "--duration", "5parsecs"],
        &["run", "--pid", "1", "--format", "papyrus"],
        &["run", "--pid", "1", "--kinds", "heap,stones"],
        &["run", "--pid", "1", "--ring-size", "5000"],
        &["report"],
        &["diff", "one"],
    ] {
        let run = Leaktrace::new(args).finish();
        assert_eq!(run.code, Some(2), "{args:?} said:\n{}", run.stderr);
        assert!(!run.stderr.is_empty(), "{args:?} says nothing");
        assert_eq!(run.text(), "", "{args:?} writes to stdout");
    }
}

#[test]
fn help_and_version_are_0_and_on_stdout() {
    for args in [&["--help"][..], &["--version"], &["run", "--help"]] {
        let run = Leaktrace::new(args).finish().succeeded();
        assert!(run.text().contains("leaktrace"), "{args:?}: {}", run.text());
    }
}

#[test]
fn files_that_are_no_reports_are_1() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("broken.json");
    std::fs::write(&file, "{\"schema\": \"something/else\"}").expect("a file can be written");
    let path = file.to_str().expect("a temporary path is text");
    for args in [&["report", path][..], &["report", "/no/such/file"], &["diff", path, path]] {
        let run = Leaktrace::new(args).finish();
        assert_eq!(run.code, Some(1), "{args:?} said:\n{}", run.stderr);
        assert!(run.stderr.contains(args[1]), "{args:?} does not name the file:\n{}", run.stderr);
    }
}

#[test]
fn an_output_that_cannot_be_written_is_1_and_harms_nobody() {
    let Some(path) = fixture(&Recipe::new("short.c")) else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let taken = directory.path().to_str().expect("a temporary path is text");
    for output in ["/no/such/directory/report.json", taken] {
        let mut program = Program::start(&path);
        let pid = program.pid().to_string();
        let args = ["run", "--format", "json", "--duration", "1s", "--output", output, "--pid", &pid];
        let run = Leaktrace::new(args).finish();
        assert_eq!(run.code, Some(1), "it said:\n{}", run.stderr);
        assert!(run.stderr.contains(output), "{}", run.stderr);
        program.go();
        assert_eq!(program.end().code(), Some(7));
    }
}

#[test]
fn without_an_output_the_result_alone_is_on_stdout() {
    let Some(path) = fixture(&Recipe::new("short.c")) else { return };
    let mut program = Program::start(&path);
    let pid = program.pid().to_string();
    let args = ["run", "--format", "json", "--min-age", "0s", "--pid", &pid];
    let session = Leaktrace::new(args).start().ready();
    let truths = program.go();
    let run = session.stop().succeeded();
    truth::assert_exact(&parse(&run.stdout, &run.stderr), &truths);
}

#[test]
fn a_duration_ends_a_run() {
    let Some(path) = fixture(&Recipe::new("short.c")) else { return };
    let mut program = Program::start(&path);
    let session = Leaktrace::run().args(["--duration", "2s"]).pid(program.pid()).start().ready();
    let truths = program.go();
    let report = session.finish().report();
    truth::assert_exact(&report, &truths);
    assert!(Duration::from_nanos(report.duration_ns) >= Duration::from_secs(2), "{}", report.duration_ns);
    assert_eq!(program.end().code(), Some(7));
}

#[test]
fn what_is_younger_than_asked_for_is_left_out() {
    let Some(path) = fixture(&Recipe::new("functions.c")) else { return };
    let mut program = Program::start(&path);
    let pid = program.pid().to_string();
    let args = ["run", "--format", "json", "--min-age", "1h", "--pid", &pid];
    let session = Leaktrace::new(args).start().ready();
    program.go();
    let run = session.stop().succeeded();
    let report = parse(&run.stdout, &run.stderr);
    let mut sites = report.processes.iter().flat_map(|process| &process.sites).peekable();
    assert!(sites.peek().is_some(), "the sites themselves are reported");
    assert!(sites.all(|site| site.live_allocations == 0), "{}", truth::summary(&report));
    assert!(program.end().success());
}

#[test]
fn ctrl_c_and_sigterm_in_the_middle_give_a_report() {
    let Some(path) = fixture(&Recipe::new("steady.c").flags(&["-pthread"])) else { return };
    for terminate in [false, true] {
        let mut program = Program::start(&path);
        let session = Leaktrace::run().pid(program.pid()).start().ready();
        program.go();
        std::thread::sleep(Duration::from_millis(500));
        if terminate {
            session.terminate();
        } else {
            session.interrupt();
        }
        let report = session.finish().report();
        let [process] = &report.processes[..] else { panic!("{}", truth::summary(&report)) };
        assert!(process.live_bytes > 0 && process.live_bytes <= process.allocated_bytes);
        assert_eq!(disagreements(process), Vec::<String>::new());
        // Probes are taken away one by one: no block may be seen whose free was not.
        if report.completeness.lost == 0 {
            assert_eq!(report.completeness.reasons.get("replaced"), None, "{}", truth::summary(&report));
        }
        assert_eq!(program.go().len(), 1);
        assert!(program.end().success(), "the target works on");
    }
}

#[test]
fn ctrl_c_ends_a_run_that_has_nothing_to_trace_yet() {
    if !leaktrace_tests::environment::root() {
        return;
    }
    let session = Leaktrace::run().args(["--comm", "lt-no-such-name"]).start().ready();
    let report = session.stop().report();
    assert_eq!(report.processes, []);
}
