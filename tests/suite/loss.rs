//! What happens when the kernel side has nowhere to put its records.

use leaktrace_tests::compile::Recipe;
use leaktrace_tests::leaktrace::Leaktrace;
use leaktrace_tests::program::Program;
use leaktrace_tests::truth::{self, TrueSite};

use super::{fixture, trace};

/// A ring of one page: 128 allocations.
const SMALLEST: [&str; 4] = ["--ring-size", "4KiB", "--kinds", "heap"];

#[test]
fn loss_is_counted_bounded_and_put_right_by_what_comes_after() {
    let Some(path) = fixture(&Recipe::new("burst.c").flags(&["-pthread"])) else { return };
    let mut program = Program::start(&path);
    let (report, truths) = trace(&mut program, Leaktrace::run().args(SMALLEST), 2);
    assert!(program.end().success());
    let shown = truth::summary(&report);

    assert!(report.completeness.lost > 0, "nothing was lost: the test proves nothing\n{shown}");
    assert!(!report.completeness.exact, "{shown}");
    assert!(!report.completeness.reasons.is_empty(), "every loss has a reason\n{shown}");
    let [process] = &report.processes[..] else { panic!("{shown}") };
    let (low, high) = (process.live_bytes_low, process.live_bytes_high);
    assert!(low.is_some_and(|low| low <= process.live_bytes), "{low:?} is the lower end\n{shown}");
    assert!(high.is_some_and(|high| high >= process.live_bytes), "{high:?} is the upper end\n{shown}");

    // What was allocated is not known to the last block, what is live is again.
    let mut settled = truths[0].clone();
    for site in &mut settled.sites {
        *site = TrueSite { allocated_bytes: None, allocations: None, ..site.clone() };
    }
    let differences = truth::compare(&report, &settled);
    assert!(differences.is_empty(), "{}\n{shown}", differences.join("\n"));
}

#[test]
fn bounds_hold_the_truth_right_after_the_burst() {
    let Some(path) = fixture(&Recipe::new("burst.c").flags(&["-pthread"])) else { return };
    let mut program = Program::start(&path);
    let (report, _) = trace(&mut program, Leaktrace::run().args(SMALLEST), 1);
    let shown = truth::summary(&report);
    let [process] = &report.processes[..] else { panic!("{shown}") };
    // In truth nothing of it is live. Libc's own blocks for two threads are less than a page.
    assert!(process.live_bytes_low.is_some_and(|low| low <= 4096), "{:?}\n{shown}", process.live_bytes_low);
    // Addresses are handed out again, so even a lossy burst leaves no more than its window behind.
    let believed: u64 = process.sites.iter().map(|site| site.live_allocations).sum();
    assert!(believed <= 200, "{believed} blocks of 600,000 are believed live\n{shown}");
    program.go();
    assert!(program.end().success());
}
