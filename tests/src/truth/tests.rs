//! A comparison that never fails would pass every suite: each way to differ must be seen.

use leaktrace::report::model::{Completeness, SCHEMA, Verdict};

use super::*;

fn frame(function: &str, module: &str, inlined: bool) -> Frame {
    Frame {
        address: "0x1".into(),
        module: module.into(),
        build_id: None,
        offset: "0x1".into(),
        function: Some(function.into()),
        file: None,
        line: None,
        inlined,
    }
}

fn site(frames: Vec<Frame>, [live_bytes, live_allocations, allocated_bytes, allocations]: Numbers) -> Site {
    Site {
        site_id: "00".into(),
        kind: "heap".into(),
        live_bytes,
        live_allocations,
        allocated_bytes,
        allocations,
        oldest_age_ns: 0,
        growth_bytes_per_s: None,
        verdict: Verdict::Unknown,
        truncated: None,
        frames,
    }
}

fn report(sites: Vec<Site>) -> Report {
    let mut sum = Numbers::default();
    for site in &sites {
        add(&mut sum, site);
    }
    let [live_bytes, live_allocations, allocated_bytes, allocations] = sum;
    let process = Process {
        pid: 7,
        start_time: 1,
        comm: "p".into(),
        exe: "/p".into(),
        exited: false,
        rss_bytes: None,
        live_bytes,
        live_allocations,
        allocated_bytes,
        allocations,
        live_bytes_low: None,
        live_bytes_high: None,
        sites,
    };
    Report {
        schema: SCHEMA.into(),
        kind: "report".into(),
        duration_ns: 1,
        completeness: Completeness { exact: true, ..Completeness::default() },
        processes: vec![process],
    }
}

fn truth(others: Others, sites: Vec<TrueSite>) -> Truth {
    Truth { pid: 7, exited: false, others, stacks: None, sites }
}

fn at(at: At, name: &str, numbers: Numbers) -> TrueSite {
    let [live_bytes, live_allocations, allocated_bytes, allocations] = numbers.map(Some);
    TrueSite {
        kind: "heap".into(),
        at,
        name: name.into(),
        live_bytes,
        live_allocations,
        allocated_bytes,
        allocations,
    }
}

#[test]
fn sites_of_one_function_are_added_up() {
    let report = report(vec![
        site(vec![frame("f", "/p", false), frame("g", "/p", false)], [10, 1, 20, 2]),
        site(vec![frame("f", "/p", false), frame("h", "/p", false)], [1, 1, 2, 2]),
    ]);
    let differences = compare(&report, &truth(Others::None, vec![at(At::Caller, "f", [11, 2, 22, 4])]));
    assert_eq!(differences, Vec::<String>::new());
}

#[test]
fn every_number_counts() {
    for i in 0..4 {
        let mut wrong = [10, 1, 20, 2];
        wrong[i] += 1;
        let report = report(vec![site(vec![frame("f", "/p", false)], [10, 1, 20, 2])]);
        let differences = compare(&report, &truth(Others::Any, vec![at(At::Caller, "f", wrong)]));
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert!(differences[0].contains(NAMES[i]), "{differences:?}");
    }
}

#[test]
fn a_caller_is_the_first_frame_and_what_is_inlined_into_it() {
    let frames = vec![frame("inner", "/p", true), frame("f", "/p", false), frame("main", "/p", false)];
    let report = report(vec![site(frames, [1, 1, 1, 1])]);
    for (place, name, matches) in [
        (At::Caller, "inner", true),
        (At::Caller, "f", true),
        (At::Caller, "main", false),
        (At::Within, "main", true),
        (At::Within, "other", false),
        (At::Module, "p", true),
        (At::Module, "libc", false),
    ] {
        let differences = compare(&report, &truth(Others::None, vec![at(place, name, [1, 1, 1, 1])]));
        assert_eq!(differences.is_empty(), matches, "{place:?} {name}: {differences:?}");
    }
}

#[test]
fn arguments_are_no_part_of_a_name() {
    let report = report(vec![site(vec![frame("make(int, char)", "/p", false)], [1, 1, 1, 1])]);
    let truth = truth(Others::None, vec![at(At::Caller, "make", [1, 1, 1, 1])]);
    assert_eq!(compare(&report, &truth), Vec::<String>::new());
}

#[test]
fn a_missing_site_is_missed_unless_it_is_empty() {
    let mut report = report(vec![]);
    report.processes[0].allocated_bytes = 9;
    report.processes[0].allocations = 1;
    assert!(compare(&report, &truth(Others::None, vec![at(At::Caller, "f", [0, 0, 9, 1])])).is_empty());
    assert!(!compare(&report, &truth(Others::None, vec![at(At::Caller, "f", [0, 1, 0, 1])])).is_empty());
    // Its totals are there even if the site is not.
    assert!(!compare(&report, &truth(Others::None, vec![at(At::Caller, "f", [0, 0, 8, 1])])).is_empty());
}

#[test]
fn a_site_too_many_is_seen_as_far_as_the_truth_excludes_it() {
    let others = |module: &str| report(vec![site(vec![frame("x", module, false)], [1, 1, 1, 1])]);
    for (allowed, module, fits) in [
        (Others::None, "/lib/libc.so", false),
        (Others::Libraries, "/lib/libc.so", true),
        (Others::Libraries, "/p", false),
        (Others::Any, "/p", true),
    ] {
        let differences = compare(&others(module), &truth(allowed, vec![]));
        assert_eq!(differences.is_empty(), fits, "{allowed:?} {module}: {differences:?}");
    }
}

#[test]
fn totals_that_are_not_their_sites_are_seen() {
    let mut report = report(vec![site(vec![frame("f", "/p", false)], [1, 1, 1, 1])]);
    assert!(disagreements(&report.processes[0]).is_empty());
    report.processes[0].live_bytes = 2;
    assert_eq!(disagreements(&report.processes[0]).len(), 1);
}

#[test]
fn the_process_must_be_there_once_and_gone_if_it_is() {
    let whole = report(vec![]);
    let mut exited = truth(Others::None, vec![]);
    exited.exited = true;
    assert_eq!(compare(&whole, &exited).len(), 1);
    let mut twice = whole.clone();
    twice.processes.push(whole.processes[0].clone());
    assert_eq!(compare(&twice, &truth(Others::None, vec![])).len(), 1);
}

#[test]
fn lost_records_are_never_exact() {
    let mut report = report(vec![]);
    assert!(incompleteness(&report).is_empty());
    report.completeness.lost = 1;
    assert_eq!(incompleteness(&report).len(), 1);
    report.completeness = Completeness::default();
    assert_eq!(incompleteness(&report).len(), 1);
}

#[test]
fn a_fixture_s_line_is_a_truth() {
    let line = r#"{"pid":7,"exited":true,"others":"libraries","stacks":null,"sites":[{"kind":"heap","at":"caller",
        "name":"f","live_bytes":1,"live_allocations":null,"allocated_bytes":3,"allocations":4}]}"#;
    let truth = Truth::parse(line);
    assert_eq!((truth.pid, truth.exited, truth.others, truth.stacks), (7, true, Others::Libraries, None));
    assert_eq!(truth.totals(), [Some(1), None, Some(3), Some(4)]);
}
