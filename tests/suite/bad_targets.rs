//! Targets that cannot be traced, or not for long: a clear word, never a wrong number, never a hang.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use leaktrace_tests::compile::Recipe;
use leaktrace_tests::environment;
use leaktrace_tests::leaktrace::{Finished, Leaktrace};
use leaktrace_tests::program::Program;

use super::fixture;

/// leaktrace failed, and the message names what it failed on.
fn assert_fails(run: &Finished, named: &str) {
    assert_eq!(run.code, Some(1), "it said:\n{}", run.stderr);
    assert!(run.stderr.contains(named), "no word of `{named}` in:\n{}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
}

#[test]
fn a_dead_pid() {
    if !environment::root() {
        return;
    }
    let mut child = Command::new("true").spawn().expect("`true` starts");
    child.wait().expect("a child can be waited for");
    let pid = child.id();
    assert_fails(&Leaktrace::run().pid(pid).finish(), &pid.to_string());
}

#[test]
fn a_zombie() {
    if !environment::root() {
        return;
    }
    let mut child = Command::new("true").stdin(Stdio::null()).spawn().expect("`true` starts");
    let pid = child.id();
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a zombie is in /proc");
    assert!(super::within(Duration::from_secs(10), || state().contains(") Z ")));
    assert_fails(&Leaktrace::run().pid(pid).finish(), &pid.to_string());
    child.wait().expect("a child can be waited for");
}

#[test]
fn a_kernel_thread() {
    if !environment::root() {
        return;
    }
    let status = std::fs::read_to_string("/proc/2/status").unwrap_or_default();
    if !status.contains("kthreadd") {
        environment::missing("pid 2 is no kernel thread here");
        return;
    }
    assert_fails(&Leaktrace::run().pid(2).args(["--duration", "2s"]).finish(), "kernel thread");
}

#[test]
fn a_32_bit_program() {
    let Some(path) = fixture(&Recipe::new("bits32.c").freestanding_32_bit()) else { return };
    let mut program = match Command::new(&path).stdin(Stdio::null()).stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Program::start(&path),
        _ => {
            environment::missing("this kernel runs no 32-bit programs");
            return;
        }
    };
    assert_fails(&Leaktrace::run().pid(program.pid()).args(["--duration", "2s"]).finish(), "32-bit");
    program.kill();
}

#[test]
fn a_program_without_symbols() {
    let flags = ["-pthread", "-static", "-s", "-DOTHERS=ANY"];
    let Some(path) = fixture(&Recipe::new("allocators.c").named("stripped").flags(&flags)) else { return };
    let mut program = Program::start(&path);
    let mut session = Leaktrace::run().pid(program.pid()).args(["--duration", "3s"]).start();
    // Ready or failed; either way the program must work on.
    let ready = session.says(|line| line.starts_with("ready")).is_ok();
    program.go();
    let run = session.finish();
    if ready {
        let completeness = run.report().completeness;
        assert!(!completeness.exact, "no allocation function was found, so nothing is exact");
        assert!(completeness.warnings.iter().any(|warning| warning.contains("alloc")), "{completeness:?}");
    } else {
        assert_fails(&run, "alloc");
    }
    assert!(program.end().success());
}

#[test]
fn a_target_that_exits_while_it_is_attached_to() {
    let Some(path) = fixture(&Recipe::new("short.c")) else { return };
    for milliseconds in [0, 2, 5, 10, 20, 40, 80, 160, 320] {
        let mut program = Program::start(&path);
        let pid = program.pid();
        let session = Leaktrace::run().pid(pid).start();
        std::thread::sleep(Duration::from_millis(milliseconds));
        program.kill();
        let run = session.finish();
        match run.code {
            Some(0) => assert!(run.report().processes.iter().all(|process| process.exited)),
            _ => assert_fails(&run, &pid.to_string()),
        }
    }
}

#[test]
fn a_target_that_is_attached_to_while_it_allocates() {
    let Some(path) = fixture(&Recipe::new("steady.c").flags(&["-pthread"])) else { return };
    for _ in 0..5 {
        let mut program = Program::start(&path);
        program.go();
        let session = Leaktrace::run().pid(program.pid()).start().ready();
        let report = session.stop().report();
        assert_eq!(report.completeness.lost, 0);
        assert_eq!(program.go().len(), 1);
        let status = program.end();
        assert_eq!((status.code(), status.signal()), (Some(0), None));
    }
}

#[test]
fn a_command_that_is_not_there() {
    if !environment::root() {
        return;
    }
    assert_fails(&Leaktrace::run().command(["/no/such/program"]).finish(), "/no/such/program");
}
