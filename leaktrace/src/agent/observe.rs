//! Looks at a running trace: builds reports and metrics.
//!
//! Comes in: the ledger, the mappings, the kernel side's counters, `/proc` for resident memory. Goes out:
//! [`Report`]s with verdicts, [`MetricsSnapshot`]s. Never: holds the ledger while it looks up symbols.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use leaktrace_common::counters::Counter;
use leaktrace_common::stack::Ending;

use super::shared::Shared;
use crate::event::{Frames, ProcessKey, StackId};
use crate::ledger::{LedgerSnapshot, Limits, Moment};
use crate::metrics::groups::{self, GroupTotals, ProcessTotals};
use crate::metrics::{Latest, MetricsSnapshot};
use crate::report::growth::History;
use crate::report::model::{Frame, Report};
use crate::report::{self, Facts, ProcessFacts, Resolve, Resolved};
use crate::symbolize::{Options, Symbolizer};
use crate::target::{ModuleRegistry, Process};
use crate::transport::LossCounters;

/// Functions that have no caller: a stack that ends in one is whole, though the C library keeps no frame
/// pointers there and the walk ends with a broken one.
const OUTERMOST: &[&str] = &[
    "_start",
    "__libc_start_call_main",
    "__libc_start_main",
    "start_thread",
    "clone",
    "__clone",
    "clone3",
    "__clone3",
];

/// Builds reports and metrics.
pub struct Observer {
    shared: Arc<Shared>,
    counters: LossCounters,
    symbolizer: Symbolizer,
    history: History,
    groups: GroupTotals,
    limits: Limits,
    min_age: Duration,
}

impl Observer {
    /// Looks at what these hold.
    pub fn new(shared: Arc<Shared>, counters: LossCounters, limits: Limits, min_age: Duration) -> Self {
        Self {
            shared,
            counters,
            symbolizer: Symbolizer::new(Options::default()),
            history: History::default(),
            groups: GroupTotals::new(groups::DEFAULT_LIMIT),
            limits,
            min_age,
        }
    }

    /// Applies all records that wait.
    pub fn drain(&self) {
        self.shared.intake.drain();
    }

    /// The report of this moment. Blocks whose records still wait are not in it: drain first for an exact one.
    pub fn report(&mut self) -> Report {
        let now = self.shared.intake.now();
        self.read_losses();
        let (snapshot, stacks) = self.snapshot(now);
        let facts = self.facts(now, &snapshot);
        let mut resolver =
            StackResolver { registry: &self.shared.registry, symbolizer: &mut self.symbolizer, stacks };
        let mut report = report::build(&snapshot, &mut resolver, &facts);
        self.history.record(now.0, &report);
        self.history.judge(&mut report);
        report
    }

    /// The numbers of this moment for `/metrics`.
    pub fn publish(&mut self, latest: &Latest) {
        self.read_losses();
        let now = self.shared.intake.now();
        let ledger = self.shared.intake.ledger();
        let snapshot = ledger.snapshot(now, Duration::ZERO);
        let totals = ledger.totals();
        drop(ledger);
        self.groups.update(snapshot.processes.iter().map(|process| {
            let resident = if process.exited { None } else { resident_bytes(process.key) };
            ProcessTotals::of(process, resident)
        }));
        let counts = self.counters.read();
        let mut kernel = [0; Counter::ALL.len()];
        for (counter, count) in counts.iter() {
            kernel[counter as usize] = count;
        }
        let (probes_attached, probe_attach_errors) = self.shared.notes.probes();
        latest.publish(MetricsSnapshot {
            taken: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64()),
            totals: self.groups.totals(),
            events: self.shared.intake.events(),
            kernel,
            undecodable: self.shared.intake.undecodable(),
            late_probes: self.shared.notes.times_late(),
            probes_attached,
            probe_attach_errors,
            tracked_blocks: totals.tracked_blocks,
            tracked_blocks_limit: self.limits.blocks,
        });
    }

    /// Tells the ledger what was lost for the processes that still run.
    fn read_losses(&self) {
        let mut ledger = self.shared.intake.ledger();
        let running: Vec<_> = ledger.processes().map(|process| process.key.pid).collect();
        let gate = self.shared.gate();
        for pid in running {
            if let Some(lost) = gate.lost(pid) {
                ledger.set_lost(pid, lost);
            }
        }
    }

    fn snapshot(&self, now: Moment) -> (LedgerSnapshot, HashMap<StackId, Frames>) {
        let ledger = self.shared.intake.ledger();
        let snapshot = ledger.snapshot(now, self.min_age);
        let ids = snapshot.processes.iter().flat_map(|process| &process.sites).filter_map(|site| site.stack);
        let stacks = ids.filter_map(|id| Some((id, ledger.frames(id)?.clone()))).collect();
        (snapshot, stacks)
    }

    fn facts(&self, now: Moment, snapshot: &LedgerSnapshot) -> Facts {
        let counts = self.counters.read();
        let mut counters: BTreeMap<String, u64> =
            counts.iter().map(|(counter, count)| (counter.name().to_owned(), count)).collect();
        // The agent's own reasons.
        let own = [
            ("undecodable", self.shared.intake.undecodable()),
            ("late_probes", self.shared.notes.times_late()),
        ];
        counters.extend(own.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), n)));
        let processes = snapshot.processes.iter().map(|process| {
            let exe = self.shared.registry.exe(process.key).map(|exe| exe.to_string()).unwrap_or_default();
            let rss_bytes = if process.exited { None } else { resident_bytes(process.key) };
            (process.key, ProcessFacts { exe, rss_bytes })
        });
        Facts {
            duration: now.0,
            events: self.shared.intake.events(),
            counters,
            warnings: self.shared.notes.warnings(),
            degraded: !self.shared.notes.is_complete(),
            processes: processes.collect(),
            keep_allocator_frames: false,
        }
    }
}

fn resident_bytes(key: ProcessKey) -> Option<u64> {
    Process::open_same(key).ok()?.rss_bytes()
}

/// Looks stacks up in the mappings of their time.
struct StackResolver<'a> {
    registry: &'a ModuleRegistry,
    symbolizer: &'a mut Symbolizer,
    stacks: HashMap<StackId, Frames>,
}

impl Resolve for StackResolver<'_> {
    fn frames(&mut self, process: ProcessKey, stack: StackId) -> Resolved {
        let Some(taken) = self.stacks.get(&stack) else {
            return Resolved { frames: Vec::new(), ending: Ending::Unreadable };
        };
        // Where the chain of frame pointers led out of all code, what follows are not return addresses.
        let is_code = |address: &u64| self.registry.locate(process, taken.generation, *address).is_some();
        let believable = taken.addresses.iter().take_while(|address| is_code(address)).count();
        // The innermost was read at the function's entry: it is the caller, whatever is known of its mapping.
        let addresses = &taken.addresses[..believable.max(1).min(taken.addresses.len())];
        let cut = if addresses.len() < taken.addresses.len() { Ending::Broken } else { taken.ending };
        let frames = self.symbolizer.resolve(self.registry, process, taken.generation, addresses);
        let ending = if frames.last().is_some_and(is_outermost) { Ending::Complete } else { cut };
        Resolved { frames, ending }
    }
}

fn is_outermost(frame: &Frame) -> bool {
    frame.function.as_deref().is_some_and(|function| {
        let unversioned = function.split('@').next().unwrap_or(function);
        OUTERMOST.contains(&unversioned.strip_suffix("_impl").unwrap_or(unversioned))
    })
}
