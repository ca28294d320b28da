//! From the ledger to a report: stacks become frames, sites with the same frames become one, the largest come first.
//!
//! Comes in: a [`LedgerSnapshot`], a [`Resolve`]r for its stacks, and what only the edge knows ([`Facts`]). Goes out:
//! a [`Report`] whose order depends on nothing but the numbers and names in it. Never: verdicts, which come from
//! [`super::growth`] and from scans.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use leaktrace_common::counters::Counter;
use leaktrace_common::process::Lost;
use leaktrace_common::stack::Ending;

use super::model::{Completeness, Frame, Process, Report, SCHEMA, Site, Verdict};
use super::reasons::{self, Effect};
use super::site_id::site_id;
use super::trim::allocator_frames;
use crate::event::{ProcessKey, StackId};
use crate::ledger::{LedgerSnapshot, ProcessSnapshot, SiteSnapshot};

/// Turns a stack into frames.
pub trait Resolve {
    /// The frames of a stack that `process` used, against the mappings of the time at which it was taken.
    fn frames(&mut self, process: ProcessKey, stack: StackId) -> Resolved;
}

/// A resolved stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Innermost first, inlined ones before the one they are inlined into, the allocator's own included. Empty if
    /// the stack's addresses never arrived.
    pub frames: Vec<Frame>,
    /// Why there are no more.
    pub ending: Ending,
}

/// What the edge knows about a run, and how it wants the report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// How long was traced.
    pub duration: Duration,
    /// Events that were recorded.
    pub events: u64,
    /// The kernel side's counters by name ([`Counter::name`]), and the agent's own reasons for losses. A name that
    /// is no [`Counter`]'s counts as lost records.
    pub counters: BTreeMap<String, u64>,
    /// What a person should know: probes that could not be attached, processes that were seen late.
    pub warnings: Vec<String>,
    /// Whether something was traced less than asked: sampled, seen late, or a probe could not be attached.
    pub degraded: bool,
    /// What is known about the processes of the snapshot.
    pub processes: HashMap<ProcessKey, ProcessFacts>,
    /// Keep the allocator's own frames (`operator new`, `__rust_alloc`, …) at the top of the stacks.
    pub keep_allocator_frames: bool,
}

/// What the edge knows about a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessFacts {
    /// Path of its executable.
    pub exe: String,
    /// Resident memory; `None` once it is gone.
    pub rss_bytes: Option<u64>,
}

impl Facts {
    fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter.name()).copied().unwrap_or(0)
    }
}

/// Builds the report. Every verdict in it is [`Verdict::Unknown`].
pub fn build(snapshot: &LedgerSnapshot, resolver: &mut dyn Resolve, facts: &Facts) -> Report {
    let completeness = completeness(snapshot, facts);
    let mut processes: Vec<_> = snapshot
        .processes
        .iter()
        .map(|process| self::process(process, resolver, facts, completeness.lost))
        .collect();
    processes.sort_by(|a, b| {
        let numbers = b.live_bytes.cmp(&a.live_bytes).then(b.allocated_bytes.cmp(&a.allocated_bytes));
        numbers.then_with(|| a.comm.cmp(&b.comm)).then((a.pid, a.start_time).cmp(&(b.pid, b.start_time)))
    });
    Report {
        schema: SCHEMA.to_owned(),
        kind: "report".to_owned(),
        duration_ns: nanoseconds(facts.duration),
        completeness,
        processes,
    }
}

fn completeness(snapshot: &LedgerSnapshot, facts: &Facts) -> Completeness {
    let mut counts = facts.counters.clone();
    for process in &snapshot.processes {
        let no_stack = process.sites.iter().filter(|site| site.stack.is_none()).map(|site| site.allocations);
        for (name, count) in [
            (reasons::ledger::UNMATCHED_FREES, process.unmatched_frees),
            (reasons::ledger::REPLACED, process.replaced),
            (reasons::ledger::UNTRACKED, process.untracked),
            (reasons::ledger::NO_STACK, no_stack.sum()),
        ] {
            *counts.entry(name.to_owned()).or_default() += count;
        }
    }
    counts.retain(|name, count| *count > 0 && reasons::reason(name).is_some());

    let sum = |effect| -> u64 {
        let of_effect = |name: &&String| reasons::reason(name).is_some_and(|reason| reason.effect == effect);
        counts.keys().filter(of_effect).map(|name| counts[name]).sum()
    };
    let lost = sum(Effect::Lost);
    Completeness {
        events: facts.events,
        lost,
        unmatched_frees: counts.get(reasons::ledger::UNMATCHED_FREES).copied().unwrap_or(0),
        truncated_stacks: facts.counter(Counter::StackTooDeep)
            + facts.counter(Counter::StackBroken)
            + facts.counter(Counter::StackUnreadable),
        exact: lost == 0 && sum(Effect::Late) == 0 && !facts.degraded,
        reasons: counts,
        warnings: facts.warnings.clone(),
    }
}

fn process(process: &ProcessSnapshot, resolver: &mut dyn Resolve, facts: &Facts, lost: u64) -> Process {
    let sites = sites(process, resolver, facts.keep_allocator_frames);
    let sum = |number: fn(&Site) -> u64| sites.iter().map(number).fold(0, u64::saturating_add);
    let live_bytes = sum(|site| site.live_bytes);
    let known = facts.processes.get(&process.key);
    let (live_bytes_low, live_bytes_high) = bounds(process, live_bytes, lost).unzip();
    Process {
        pid: process.key.pid.0,
        start_time: process.key.start_ns,
        comm: process.comm.0.clone(),
        exe: known.map(|known| known.exe.clone()).unwrap_or_default(),
        exited: process.exited,
        rss_bytes: known.and_then(|known| known.rss_bytes).filter(|_| !process.exited),
        live_bytes,
        live_allocations: sum(|site| site.live_allocations),
        allocated_bytes: sum(|site| site.allocated_bytes),
        allocations: sum(|site| site.allocations),
        live_bytes_low,
        live_bytes_high,
        sites,
    }
}

/// Between which numbers the outstanding bytes of a process are.
///
/// - low = live − what the lost frees can have freed at most (`doubtful_bytes`);
/// - high = live + bytes of the lost allocations + bytes of the untracked ones, as if none had been freed.
///
/// The kernel side tells a process's losses at its exit. Of a process that lives on while records were lost for
/// somebody, and that no loss is known of, the bounds are unknown.
fn bounds(process: &ProcessSnapshot, live_bytes: u64, lost_by_all: u64) -> Option<(u64, u64)> {
    if lost_by_all > 0 && !process.exited && process.lost == Lost::default() {
        return None;
    }
    let low = live_bytes.saturating_sub(process.doubtful_bytes);
    let high = live_bytes.saturating_add(process.lost.alloc_bytes).saturating_add(process.untracked_bytes);
    Some((low, high))
}

/// Resolves the sites of a process and merges those that differ only in where their code was mapped.
fn sites(process: &ProcessSnapshot, resolver: &mut dyn Resolve, keep_allocator_frames: bool) -> Vec<Site> {
    let mut snapshots: Vec<_> = process.sites.iter().collect();
    // The ledger's order is not one: without this, it would decide whose addresses a merged site shows.
    snapshots.sort_unstable_by_key(|site| (site.kind, site.stack));

    let mut sites: Vec<Site> = Vec::with_capacity(snapshots.len());
    let mut by_id = HashMap::with_capacity(snapshots.len());
    for snapshot in snapshots {
        let resolved = match snapshot.stack {
            Some(stack) => resolver.frames(process.key, stack),
            None => Resolved { frames: Vec::new(), ending: Ending::Complete },
        };
        let id = site_id(snapshot.kind, &resolved.frames);
        let site = site(id, snapshot, resolved, keep_allocator_frames);
        match by_id.entry(id) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(sites.len());
                sites.push(site);
            }
            std::collections::hash_map::Entry::Occupied(entry) => merge(&mut sites[*entry.get()], site),
        }
    }
    sites.sort_by(|a, b| {
        let numbers = (b.live_bytes, b.live_allocations, b.allocated_bytes, b.allocations).cmp(&(
            a.live_bytes,
            a.live_allocations,
            a.allocated_bytes,
            a.allocations,
        ));
        numbers.then_with(|| a.site_id.cmp(&b.site_id))
    });
    sites
}

fn site(id: u64, snapshot: &SiteSnapshot, resolved: Resolved, keep_allocator_frames: bool) -> Site {
    let Resolved { mut frames, ending } = resolved;
    let truncated = match ending {
        _ if frames.is_empty() => Some("no_stack"),
        Ending::Complete => None,
        Ending::TooDeep => Some("too_deep"),
        Ending::Broken => Some("broken"),
        Ending::Unreadable => Some("unreadable"),
    };
    if !keep_allocator_frames {
        frames.drain(..allocator_frames(snapshot.kind, &frames));
    }
    Site {
        site_id: format!("{id:016x}"),
        kind: snapshot.kind.name().to_owned(),
        live_bytes: snapshot.live_bytes,
        live_allocations: snapshot.live_allocations,
        allocated_bytes: snapshot.allocated_bytes,
        allocations: snapshot.allocations,
        oldest_age_ns: snapshot.oldest_age.map_or(0, nanoseconds),
        growth_bytes_per_s: None,
        verdict: Verdict::Unknown,
        truncated: truncated.map(str::to_owned),
        frames,
    }
}

fn merge(site: &mut Site, same: Site) {
    site.live_bytes = site.live_bytes.saturating_add(same.live_bytes);
    site.live_allocations = site.live_allocations.saturating_add(same.live_allocations);
    site.allocated_bytes = site.allocated_bytes.saturating_add(same.allocated_bytes);
    site.allocations = site.allocations.saturating_add(same.allocations);
    site.oldest_age_ns = site.oldest_age_ns.max(same.oldest_age_ns);
    site.truncated = site.truncated.take().or(same.truncated);
}

/// 584 years are enough.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;
    use crate::report::sample::{self, Stacks, frame};

    fn built(process: ProcessSnapshot, stacks: &mut Stacks, facts: &Facts) -> Report {
        build(&LedgerSnapshot { processes: vec![process] }, stacks, facts)
    }

    /// The same two frames, mapped elsewhere.
    fn mapped_at(base: u64) -> Vec<Frame> {
        let mut frames =
            vec![frame("f", "/lib/plugin.so", 0x10, None), frame("main", "/bin/app", 0x20, None)];
        frames[0].address = format!("{:#x}", base + 0x10);
        frames
    }

    #[test]
    fn sites_with_the_same_path_are_one() {
        let mut stacks = Stacks::default();
        stacks.add(1, Ending::Complete, mapped_at(0x7f00_0000_0000));
        stacks.add(2, Ending::Complete, mapped_at(0x7e00_0000_0000));
        stacks.add(3, Ending::Complete, mapped_at(0)[..1].to_vec());
        let mut process = sample::process(1, "app");
        process.sites = vec![
            sample::site(Kind::Heap, 2, 10, 1),
            sample::site(Kind::Heap, 1, 30, 2),
            sample::site(Kind::Mmap, 1, 7, 1),
            sample::site(Kind::Heap, 3, 5, 1),
        ];
        process.sites[0].oldest_age = Some(Duration::from_secs(90));
        let mut reversed = process.clone();
        reversed.sites.reverse();

        let report = built(process, &mut stacks, &Facts::default());
        let process = &report.processes[0];
        assert_eq!((process.live_bytes, process.live_allocations), (52, 5));
        assert_eq!((process.allocated_bytes, process.allocations), (104, 10));
        let live: Vec<_> = process.sites.iter().map(|site| (site.live_bytes, site.kind.as_str())).collect();
        assert_eq!(live, [(40, "heap"), (7, "mmap"), (5, "heap")]);
        assert_eq!(process.sites[0].oldest_age_ns, 90_000_000_000);
        assert_eq!(process.sites[0].frames[0].address, "0x7f0000000010");
        assert_eq!(built(reversed, &mut stacks, &Facts::default()), report, "the ledger's order is no order");
    }

    #[test]
    fn the_allocators_frames_are_left_out_unless_asked_for() {
        let mut stacks = Stacks::default();
        let frames = vec![
            frame("operator new(unsigned long)", "/lib/libstdc++.so.6", 1, None),
            frame("f", "/a", 2, None),
        ];
        stacks.add(1, Ending::Complete, frames);
        let mut process = sample::process(1, "app");
        process.sites = vec![sample::site(Kind::Heap, 1, 10, 1)];
        let trimmed = built(process.clone(), &mut stacks, &Facts::default());
        let kept = built(process, &mut stacks, &Facts { keep_allocator_frames: true, ..Facts::default() });
        let (trimmed, kept) = (&trimmed.processes[0].sites[0], &kept.processes[0].sites[0]);
        assert_eq!(trimmed.frames[0].function.as_deref(), Some("f"));
        assert_eq!(kept.frames.len(), 2);
        assert_eq!(trimmed.site_id, kept.site_id, "the site is the same");
    }

    #[test]
    fn the_largest_come_first() {
        let mut stacks = Stacks::default();
        stacks.add(1, Ending::Complete, mapped_at(0));
        let with = |pid, comm: &str, bytes| {
            let mut process = sample::process(pid, comm);
            process.sites = vec![sample::site(Kind::Heap, 1, bytes, 1)];
            process
        };
        let processes = vec![with(1, "b", 5), with(2, "a", 5), with(4, "c", 90), with(3, "a", 5)];
        let report = build(&LedgerSnapshot { processes }, &mut stacks, &Facts::default());
        let order: Vec<_> = report.processes.iter().map(|process| process.pid).collect();
        assert_eq!(order, [4, 2, 3, 1]);
    }

    #[test]
    fn losses_become_bounds() {
        let report = sample::report();
        let worker = report.processes.iter().find(|process| process.comm == "worker").unwrap();
        assert_eq!(worker.live_bytes, 3072);
        assert_eq!(worker.live_bytes_low, Some(3072 - 1024));
        assert_eq!(worker.live_bytes_high, Some(3072 + 4096 + 512));
        assert_eq!(worker.rss_bytes, None, "it is gone");
        let redis = report.processes.iter().find(|process| process.comm == "redis-server").unwrap();
        assert_eq!(
            (redis.live_bytes_low, redis.live_bytes_high),
            (None, None),
            "its losses come at its exit"
        );
        assert_eq!(redis.rss_bytes, Some(47_290_777));

        let exact = sample::exact_report();
        let process = &exact.processes[0];
        assert_eq!(process.live_bytes_low, Some(process.live_bytes));
        assert_eq!(process.live_bytes_high, Some(process.live_bytes));
    }

    #[test]
    fn every_reason_is_counted_once() {
        let completeness = sample::report().completeness;
        assert_eq!((completeness.events, completeness.lost), (4321, 3));
        assert_eq!((completeness.unmatched_frees, completeness.truncated_stacks), (17, 3));
        let reasons: Vec<_> =
            completeness.reasons.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        let expected = [
            ("no_stack", 6),
            ("replaced", 1),
            ("ring_full_alloc", 2),
            ("ring_full_free", 1),
            ("stack_broken", 1),
            ("stack_too_deep", 2),
            ("unmatched_frees", 17),
            ("untracked", 1),
        ];
        assert_eq!(reasons, expected);
    }

    #[test]
    fn exact_is_what_lost_nothing() {
        let exact = |change: &dyn Fn(&mut ProcessSnapshot, &mut Facts)| {
            let (mut process, mut facts) = (sample::process(1, "app"), Facts::default());
            process.sites = vec![sample::site(Kind::Heap, 0, 10, 1)];
            change(&mut process, &mut facts);
            built(process, &mut Stacks::default(), &facts).completeness.exact
        };
        let counter = |counter: Counter| {
            exact(&|_, facts| {
                facts.counters.insert(counter.name().to_owned(), 1);
            })
        };
        assert!(exact(&|_, _| {}));
        assert!(exact(&|process, _| process.unmatched_frees = 9), "blocks older than the tracing");
        assert!(counter(Counter::Holds) && counter(Counter::StackBroken));
        assert!(!exact(&|process, _| process.untracked = 1));
        assert!(!exact(&|_, facts| facts.degraded = true));
        assert!(!counter(Counter::RingFullFree));
        assert!(counter(Counter::Unheld));
        assert!(!exact(&|_, facts| {
            facts.counters.insert("late_probes".to_owned(), 1);
        }));
        assert!(!counter(Counter::ProcessesFull));
        assert!(!exact(&|_, facts| {
            facts.counters.insert("cosmic_rays".to_owned(), 1);
        }));
    }

    #[test]
    fn why_a_stack_ends_is_told() {
        let mut stacks = Stacks::default();
        for (id, ending) in
            [(1, Ending::Complete), (2, Ending::TooDeep), (3, Ending::Broken), (4, Ending::Unreadable)]
        {
            stacks.add(id, ending, vec![frame("f", "/bin/app", id, None)]);
        }
        let mut process = sample::process(1, "app");
        process.sites = (0..=5).map(|id| sample::site(Kind::Heap, id, 100 - id, 1)).collect();
        let report = built(process, &mut stacks, &Facts::default());
        let endings: Vec<_> =
            report.processes[0].sites.iter().map(|site| site.truncated.as_deref()).collect();
        // No stack, and a stack whose frames never came, are the same unknown site.
        assert_eq!(endings, [Some("no_stack"), None, Some("too_deep"), Some("broken"), Some("unreadable")]);
        assert_eq!(report.processes[0].sites[0].live_bytes, 100 + 95);
    }
}
