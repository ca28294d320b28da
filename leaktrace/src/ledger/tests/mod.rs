//! The ledger's rules, one by one ([`rules`], [`ranges`], [`lives`], [`bounds`]); against a slow model that
//! is easy to believe ([`model`]); against a simulated program that knows the truth ([`truth`]).

mod bounds;
mod lives;
mod model;

mod ranges;
mod rules;
mod truth;

use std::num::NonZeroU64;
use std::time::Duration;

use leaktrace_common::process::Lost;

use super::*;
use crate::event::{Kind, Tid};

const P: Pid = Pid(10);
const Q: Pid = Pid(20);
const T: Tid = Tid(11);
const U: Tid = Tid(12);

/// Without rounding: a multiple of the ledger's time step.
const SECOND: Duration = Duration::from_nanos(60 << 24);

fn at(seconds: u32) -> Moment {
    Moment(SECOND * seconds)
}

fn stack(id: u64) -> Option<StackId> {
    NonZeroU64::new(id).map(StackId)
}

fn key(pid: Pid, start_ns: u64) -> ProcessKey {
    ProcessKey { pid, start_ns }
}

fn comm(name: &str) -> Comm {
    Comm(name.into())
}

fn limits() -> Limits {
    Limits { blocks: 1000, stacks: 100, closed_processes: 10, sites: 100 }
}

/// What a test expects of a site: kind, stack, outstanding bytes and blocks, bytes and blocks ever.
type Row = (Kind, u64, u64, u64, u64, u64);

/// A ledger with a clock and short names for events.
struct Trace {
    ledger: Ledger,
    now: Moment,
}

impl Trace {
    /// Of process `P`, which runs already.
    fn new() -> Self {
        Self::with(limits())
    }

    fn with(limits: Limits) -> Self {
        let mut trace = Self { ledger: Ledger::new(limits), now: at(0) };
        trace.ledger.watch(key(P, 1), comm("p"), trace.now);
        trace
    }

    fn at(&mut self, seconds: u32) -> &mut Self {
        self.now = at(seconds);
        self
    }

    fn apply(&mut self, event: Event) -> &mut Self {
        self.ledger.apply(event, self.now);
        self
    }

    fn alloc(&mut self, addr: u64, size: u64, site: u64) -> &mut Self {
        self.apply(Event::Alloc { pid: P, addr, size, stack: stack(site) })
    }

    fn free(&mut self, addr: u64) -> &mut Self {
        self.apply(Event::Free { pid: P, addr })
    }

    fn realloc_begin(&mut self, tid: Tid, addr: u64) -> &mut Self {
        self.apply(Event::ReallocBegin { pid: P, tid, addr })
    }

    fn realloc_end(&mut self, tid: Tid, moved: Option<(u64, u64)>, site: u64) -> &mut Self {
        self.apply(Event::ReallocEnd { pid: P, tid, moved, stack: stack(site) })
    }

    fn map(&mut self, addr: u64, len: u64, site: u64) -> &mut Self {
        self.apply(Event::Map { pid: P, addr, len, stack: stack(site) })
    }

    fn unmap(&mut self, tid: Tid, addr: u64, len: u64) -> &mut Self {
        self.apply(Event::UnmapBegin { pid: P, tid, addr, len })
    }

    fn unmap_failed(&mut self, tid: Tid) -> &mut Self {
        self.apply(Event::UnmapFailed { pid: P, tid })
    }

    fn remap_begin(&mut self, tid: Tid, addr: u64, len: u64) -> &mut Self {
        self.apply(Event::RemapBegin { pid: P, tid, addr, len })
    }

    fn remap_end(&mut self, tid: Tid, moved: Option<(u64, u64)>, site: u64) -> &mut Self {
        self.apply(Event::RemapEnd { pid: P, tid, moved, stack: stack(site) })
    }

    fn fork(&mut self, parent: Pid, child: Pid) -> &mut Self {
        self.apply(Event::Fork { parent, child: key(child, 2), comm: comm("child") })
    }

    fn exec(&mut self, process: ProcessKey, name: &str) -> &mut Self {
        self.apply(Event::Exec { process, comm: comm(name) })
    }

    fn exit(&mut self, pid: Pid) -> &mut Self {
        self.apply(Event::Exit { pid, lost: Lost::default() })
    }

    /// The latest process of a pid.
    fn process(&self, pid: Pid) -> ProcessSnapshot {
        let snapshot = self.ledger.snapshot(self.now, Duration::ZERO);
        snapshot.processes.into_iter().rfind(|process| process.key.pid == pid).expect("the process is known")
    }

    fn site(&self, pid: Pid, kind: Kind, site: u64) -> SiteSnapshot {
        let sites = self.process(pid).sites;
        sites.into_iter().find(|s| s.kind == kind && s.stack == stack(site)).expect("the site is known")
    }

    #[track_caller]
    fn assert_sites(&self, pid: Pid, expected: &[Row]) -> &Self {
        let mut rows: Vec<Row> = self.process(pid).sites.iter().map(row).collect();
        rows.sort_unstable();
        assert_eq!(rows, expected, "kind, stack, live bytes and blocks, bytes and blocks ever");
        assert_books(&self.ledger);
        self
    }
}

fn row(site: &SiteSnapshot) -> Row {
    let stack = site.stack.map_or(0, |stack| stack.0.get());
    (site.kind, stack, site.live_bytes, site.live_allocations, site.allocated_bytes, site.allocations)
}

/// What holds after any events: the walk over blocks, the sums of the sites and the room that is used agree.
#[track_caller]
fn assert_books(ledger: &Ledger) {
    let mut blocks = 0;
    let mut sites = 0;
    for process in ledger.running.values() {
        let survey = survey::running(process, Moment::default(), Duration::ZERO);
        let sum = |of: fn(&SiteSnapshot) -> u64| survey.sites.iter().map(of).fold(0, u64::wrapping_add);
        let totals = process.totals();
        assert_eq!(totals.live_bytes, sum(|site| site.live_bytes));
        assert_eq!(totals.live_allocations, sum(|site| site.live_allocations));
        assert_eq!(totals.allocated_bytes, sum(|site| site.allocated_bytes));
        assert_eq!(totals.allocations, sum(|site| site.allocations));
        for counted in &survey.sites {
            let site =
                process.sites.iter().find(|site| (site.kind, site.stack) == (counted.kind, counted.stack));
            let booked = site.map(|site| (site.live.bytes, site.live.blocks));
            assert_eq!(booked, Some((counted.live_bytes, counted.live_allocations)));
        }
        blocks += totals.live_allocations;
        sites += process.sites.counted();
    }
    for process in ledger.closed.iter() {
        sites += process.sites.iter().filter(|site| site.stack.is_some()).count() as u64;
    }
    assert_eq!(ledger.totals().tracked_blocks, blocks);
    assert_eq!(ledger.totals().sites, sites);
}
