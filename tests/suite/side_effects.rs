//! What tracing does to others: nothing that stays, nothing beyond the traced process.

use std::time::Duration;

use leaktrace_tests::breakpoints;
use leaktrace_tests::compile::Recipe;
use leaktrace_tests::cpu;
use leaktrace_tests::leaktrace::Leaktrace;
use leaktrace_tests::program::Program;
use leaktrace_tests::tracefs;
use leaktrace_tests::truth;

use super::{fixture, within};

/// The longest that the kernel and leaktrace's guardian may need to tidy up behind a killed agent.
const TIDY: Duration = Duration::from_secs(15);

fn steady() -> Recipe {
    Recipe::new("steady.c").flags(&["-pthread"])
}

/// Definitions of uprobe events that carry the agent's pid in their name.
fn definitions_of(agent: u32) -> Vec<String> {
    let agent = agent.to_string();
    let named = |line: &String| line.split(|c: char| !c.is_ascii_digit()).any(|number| number == agent);
    tracefs::uprobe_events().into_iter().filter(named).collect()
}

#[test]
fn a_killed_leaktrace_leaves_nothing_behind() {
    let Some(path) = fixture(&steady()) else { return };
    let mut program = Program::start(&path);
    let mut session = Leaktrace::run().pid(program.pid()).start().ready();
    let agent = session.pid();
    program.go();
    assert!(!breakpoints::in_process(program.pid()).is_empty(), "a traced process has breakpoints");
    assert!(!definitions_of(agent).is_empty(), "the events of a run carry its pid");

    session.kill();
    assert!(
        within(TIDY, || breakpoints::in_process(program.pid()).is_empty()),
        "{:?}",
        breakpoints::in_process(program.pid())
    );
    assert!(within(TIDY, || definitions_of(agent).is_empty()), "{:?}", definitions_of(agent));
    let truths = program.go();
    assert!(truths[0].totals()[1] > Some(0), "the target worked on");
    assert!(program.end().success());
}

#[test]
fn a_leaktrace_that_ends_leaves_nothing_behind() {
    let Some(path) = fixture(&steady()) else { return };
    let mut program = Program::start(&path);
    let session = Leaktrace::run().pid(program.pid()).start().ready();
    let agent = session.pid();
    program.go();
    assert!(!breakpoints::in_process(program.pid()).is_empty(), "a traced process has breakpoints");
    assert_eq!(session.stop().code, Some(0));
    assert_eq!(breakpoints::in_process(program.pid()), []);
    assert_eq!(definitions_of(agent), Vec::<String>::new());
    program.go();
    assert!(program.end().success());
}

#[test]
fn a_second_process_of_the_same_program_is_not_touched() {
    let Some(path) = fixture(&steady()) else { return };
    let mut traced = Program::start(&path);
    let mut other = Program::start(&path);
    let session = Leaktrace::run().pid(traced.pid()).start().ready();
    let later = Program::start(&path);
    traced.go();
    other.go();
    assert!(!breakpoints::in_process(traced.pid()).is_empty(), "a traced process has breakpoints");
    assert_eq!(breakpoints::in_process(other.pid()), [], "one that ran before");
    assert_eq!(breakpoints::in_process(later.pid()), [], "one that came later");
    other.go();
    let truths = traced.go();
    let report = session.stop().report();
    truth::assert_exact(&report, &truths);
    assert_eq!(report.processes.len(), 1);
}

#[test]
fn two_leaktraces_on_one_process() {
    let Some(path) = fixture(&steady()) else { return };
    let mut program = Program::start(&path);
    let first = Leaktrace::run().pid(program.pid()).start().ready();
    let second = Leaktrace::run().pid(program.pid()).start().ready();
    program.go();
    std::thread::sleep(Duration::from_millis(300));
    let truths = program.go();
    truth::assert_exact(&first.stop().report(), &truths);
    assert!(!breakpoints::in_process(program.pid()).is_empty(), "the second still traces");
    truth::assert_exact(&second.stop().report(), &truths);
    assert_eq!(breakpoints::in_process(program.pid()), []);
    assert!(program.end().success());
}

#[test]
fn an_idle_target_costs_next_to_nothing() {
    let Some(path) = fixture(&steady()) else { return };
    let program = Program::start(&path);
    let session = Leaktrace::run().pid(program.pid()).start().ready();
    assert!(!breakpoints::in_process(program.pid()).is_empty(), "a traced process has breakpoints");
    // What the start costs is not the question.
    std::thread::sleep(Duration::from_secs(1));
    let share = cpu::share(session.pid(), Duration::from_secs(4));
    assert!(share < 0.03, "the agent uses {:.1} % of a CPU", share * 100.0);
    assert_eq!(session.stop().code, Some(0));
    assert!(program.end().success());
}
