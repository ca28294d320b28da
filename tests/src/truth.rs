//! What a fixture says about itself, and whether a report agrees, to the byte and block.
//!
//! Comes in: truths and a report. Goes out: the differences, each in words. Never: a tolerance.
//!
//! A site of the truth is found by its function (`caller`: the function of `frames[0]`; `within`: any frame's) or
//! by the file that it is in (`module`); a report's sites with the same function are added up. A site with nothing
//! outstanding may be left out of the report.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use leaktrace::report::model::{Completeness, Frame, Process, Report, Site};
use serde::Deserialize;

use crate::environment;

/// The truth about one process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Truth {
    /// Its pid.
    pub pid: u32,
    /// Whether it is gone for sure.
    pub exited: bool,
    /// What the report may hold beside [`Self::sites`].
    pub others: Others,
    /// Number of sites that the report has, if that is fixed.
    pub stacks: Option<usize>,
    /// Sites.
    pub sites: Vec<TrueSite>,
}

/// Which sites the report may have beside those of the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Others {
    /// None; the totals of the process are those of the truth.
    None,
    /// Those called from a shared library.
    Libraries,
    /// Whatever there is.
    Any,
}

/// How a site of the truth is found in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// The caller of the allocation function, or a function inlined into it, has the name.
    Caller,
    /// Any frame has the name.
    Within,
    /// The caller of the allocation function is in a file whose path contains the name.
    Module,
}

/// A site of the truth; a number that is `None` is not fixed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of `leaktrace::report::model::Site`")]
pub struct TrueSite {
    pub kind: String,
    pub at: At,
    pub name: String,
    pub live_bytes: Option<u64>,
    pub live_allocations: Option<u64>,
    pub allocated_bytes: Option<u64>,
    pub allocations: Option<u64>,
}

/// The four numbers of a site: live bytes and blocks, allocated bytes and blocks.
type Numbers = [u64; 4];

const NAMES: [&str; 4] = ["live_bytes", "live_allocations", "allocated_bytes", "allocations"];

impl Truth {
    /// Of a line of a fixture.
    pub fn parse(json: &str) -> Self {
        serde_json::from_str(json).unwrap_or_else(|e| panic!("not a truth: {e}\n{json}"))
    }

    /// The totals, where all sites fix them.
    pub fn totals(&self) -> [Option<u64>; 4] {
        self.sites.iter().fold([Some(0); 4], |sums, site| {
            let numbers = site.numbers();
            std::array::from_fn(|i| Some(sums[i]? + numbers[i]?))
        })
    }
}

impl TrueSite {
    fn numbers(&self) -> [Option<u64>; 4] {
        [self.live_bytes, self.live_allocations, self.allocated_bytes, self.allocations]
    }

    fn is(&self, site: &Site) -> bool {
        self.kind == site.kind
            && match self.at {
                At::Caller => caller(&site.frames).iter().any(|frame| has_name(frame, &self.name)),
                At::Within => site.frames.iter().any(|frame| has_name(frame, &self.name)),
                At::Module => site.frames.first().is_some_and(|frame| frame.module.contains(&self.name)),
            }
    }
}

/// The frames of the first return address: what was inlined there, and the function itself.
fn caller(frames: &[Frame]) -> &[Frame] {
    let whole = frames.iter().position(|frame| !frame.inlined).map_or(frames.len(), |last| last + 1);
    &frames[..whole]
}

/// A demangled name has its arguments with it.
fn has_name(frame: &Frame, name: &str) -> bool {
    frame.function.as_deref().is_some_and(|function| function.split('(').next() == Some(name))
}

/// Panics unless the report is complete and holds each truth, and nothing that the truths exclude.
pub fn assert_exact(report: &Report, truths: &[Truth]) {
    assert!(!truths.is_empty(), "a truth to compare with");
    let mut differences = incompleteness(report);
    for truth in in_time(report, truths) {
        differences.extend(compare(report, truth));
    }
    assert!(differences.is_empty(), "{}\n{}", differences.join("\n"), summary(report));
}

/// Why a report does not claim to be exact.
fn incompleteness(report: &Report) -> Vec<String> {
    let completeness = &report.completeness;
    let exact = completeness.exact || environment::is_slow() && is_only_late(completeness);
    if exact && completeness.lost == 0 { Vec::new() } else { vec![format!("{completeness:?}")] }
}

/// The truths that the report must hold: all, but where a CPU is emulated not those of processes that the report
/// names as late, if others are left. There the wait of a new process may end before the agent gets to answer.
fn in_time<'a>(report: &Report, truths: &'a [Truth]) -> Vec<&'a Truth> {
    let named = |pid: u32| report.completeness.warnings.iter().any(|text| text.contains(&pid.to_string()));
    let in_time: Vec<_> =
        truths.iter().filter(|truth| !(environment::is_slow() && named(truth.pid))).collect();
    if in_time.is_empty() { truths.iter().collect() } else { in_time }
}

/// Whether nothing but late probes keeps a report from being exact, and it says so.
fn is_only_late(completeness: &Completeness) -> bool {
    let harmless = |reason: &String| reason == "late_probes" || reason.starts_with("stack_");
    !completeness.warnings.is_empty() && completeness.reasons.keys().all(harmless)
}

/// Where the report differs from the truth about one process.
pub fn compare(report: &Report, truth: &Truth) -> Vec<String> {
    let pid = truth.pid;
    let found: Vec<&Process> = report.processes.iter().filter(|process| process.pid == pid).collect();
    let [process] = found[..] else {
        return vec![format!("pid {pid} is {} times in the report", found.len())];
    };
    let mut differences = disagreements(process);
    if truth.exited && !process.exited {
        differences.push(format!("pid {pid} exited, but not in the report"));
    }
    if let Some(stacks) = truth.stacks.filter(|&stacks| stacks != process.sites.len()) {
        differences.push(format!("pid {pid} has {} sites, not {stacks}", process.sites.len()));
    }
    let mut sums: BTreeMap<usize, Numbers> = BTreeMap::new();
    for site in &process.sites {
        let matching = truth.sites.iter().enumerate().filter(|(_, of_truth)| of_truth.is(site));
        match matching.min_by_key(|(_, of_truth)| of_truth.at) {
            Some((index, _)) => add(sums.entry(index).or_default(), site),
            None if truth.others.allow(process, site) => {}
            None => differences.push(format!("pid {pid} has a site too many: {}", describe(site))),
        }
    }
    for (index, of_truth) in truth.sites.iter().enumerate() {
        let live = (of_truth.live_bytes, of_truth.live_allocations) != (Some(0), Some(0));
        match sums.get(&index) {
            Some(sum) => {
                let place = format!("pid {pid}, {} in {}", of_truth.kind, of_truth.name);
                differences.extend(unequal(&place, *sum, of_truth.numbers()));
            }
            None if live => differences.push(format!("pid {pid} has no site {of_truth:?}")),
            None => {}
        }
    }
    if truth.others == Others::None {
        differences.extend(unequal(&format!("pid {pid} in total"), totals(process), truth.totals()));
    }
    differences
}

/// Where a process's totals are not the sums of its sites.
pub fn disagreements(process: &Process) -> Vec<String> {
    let mut sum = Numbers::default();
    for site in &process.sites {
        add(&mut sum, site);
    }
    // What is not outstanding may be left out of the sites, so they may have allocated less.
    let [live_bytes, live_allocations, ..] = sum.map(Some);
    unequal(
        &format!("pid {}, total against sites", process.pid),
        totals(process),
        [live_bytes, live_allocations, None, None],
    )
}

impl Others {
    fn allow(self, process: &Process, site: &Site) -> bool {
        match self {
            Self::None => false,
            Self::Libraries => site.frames.first().is_none_or(|frame| frame.module != process.exe),
            Self::Any => true,
        }
    }
}

fn totals(process: &Process) -> Numbers {
    [process.live_bytes, process.live_allocations, process.allocated_bytes, process.allocations]
}

fn add(sum: &mut Numbers, site: &Site) {
    let numbers = [site.live_bytes, site.live_allocations, site.allocated_bytes, site.allocations];
    sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
}

fn unequal(place: &str, found: Numbers, expected: [Option<u64>; 4]) -> Vec<String> {
    (0..4)
        .filter_map(|i| expected[i].filter(|&n| n != found[i]).map(|n| (NAMES[i], found[i], n)))
        .map(|(name, found, expected)| format!("{place}: {name} is {found}, in truth {expected}"))
        .collect()
}

fn describe(site: &Site) -> String {
    let frames: Vec<String> = site
        .frames
        .iter()
        .take(4)
        .map(|frame| format!("{}!{}", frame.module, frame.function.as_deref().unwrap_or(&frame.offset)))
        .collect();
    format!(
        "{} {} B live in {}, {} B in {} at {}",
        site.kind,
        site.live_bytes,
        site.live_allocations,
        site.allocated_bytes,
        site.allocations,
        frames.join(" < ")
    )
}

/// A report as a failed test shows it.
pub fn summary(report: &Report) -> String {
    let mut text = format!("report: {:?}\n", report.completeness);
    for process in &report.processes {
        let Process { pid, comm, exe, exited, .. } = process;
        let _ = writeln!(text, "  {pid} {comm} {exe} exited={exited} {:?}", totals(process));
        for site in process.sites.iter().take(30) {
            let _ = writeln!(text, "    {}", describe(site));
        }
    }
    text
}

#[cfg(test)]
mod tests;
