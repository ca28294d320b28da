//! The ledger against a model of lists: any events, sense or nonsense, so that lost records need no case of
//! their own.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const PAGE: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Known {
    addr: u64,
    size: u64,
    stack: u64,
    at: Moment,
}

/// A page of a mapping; a piece is a run of pages of one mapping.
#[derive(Debug, Clone, Copy)]
struct Page {
    number: u64,
    mapping: u64,
    stack: u64,
    at: Moment,
}

#[derive(Debug, Clone)]
struct Program {
    key: ProcessKey,
    blocks: Vec<Known>,
    lifted: BTreeMap<Tid, Known>,
    pages: Vec<Page>,
    unmapped: BTreeMap<Tid, Vec<Page>>,
    moving: BTreeMap<Tid, Vec<Page>>,
    ever: BTreeMap<(Kind, u64), (u64, u64)>,
    anomalies: Anomalies,
    hidden: u64,
}

/// What a snapshot says of a process, in an order of its own.
type Said = (ProcessKey, bool, Vec<(Row, Option<Duration>)>, [u64; 4]);

struct Model {
    limit: u64,
    running: Vec<Program>,
    ended: Vec<Said>,
    mappings: u64,
    unknown: u64,
}

impl Program {
    fn new(key: ProcessKey) -> Self {
        Self {
            key,
            blocks: vec![],
            lifted: BTreeMap::new(),
            pages: vec![],
            unmapped: BTreeMap::new(),
            moving: BTreeMap::new(),
            ever: BTreeMap::new(),
            anomalies: Anomalies::default(),
            hidden: 0,
        }
    }

    /// Kind, stack, bytes and time of each block and piece.
    fn outstanding(&self) -> Vec<(Kind, u64, u64, Moment)> {
        let heap = self.blocks.iter().chain(self.lifted.values());
        let mut all: Vec<_> = heap.map(|b| (Kind::Heap, b.stack, b.size, b.at)).collect();
        for pages in self.moving.values().chain([&self.pages]) {
            let mut pages = pages.clone();
            pages.sort_by_key(|page| page.number);
            for run in pages.chunk_by(|a, b| a.mapping == b.mapping && a.number + 1 == b.number) {
                all.push((Kind::Mmap, run[0].stack, PAGE * run.len() as u64, run[0].at));
            }
        }
        all
    }

    fn said(&self, exited: bool, now: Moment, min_age: Duration) -> Said {
        let mut rows = BTreeMap::new();
        for (site, (bytes, blocks)) in &self.ever {
            rows.insert(*site, (0, 0, *bytes, *blocks, None));
        }
        for (kind, stack, bytes, at) in self.outstanding() {
            let row = rows.entry((kind, stack)).or_insert((0, 0, 0, 0, None));
            let age = now.0.saturating_sub(at.0);
            if age >= min_age {
                row.0 += bytes;
                row.1 += 1;
                row.4 = row.4.max(Some(age));
            }
        }
        let rows = rows.into_iter().map(|((kind, stack), (live, blocks, bytes, count, age))| {
            ((kind, stack, live, blocks, bytes, count), age)
        });
        let a = self.anomalies;
        (self.key, exited, rows.collect(), [a.unmatched_frees, a.replaced, a.untracked, a.untracked_bytes])
    }

    fn count(&mut self, kind: Kind, stack: u64, size: u64) {
        let ever = self.ever.entry((kind, stack)).or_default();
        ever.0 += size;
        ever.1 += 1;
    }

    fn untracked(&mut self, bytes: u64) {
        self.anomalies.untracked += 1;
        self.anomalies.untracked_bytes += bytes;
    }

    fn take_block(&mut self, addr: u64) -> Option<Known> {
        let index = self.blocks.iter().position(|block| block.addr == addr)?;
        Some(self.blocks.remove(index))
    }

    fn unmatched_free(&mut self) {
        if self.hidden > 0 {
            self.hidden -= 1;
        } else {
            self.anomalies.unmatched_frees += 1;
        }
    }

    fn alloc(&mut self, new: Known, full: bool) {
        self.count(Kind::Heap, new.stack, new.size);
        if self.take_block(new.addr).is_some() {
            self.anomalies.replaced += 1;
        } else if full {
            self.untracked(new.size);
            self.hidden += 1;
            return;
        }
        self.blocks.push(new);
    }

    fn cut(&mut self, addr: u64, len: u64) -> Vec<Page> {
        let range = addr / PAGE..(addr + len).div_ceil(PAGE);
        let (cut, left) = self.pages.iter().partition(|page| range.contains(&page.number));
        self.pages = left;
        cut
    }

    fn put_back(&mut self, pages: Vec<Page>) {
        for page in pages {
            if self.pages.iter().all(|newer| newer.number != page.number) {
                self.pages.push(page);
            }
        }
    }

    fn end_move(&mut self, tid: Tid) {
        if self.moving.remove(&tid).is_some() {
            self.anomalies.unended_moves += 1;
        }
    }

    fn child(&self, key: ProcessKey, fits: bool) -> Self {
        let mut child = Self::new(key);
        child.hidden = self.hidden;
        if !fits {
            for (kind, _, bytes, _) in self.outstanding() {
                child.untracked(bytes);
                child.hidden += u64::from(kind == Kind::Heap);
            }
            return child;
        }
        child.blocks.clone_from(&self.blocks);
        child.pages.clone_from(&self.pages);
        for block in self.lifted.values() {
            if child.blocks.iter().all(|newer| newer.addr != block.addr) {
                child.blocks.push(*block);
            }
        }
        for pages in self.moving.values() {
            child.put_back(pages.clone());
        }
        child
    }
}

impl Model {
    fn tracked(&self) -> u64 {
        self.running.iter().map(|program| program.outstanding().len() as u64).sum()
    }

    fn start(&mut self, program: Program, now: Moment) {
        if let Some(index) = self.running.iter().position(|known| known.key.pid == program.key.pid) {
            let before = self.running.remove(index);
            if before.key != program.key {
                self.ended.push(before.said(true, now, Duration::ZERO));
            }
        }
        self.running.push(program);
    }

    fn map(&mut self, pid: Pid, addr: u64, len: u64, stack: u64, at: Moment) {
        let program = self.running.iter_mut().find(|program| program.key.pid == pid).unwrap();
        program.count(Kind::Mmap, stack, len);
        program.cut(addr, len);
        let full = self.tracked() >= self.limit;
        self.mappings += 1;
        let program = self.running.iter_mut().find(|program| program.key.pid == pid).unwrap();
        if full {
            program.untracked(len);
        } else {
            let numbers = addr / PAGE..(addr + len) / PAGE;
            program.pages.extend(numbers.map(|number| Page { number, mapping: self.mappings, stack, at }));
        }
    }

    fn apply(&mut self, event: &Event, now: Moment) {
        let id = |stack: &Option<StackId>| stack.map_or(0, |stack| stack.0.get());
        let pid = match event {
            Event::Stack { .. } => return,
            Event::Exec { process, .. } => return self.start(Program::new(*process), now),
            Event::Fork { parent, child, .. } => {
                let tracked = self.tracked();
                let known = self.running.iter().find(|program| program.key.pid == *parent);
                self.unknown += u64::from(known.is_none());
                let program = known.map_or(Program::new(*child), |known| {
                    known.child(*child, tracked + known.outstanding().len() as u64 <= self.limit)
                });
                return self.start(program, now);
            }
            Event::Alloc { pid, .. }
            | Event::Free { pid, .. }
            | Event::ReallocBegin { pid, .. }
            | Event::ReallocEnd { pid, .. }
            | Event::Map { pid, .. }
            | Event::UnmapBegin { pid, .. }
            | Event::UnmapFailed { pid, .. }
            | Event::RemapBegin { pid, .. }
            | Event::RemapEnd { pid, .. }
            | Event::Exit { pid, .. } => *pid,
        };
        let tracked = self.tracked();
        let Some(index) = self.running.iter().position(|program| program.key.pid == pid) else {
            self.unknown += 1;
            return;
        };
        let program = &mut self.running[index];
        match event {
            Event::Alloc { addr, size, stack, .. } => {
                let new = Known { addr: *addr, size: *size, stack: id(stack), at: now };
                program.alloc(new, tracked >= self.limit);
            }
            Event::Free { addr, .. } => {
                if program.take_block(*addr).is_none() {
                    program.unmatched_free();
                }
            }
            Event::ReallocBegin { tid, addr, .. } => {
                if program.lifted.remove(tid).is_some() {
                    program.anomalies.unended_moves += 1;
                }
                match program.take_block(*addr) {
                    Some(block) => _ = program.lifted.insert(*tid, block),
                    None => program.unmatched_free(),
                }
            }
            Event::ReallocEnd { tid, moved, stack, .. } => {
                let lifted = program.lifted.remove(tid);
                match (lifted, moved) {
                    (lifted, Some((addr, size))) => {
                        let tracked = tracked - u64::from(lifted.is_some());
                        let new = Known { addr: *addr, size: *size, stack: id(stack), at: now };
                        program.alloc(new, tracked >= self.limit);
                    }
                    (Some(block), None) if program.blocks.iter().any(|b| b.addr == block.addr) => {
                        program.anomalies.replaced += 1;
                    }
                    (Some(block), None) => program.blocks.push(block),
                    (None, None) => {}
                }
            }
            Event::Map { addr, len, stack, .. } => self.map(pid, *addr, *len, id(stack), now),
            Event::UnmapBegin { tid, addr, len, .. } => {
                program.end_move(*tid);
                let cut = program.cut(*addr, *len);
                program.unmapped.insert(*tid, cut);
            }
            Event::UnmapFailed { tid, .. } => {
                program.end_move(*tid);
                let cut = program.unmapped.remove(tid).unwrap_or_default();
                program.put_back(cut);
            }
            Event::RemapBegin { tid, addr, len, .. } => {
                program.end_move(*tid);
                program.unmapped.remove(tid);
                let cut = program.cut(*addr, *len);
                if !cut.is_empty() {
                    program.moving.insert(*tid, cut);
                }
            }
            Event::RemapEnd { tid, moved, stack, .. } => {
                let cut = program.moving.remove(tid).unwrap_or_default();
                match moved {
                    Some((addr, len)) => self.map(pid, *addr, *len, id(stack), now),
                    None => program.put_back(cut),
                }
            }
            Event::Exit { .. } => {
                let program = self.running.remove(index);
                self.ended.push(program.said(true, now, Duration::ZERO));
            }
            Event::Stack { .. } | Event::Fork { .. } | Event::Exec { .. } => unreachable!("handled above"),
        }
    }

    fn said(&self, now: Moment, min_age: Duration) -> BTreeSet<Said> {
        let running = self.running.iter().map(|program| program.said(false, now, min_age));
        running.chain(self.ended.iter().cloned()).collect()
    }
}

fn said(ledger: &Ledger, now: Moment, min_age: Duration) -> BTreeSet<Said> {
    let processes = ledger.snapshot(now, min_age).processes.into_iter();
    processes
        .map(|p| {
            let mut rows: Vec<_> = p.sites.iter().map(|site| (row(site), site.oldest_age)).collect();
            rows.sort_unstable();
            (p.key, p.exited, rows, [p.unmatched_frees, p.replaced, p.untracked, p.untracked_bytes])
        })
        .collect()
}

/// Events of few processes, threads, addresses and sites, so that they meet often.
fn event() -> impl Strategy<Value = Event> {
    let pid = || prop_oneof![3 => Just(P), 1 => Just(Q), 1 => Just(Pid(30))];
    let tid = || (1..4u32).prop_map(Tid);
    let addr = || (1..7u64).prop_map(|n| n * 16);
    let site = || (0..4u64).prop_map(stack);
    let pages = || (1..12u64, 1..7u64).prop_map(|(first, count)| (first * PAGE, count * PAGE));
    let process = || (pid(), 1..3u64).prop_map(|(pid, start)| key(pid, start));
    let name = || Just(comm("x"));
    let heap_move = prop::option::of((addr(), 0..100u64));
    let range_move = prop::option::of(pages());
    prop_oneof![
        8 => (pid(), addr(), 0..100u64, site())
            .prop_map(|(pid, addr, size, stack)| Event::Alloc { pid, addr, size, stack }),
        6 => (pid(), addr()).prop_map(|(pid, addr)| Event::Free { pid, addr }),
        4 => (pid(), tid(), addr()).prop_map(|(pid, tid, addr)| Event::ReallocBegin { pid, tid, addr }),
        4 => (pid(), tid(), heap_move, site())
            .prop_map(|(pid, tid, moved, stack)| Event::ReallocEnd { pid, tid, moved, stack }),
        5 => (pid(), pages(), site())
            .prop_map(|(pid, (addr, len), stack)| Event::Map { pid, addr, len, stack }),
        4 => (pid(), tid(), pages())
            .prop_map(|(pid, tid, (addr, len))| Event::UnmapBegin { pid, tid, addr, len }),
        3 => (pid(), tid()).prop_map(|(pid, tid)| Event::UnmapFailed { pid, tid }),
        4 => (pid(), tid(), pages())
            .prop_map(|(pid, tid, (addr, len))| Event::RemapBegin { pid, tid, addr, len }),
        4 => (pid(), tid(), range_move, site())
            .prop_map(|(pid, tid, moved, stack)| Event::RemapEnd { pid, tid, moved, stack }),
        1 => (pid(), process(), name())
            .prop_map(|(parent, child, comm)| Event::Fork { parent, child, comm }),
        1 => (process(), name()).prop_map(|(process, comm)| Event::Exec { process, comm }),
        1 => pid().prop_map(|pid| Event::Exit { pid, lost: Lost::default() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn agrees_with_lists(
        events in prop::collection::vec((event(), 0..3u32), 1..120),
        limit in prop_oneof![Just(1000u64), 0..20u64],
        min_age in 0..20u32,
    ) {
        let mut ledger = Ledger::new(Limits { blocks: limit, closed_processes: 1000, ..limits() });
        let mut model = Model { limit, running: vec![], ended: vec![], mappings: 0, unknown: 0 };
        for pid in [P, Q] {
            ledger.watch(key(pid, 1), comm("x"), at(0));
            model.start(Program::new(key(pid, 1)), at(0));
        }
        let mut seconds = 0;
        for (event, pause) in events {
            seconds += pause;
            model.apply(&event, at(seconds));
            ledger.apply(event, at(seconds));
            let expected = model.said(at(seconds), Duration::ZERO);
            prop_assert_eq!(said(&ledger, at(seconds), Duration::ZERO), expected);
            assert_books(&ledger);
        }
        let min_age = SECOND * min_age;
        prop_assert_eq!(said(&ledger, at(seconds), min_age), model.said(at(seconds), min_age));
        prop_assert_eq!(ledger.totals().unknown_process, model.unknown);
        let unended = |program: &Program| program.anomalies.unended_moves;
        for process in ledger.processes() {
            let program = model.running.iter().find(|program| program.key == process.key);
            prop_assert_eq!(program.map(unended), Some(process.anomalies.unended_moves));
        }
    }
}
