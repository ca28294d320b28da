//! What changes a whole machine, and so is for a virtual one: `cargo xtask vm-test` runs these, `cargo xtask test`
//! ignores them.

use std::process::{Child, Command};
use std::time::Duration;

use leaktrace_tests::breakpoints;
use leaktrace_tests::compile::Recipe;
use leaktrace_tests::leaktrace::Leaktrace;
use leaktrace_tests::program::{Program, truths_of};
use leaktrace_tests::tracefs;
use leaktrace_tests::truth;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::{fixture, within};

/// As in `side_effects`.
const TIDY: Duration = Duration::from_secs(15);

fn steady() -> Recipe {
    Recipe::new("steady.c").flags(&["-pthread"])
}

#[test]
#[ignore = "probes the libc of the whole machine: only in a virtual one"]
fn everyone_else_on_the_same_libc_works_on_unprobed() {
    let (Some(path), Some(short)) = (fixture(&steady()), fixture(&Recipe::new("short.c"))) else { return };
    let mut others: Vec<_> = (0..4).map(|_| Program::start(&path)).collect();
    let mut traced = Program::start(&path);
    let session = Leaktrace::run().pid(traced.pid()).start().ready();
    traced.go();
    for other in &mut others {
        other.go();
        assert_eq!(breakpoints::in_process(other.pid()), [], "a process that is not traced");
    }
    for _ in 0..20 {
        let run = Command::new(&short).arg("now").output().expect("a fixture runs");
        assert_eq!(truths_of(&String::from_utf8_lossy(&run.stdout)).len(), 1);
    }
    // What the machine's own programs do with that libc goes on as ever.
    let listed = Command::new("sh").args(["-c", "cat /proc/*/comm 2>/dev/null"]).output().expect("sh runs");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("leaktrace"));
    let truths = traced.go();
    let report = session.stop().report();
    truth::assert_exact(&report, &truths);
    assert_eq!(report.processes.len(), 1, "{}", truth::summary(&report));
    assert_eq!(breakpoints::in_process(traced.pid()), [], "nothing is left");
    assert!(traced.end().success());
    for mut other in others {
        other.go();
        assert!(other.end().success());
    }
}

/// A process that does nothing but use a CPU; ends when dropped.
struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        // It has no reason to be gone; if it is, all the better.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "kills agents while the machine is busy: only in a virtual one"]
fn agents_killed_under_load_leave_a_machine_that_can_be_traced() {
    let Some(path) = fixture(&steady()) else { return };
    let _busy = Busy(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("sh runs"));
    let before = tracefs::uprobe_events();
    for wait in [0, 20, 100, 300] {
        let mut program = Program::start(&path);
        let mut session = Leaktrace::run().pid(program.pid()).start().ready();
        program.go();
        std::thread::sleep(Duration::from_millis(wait));
        session.kill();
        assert!(program.go()[0].totals()[1] > Some(0), "the target works on");
        assert!(within(TIDY, || breakpoints::in_process(program.pid()).is_empty()));
        assert!(program.end().success());
    }
    assert!(within(TIDY, || tracefs::uprobe_events() == before), "{:?}", tracefs::uprobe_events());
    let mut program = Program::start(&path);
    let session = Leaktrace::run().pid(program.pid()).start().ready();
    program.go();
    let truths = program.go();
    truth::assert_exact(&session.stop().report(), &truths);
    assert!(program.end().success());
}

#[test]
#[ignore = "mounts a file system: only in a virtual machine"]
fn a_full_disk_is_an_error_that_names_the_file_and_harms_nobody() {
    let Some(path) = fixture(&Recipe::new("functions.c")) else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    mount("none", directory.path(), "tmpfs", MountFlags::empty(), Some(c"size=4k")).expect("root may mount");
    let output = directory.path().join("report.json");
    let mut program = Program::start(&path);
    let pid = program.pid().to_string();
    let mut run = Leaktrace::new(["run", "--format", "json", "--min-age", "0s", "--pid", &pid, "--output"]);
    run = run.args([&output]);
    let session = run.start().ready();
    program.go();
    let run = session.stop();
    let left = std::fs::read(&output).unwrap_or_default();
    unmount(directory.path(), UnmountFlags::empty()).expect("nothing is open there any more");
    assert_eq!(run.code, Some(1), "it said:\n{}", run.stderr);
    assert!(run.stderr.contains("report.json") && run.stderr.contains("space"), "{}", run.stderr);
    assert!(left.is_empty(), "half a report is left:\n{}", String::from_utf8_lossy(&left));
    assert!(program.end().success());
}

#[test]
#[ignore = "sets the clock: only in a virtual machine"]
fn a_clock_that_jumps_changes_no_age_and_no_duration() {
    const DAY: i64 = 24 * 60 * 60;
    let Some(path) = fixture(&steady()) else { return };
    let jump = |by: i64| {
        let now = clock_gettime(ClockId::Realtime);
        clock_settime(ClockId::Realtime, Timespec { tv_sec: now.tv_sec + by, ..now }).expect("root may");
    };
    let start = std::time::Instant::now();
    let mut program = Program::start(&path);
    let session = Leaktrace::run().args(["--interval", "1s"]).pid(program.pid()).start().ready();
    program.go();
    jump(DAY);
    std::thread::sleep(Duration::from_secs(2));
    jump(-2 * DAY);
    std::thread::sleep(Duration::from_secs(2));
    let truths = program.go();
    let report = session.stop().report();
    jump(DAY);
    truth::assert_exact(&report, &truths);
    let longest = start.elapsed().as_nanos() as u64;
    assert!(report.duration_ns <= longest, "{} ns of {longest}", report.duration_ns);
    for site in report.processes.iter().flat_map(|process| &process.sites) {
        assert!(site.oldest_age_ns <= longest, "{site:?}");
    }
    assert!(program.end().success());
}
