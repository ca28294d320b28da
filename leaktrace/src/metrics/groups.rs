//! Sums over the processes of one name that never go backwards, whoever exits.
//!
//! Comes in: the totals of every process, at every interval. Goes out: [`Totals`]. Never: more groups than the limit;
//! the names of a host's processes are not bounded, a monitoring system's series must be.

use std::collections::{BTreeMap, HashMap};

use super::snapshot::{Group, KindTotals, Totals};
use crate::event::{Kind, ProcessKey};
use crate::ledger::ProcessSnapshot;

/// The group of all processes whose name came when there was no room for another. A process of this very name is
/// counted here too.
pub const OTHER: &str = "other";

/// Groups with a name of their own.
pub const DEFAULT_LIMIT: usize = 200;

/// One process at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessTotals {
    /// Which.
    pub key: ProcessKey,
    /// Its name at that moment.
    pub comm: String,
    /// Whether it is gone.
    pub exited: bool,
    /// Resident memory, if known.
    pub resident_bytes: Option<u64>,
    /// By kind of memory.
    pub kinds: BTreeMap<Kind, KindTotals>,
    /// Frees of blocks that the ledger never saw.
    pub unmatched_frees: u64,
    /// Blocks whose address was handed out again before their free was seen.
    pub replaced: u64,
    /// Allocations that the ledger had no room for.
    pub untracked: u64,
}

impl ProcessTotals {
    /// Sums over the sites of a process.
    pub fn of(process: &ProcessSnapshot, resident_bytes: Option<u64>) -> Self {
        let mut kinds: BTreeMap<Kind, KindTotals> = BTreeMap::new();
        for site in &process.sites {
            let totals = kinds.entry(site.kind).or_default();
            totals.live_bytes += site.live_bytes;
            totals.live_allocations += site.live_allocations;
            totals.allocated_bytes += site.allocated_bytes;
            totals.allocations += site.allocations;
        }
        Self {
            key: process.key,
            comm: process.comm.0.clone(),
            exited: process.exited,
            resident_bytes,
            kinds,
            unmatched_frees: process.unmatched_frees,
            replaced: process.replaced,
            untracked: process.untracked,
        }
    }
}

/// The sums so far.
///
/// What a process adds to its group's counters is the difference to what it had added before. So nothing is lost when
/// it exits, nor when the ledger forgets it; and when it runs a new program, its old name keeps what it counted.
#[derive(Debug)]
pub struct GroupTotals {
    limit: usize,
    groups: BTreeMap<String, Group>,
    /// What each known process has added so far.
    added: HashMap<ProcessKey, Added>,
    capped: u64,
    unmatched_frees: u64,
    replaced: u64,
    untracked: u64,
}

/// What a process has added to the counters.
#[derive(Debug, Default)]
struct Added {
    kinds: BTreeMap<Kind, KindTotals>,
    unmatched_frees: u64,
    replaced: u64,
    untracked: u64,
    capped: bool,
}

impl GroupTotals {
    /// No process yet; at most `limit` groups beside [`OTHER`].
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            groups: BTreeMap::new(),
            added: HashMap::new(),
            capped: 0,
            unmatched_frees: 0,
            replaced: 0,
            untracked: 0,
        }
    }

    /// Takes in the totals of all processes that the ledger knows, those that exited included. A process that is
    /// missing is forgotten.
    pub fn update(&mut self, processes: impl IntoIterator<Item = ProcessTotals>) {
        for group in self.groups.values_mut() {
            group.processes = 0;
            group.resident_bytes = None;
            for totals in group.kinds.values_mut() {
                (totals.live_bytes, totals.live_allocations) = (0, 0);
            }
        }
        let mut added = std::mem::take(&mut self.added);
        for process in processes {
            let before = added.remove(&process.key).unwrap_or_default();
            let after = self.add(&process, &before);
            self.added.insert(process.key, after);
        }
    }

    /// Adds what is new since `before`; returns what has been added now.
    fn add(&mut self, process: &ProcessTotals, before: &Added) -> Added {
        let has_room = self.groups.contains_key(&process.comm) || self.named() < self.limit;
        if !has_room && !before.capped {
            self.capped += 1;
        }
        let name = if has_room { process.comm.as_str() } else { OTHER };
        let group = self.groups.entry(name.to_owned()).or_default();
        if !process.exited {
            group.processes += 1;
            if let Some(bytes) = process.resident_bytes {
                *group.resident_bytes.get_or_insert(0) += bytes;
            }
        }
        for (kind, now) in &process.kinds {
            let then = before.kinds.get(kind).copied().unwrap_or_default();
            let totals = group.kinds.entry(*kind).or_default();
            totals.allocated_bytes += growth(then.allocated_bytes, now.allocated_bytes);
            totals.allocations += growth(then.allocations, now.allocations);
            if !process.exited {
                totals.live_bytes += now.live_bytes;
                totals.live_allocations += now.live_allocations;
            }
        }
        self.unmatched_frees += growth(before.unmatched_frees, process.unmatched_frees);
        self.replaced += growth(before.replaced, process.replaced);
        self.untracked += growth(before.untracked, process.untracked);
        Added {
            kinds: process.kinds.clone(),
            unmatched_frees: process.unmatched_frees,
            replaced: process.replaced,
            untracked: process.untracked,
            capped: !has_room,
        }
    }

    /// Groups with a name of their own.
    fn named(&self) -> usize {
        self.groups.len() - usize::from(self.groups.contains_key(OTHER))
    }

    /// The sums.
    pub fn totals(&self) -> Totals {
        Totals {
            groups: self
                .groups
                .iter()
                .map(|(name, group)| Group { name: name.clone(), ..group.clone() })
                .collect(),
            groups_limit: self.limit as u64,
            groups_capped: self.capped,
            unmatched_frees: self.unmatched_frees,
            replaced: self.replaced,
            untracked: self.untracked,
        }
    }
}

/// What a count has grown by; a smaller one has begun anew (the ledger starts a process over when it runs a new
/// program).
const fn growth(then: u64, now: u64) -> u64 {
    if now >= then { now - then } else { now }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Comm, Pid};
    use crate::ledger::SiteSnapshot;

    fn process(pid: u32, comm: &str, allocated: u64, live: u64) -> ProcessTotals {
        let heap = KindTotals {
            live_bytes: live,
            live_allocations: live / 10,
            allocated_bytes: allocated,
            allocations: allocated / 10,
        };
        ProcessTotals {
            key: ProcessKey { pid: Pid(pid), start_ns: 0 },
            comm: comm.to_owned(),
            exited: false,
            resident_bytes: Some(live + 1000),
            kinds: BTreeMap::from([(Kind::Heap, heap)]),
            unmatched_frees: allocated / 100,
            replaced: 0,
            untracked: 0,
        }
    }

    fn exited(process: ProcessTotals) -> ProcessTotals {
        ProcessTotals { exited: true, resident_bytes: None, ..process }
    }

    fn heap(totals: &Totals, name: &str) -> KindTotals {
        totals.groups.iter().find(|group| group.name == name).unwrap().kinds[&Kind::Heap]
    }

    fn group<'t>(totals: &'t Totals, name: &str) -> &'t Group {
        totals.groups.iter().find(|group| group.name == name).unwrap()
    }

    #[test]
    fn processes_of_one_name_are_summed() {
        let mut groups = GroupTotals::new(10);
        groups.update([process(1, "a", 1000, 100), process(2, "a", 500, 50), process(3, "b", 7, 7)]);
        let totals = groups.totals();
        assert_eq!(group(&totals, "a").processes, 2);
        assert_eq!(group(&totals, "a").resident_bytes, Some(2150));
        assert_eq!(heap(&totals, "a").allocated_bytes, 1500);
        assert_eq!(heap(&totals, "a").live_bytes, 150);
        assert_eq!(heap(&totals, "b").live_bytes, 7);
        assert_eq!(totals.unmatched_frees, 15);
    }

    #[test]
    fn an_exit_keeps_the_counters_and_ends_the_gauges() {
        let mut groups = GroupTotals::new(10);
        groups.update([process(1, "a", 1000, 100), process(2, "a", 500, 50)]);
        groups.update([exited(process(1, "a", 1200, 100)), process(2, "a", 600, 60)]);
        let then = groups.totals();
        assert_eq!((group(&then, "a").processes, group(&then, "a").resident_bytes), (1, Some(1060)));
        assert_eq!((heap(&then, "a").allocated_bytes, heap(&then, "a").live_bytes), (1800, 60));
        // The ledger has forgotten it.
        groups.update([process(2, "a", 600, 60)]);
        assert_eq!(groups.totals(), then);
        // All have gone.
        groups.update([]);
        let last = groups.totals();
        assert_eq!((group(&last, "a").processes, group(&last, "a").resident_bytes), (0, None));
        assert_eq!((heap(&last, "a").allocated_bytes, heap(&last, "a").live_bytes), (1800, 0));
        assert_eq!(last.unmatched_frees, then.unmatched_frees);
    }

    #[test]
    fn a_process_that_comes_and_goes_between_two_looks_counts() {
        let mut groups = GroupTotals::new(10);
        groups.update([exited(process(1, "a", 70, 7))]);
        assert_eq!(heap(&groups.totals(), "a").allocated_bytes, 70);
        assert_eq!(group(&groups.totals(), "a").processes, 0);
    }

    #[test]
    fn a_new_program_leaves_the_old_names_counters_alone() {
        let mut groups = GroupTotals::new(10);
        groups.update([process(1, "sh", 1000, 100)]);
        groups.update([process(1, "cc", 200, 20)]);
        let totals = groups.totals();
        assert_eq!((heap(&totals, "sh").allocated_bytes, heap(&totals, "sh").live_bytes), (1000, 0));
        assert_eq!((heap(&totals, "cc").allocated_bytes, heap(&totals, "cc").live_bytes), (200, 20));
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let mut groups = GroupTotals::new(10);
        groups.update([process(1, "a", 1000, 0)]);
        let mut second = process(1, "a", 1500, 0);
        second.key.start_ns = 10_000_000;
        groups.update([second]);
        assert_eq!(heap(&groups.totals(), "a").allocated_bytes, 2500);
    }

    #[test]
    fn unknown_resident_memory_is_not_zero() {
        let mut groups = GroupTotals::new(10);
        groups.update([ProcessTotals { resident_bytes: None, ..process(1, "a", 0, 0) }]);
        assert_eq!(group(&groups.totals(), "a").resident_bytes, None);
    }

    #[test]
    fn the_limit_holds_and_says_that_it_was_hit() {
        let mut groups = GroupTotals::new(2);
        let all = || (0..5).map(|pid| process(pid, &format!("p{pid}"), 100, 10));
        groups.update(all());
        groups.update(all());
        let totals = groups.totals();
        let names: Vec<_> = totals.groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, [OTHER, "p0", "p1"]);
        assert_eq!(heap(&totals, OTHER).allocated_bytes, 300);
        assert_eq!((totals.groups_limit, totals.groups_capped), (2, 3));
    }

    #[test]
    fn sites_are_summed_by_kind() {
        let site = |kind, live_bytes| SiteSnapshot {
            kind,
            stack: None,
            live_bytes,
            live_allocations: 1,
            allocated_bytes: live_bytes * 2,
            allocations: 2,
            oldest_age: None,
        };
        let snapshot = ProcessSnapshot {
            key: ProcessKey { pid: Pid(1), start_ns: 5 },
            comm: Comm("a".into()),
            exited: false,
            sites: vec![site(Kind::Heap, 1), site(Kind::Mmap, 4096), site(Kind::Heap, 2)],
            unmatched_frees: 3,
            replaced: 4,
            untracked: 5,
            untracked_bytes: 6,
            lost: leaktrace_common::process::Lost::default(),
            doubtful_bytes: 0,
        };
        let totals = ProcessTotals::of(&snapshot, Some(9));
        assert_eq!(totals.kinds[&Kind::Heap].live_bytes, 3);
        assert_eq!(totals.kinds[&Kind::Heap].allocations, 4);
        assert_eq!(totals.kinds[&Kind::Mmap].allocated_bytes, 8192);
        assert_eq!((totals.unmatched_frees, totals.replaced, totals.untracked), (3, 4, 5));
    }

    /// A process's life: what it allocates in each interval, and when it exits.
    type Life = (u8, Vec<u64>, u8);

    proptest! {
        /// Whoever comes and goes, no counter of any group goes backwards, and together they count everything.
        #[test]
        fn counters_only_grow(lives in proptest::collection::vec(
            (0u8..6, proptest::collection::vec(0u64..100, 1..8), 0u8..8), 0..12,
        )) {
            let lives: Vec<Life> = lives;
            let mut groups = GroupTotals::new(3);
            let mut last = groups.totals();
            for tick in 0..8usize {
                groups.update(lives.iter().enumerate().filter_map(|(pid, (comm, allocated, born))| {
                    let age = tick.checked_sub(usize::from(*born))?;
                    let ended = age >= allocated.len();
                    // The ledger forgets it two intervals after its end.
                    if age >= allocated.len() + 2 {
                        return None;
                    }
                    let sum = allocated.iter().take(age + 1).sum();
                    let process = process(pid as u32, &format!("c{comm}"), sum, 0);
                    Some(if ended { exited(process) } else { process })
                }));
                let now = groups.totals();
                prop_assert!(now.groups.len() <= 4);
                for then in &last.groups {
                    let (then, now) = (then.kinds[&Kind::Heap], heap(&now, &then.name));
                    prop_assert!(now.allocated_bytes >= then.allocated_bytes);
                    prop_assert!(now.allocations >= then.allocations);
                }
                prop_assert!(now.groups_capped >= last.groups_capped);
                last = now;
            }
            let expected: u64 = lives
                .iter()
                .map(|(_, allocated, born)| allocated.iter().take(8 - usize::from(*born)).sum::<u64>())
                .sum();
            let counted: u64 = last.groups.iter().map(|g| g.kinds[&Kind::Heap].allocated_bytes).sum();
            prop_assert_eq!(counted, expected);
        }
    }
}
