//! The ledger against a simulated system that knows what is outstanding: every record in order, and the
//! ledger must say exactly that, without an anomaly; with records lost, what it says must stay within what
//! was lost.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const PAGE: u64 = 4096;
const PAGES: u64 = 24;

/// Outstanding bytes by kind and stack.
type Truth = BTreeMap<(Kind, u64), u64>;

#[derive(Debug, Clone, Copy)]
struct Block {
    addr: u64,
    size: u64,
    stack: u64,
}

/// What a thread is in the midst of.
#[derive(Debug, Clone, Copy)]
enum Call {
    /// `realloc` of a block whose address the allocator has not given up yet.
    Entered(Block),
    /// `realloc` whose new block is there; anyone may get the old address.
    Moved(Block, Block),
    /// `munmap` that will fail, of pages that stay.
    Unmap,
    /// `mremap` of pages; they stay until it returns.
    Remap(u64, u64),
}

#[derive(Debug, Clone)]
struct Program {
    key: ProcessKey,
    blocks: Vec<Block>,
    /// By page number: the site.
    pages: BTreeMap<u64, u64>,
    calls: BTreeMap<u32, Call>,
}

impl Program {
    fn new(key: ProcessKey) -> Self {
        Self { key, blocks: vec![], pages: BTreeMap::new(), calls: BTreeMap::new() }
    }

    fn truth(&self) -> Truth {
        let mut truth = Truth::new();
        let called = self.calls.values().filter_map(|call| match call {
            Call::Entered(block) | Call::Moved(block, _) => Some(block),
            Call::Unmap | Call::Remap(..) => None,
        });
        for block in self.blocks.iter().chain(called) {
            *truth.entry((Kind::Heap, block.stack)).or_default() += block.size;
        }
        for stack in self.pages.values() {
            *truth.entry((Kind::Mmap, *stack)).or_default() += PAGE;
        }
        truth.retain(|_, bytes| *bytes > 0);
        truth
    }

    fn is_free(&self, addr: u64) -> bool {
        self.blocks.iter().all(|block| block.addr != addr)
            && self.calls.values().all(|call| match call {
                Call::Entered(block) => block.addr != addr,
                Call::Moved(_, new) => new.addr != addr,
                Call::Unmap | Call::Remap(..) => true,
            })
    }

    /// An address that nobody has; the ones that were given back last come first.
    fn place(&self) -> u64 {
        (1..=1000).map(|n| n * 16).find(|addr| self.is_free(*addr)).unwrap()
    }

    /// Whether a call that is under way needs some of these pages.
    fn is_busy(&self) -> bool {
        self.calls.values().any(|call| matches!(call, Call::Unmap | Call::Remap(..)))
    }

    fn map(&mut self, first: u64, count: u64, stack: u64) {
        self.pages.extend((first..first + count).map(|page| (page, stack)));
    }

    fn unmap(&mut self, first: u64, count: u64) {
        self.pages.retain(|page, _| !(first..first + count).contains(page));
    }
}

fn tid(pid: Pid, thread: u32) -> Tid {
    Tid(pid.0 * 100 + thread)
}

/// A step of the system: what to do, in which process, on which thread, and two numbers of any meaning.
type Step = (u8, usize, u32, u64, u64);

#[derive(Default)]
struct System {
    running: Vec<Program>,
    ended: Vec<(ProcessKey, Truth)>,
    started: u32,
    events: Vec<Event>,
}

impl System {
    fn new() -> Self {
        let mut system = Self::default();
        system.exec_new();
        system
    }

    fn new_key(&mut self) -> ProcessKey {
        self.started += 1;
        // Pids come around.
        let pid =
            (1..=1000).find(|pid| self.running.iter().all(|program| program.key.pid.0 != *pid)).unwrap();
        key(Pid(pid), u64::from(self.started))
    }

    fn exec_new(&mut self) {
        let key = self.new_key();
        self.events.push(Event::Exec { process: key, comm: comm("x") });
        self.running.push(Program::new(key));
    }

    /// Some system from steps that mean something in any order.
    fn run(steps: &[Step]) -> Self {
        let mut system = Self::new();
        for step in steps {
            system.step(*step);
        }
        for program in &mut system.running {
            system.events.extend(program.settle());
        }
        system
    }

    fn step(&mut self, (action, process, thread, a, b): Step) {
        let index = process % self.running.len();
        let is_roomy = self.running.len() < 4;
        let program = &mut self.running[index];
        let pid = program.key.pid;
        let tid = tid(pid, thread);
        let site = a % 4;
        if let Some(call) = program.calls.remove(&thread) {
            self.events.extend(carry_on(program, thread, call, tid, (a, b)));
            return;
        }
        let (first, count) = (a % PAGES, b % 8 + 1);
        let (addr, len) = ((first + 1) * PAGE, count * PAGE);
        match action {
            0..30 => {
                let block = Block { addr: program.place(), size: b % 100, stack: site };
                program.blocks.push(block);
                let Block { addr, size, .. } = block;
                self.events.push(Event::Alloc { pid, addr, size, stack: stack(site) });
            }
            30..50 if !program.blocks.is_empty() => {
                let block = program.blocks.swap_remove(a as usize % program.blocks.len());
                self.events.push(Event::Free { pid, addr: block.addr });
            }
            50..65 if !program.blocks.is_empty() => {
                let block = program.blocks.swap_remove(a as usize % program.blocks.len());
                program.calls.insert(thread, Call::Entered(block));
                self.events.push(Event::ReallocBegin { pid, tid, addr: block.addr });
            }
            65..75 if !program.is_busy() => {
                program.map(first + 1, count, site);
                self.events.push(Event::Map { pid, addr, len, stack: stack(site) });
            }
            75..82 if !program.is_busy() => {
                program.unmap(first + 1, count);
                self.events.push(Event::UnmapBegin { pid, tid, addr, len });
            }
            82..86 if !program.is_busy() => {
                program.calls.insert(thread, Call::Unmap);
                self.events.push(Event::UnmapBegin { pid, tid, addr, len });
            }
            86..92 if !program.is_busy() => {
                program.calls.insert(thread, Call::Remap(first + 1, count));
                self.events.push(Event::RemapBegin { pid, tid, addr, len });
            }
            // The C library takes the heap's locks to fork, the kernel the address space's.
            92..95 if is_roomy && program.can_fork() => {
                let mut copy = program.clone();
                let child = self.new_key();
                copy.key = child;
                for call in std::mem::take(&mut copy.calls).into_values() {
                    if let Call::Entered(block) = call {
                        copy.blocks.push(block);
                    }
                }
                self.running.push(copy);
                self.events.push(Event::Fork { parent: pid, child, comm: comm("x") });
            }
            95..97 => {
                self.events.push(Event::Exec { process: program.key, comm: comm("x") });
                *program = Program::new(program.key);
            }
            97..99 => {
                let mut program = self.running.swap_remove(index);
                self.events.extend(program.settle());
                self.ended.push((program.key, program.truth()));
                self.events.push(Event::Exit { pid, lost: Lost::default() });
                if self.running.is_empty() {
                    self.exec_new();
                }
            }
            99 if is_roomy => self.exec_new(),
            _ => {}
        }
    }

    fn truths(&self) -> BTreeMap<ProcessKey, Truth> {
        let running = self.running.iter().map(|program| (program.key, program.truth()));
        running.chain(self.ended.iter().cloned()).collect()
    }
}

impl Program {
    /// Until an `munmap` has failed, it counts as one that has not.
    fn settle(&mut self) -> Vec<Event> {
        let pid = self.key.pid;
        let failing = self.calls.extract_if(.., |_, call| matches!(call, Call::Unmap));
        failing.map(|(thread, _)| Event::UnmapFailed { pid, tid: tid(pid, thread) }).collect()
    }

    fn can_fork(&self) -> bool {
        self.calls.values().all(|call| matches!(call, Call::Entered(_)))
    }
}

/// The next step of a call that is under way.
fn carry_on(program: &mut Program, thread: u32, call: Call, tid: Tid, (a, b): (u64, u64)) -> Option<Event> {
    let pid = program.key.pid;
    let site = a % 4;
    let fails = b.is_multiple_of(4);
    Some(match call {
        Call::Entered(block) if fails => {
            program.blocks.push(block);
            Event::ReallocEnd { pid, tid, moved: None, stack: stack(site) }
        }
        Call::Entered(old) => {
            let addr = if b.is_multiple_of(3) { old.addr } else { program.place() };
            let new = Block { addr, size: b % 100, stack: site };
            program.calls.insert(thread, Call::Moved(old, new));
            return None;
        }
        Call::Moved(_, new) => {
            program.blocks.push(new);
            Event::ReallocEnd { pid, tid, moved: Some((new.addr, new.size)), stack: stack(new.stack) }
        }
        Call::Unmap => Event::UnmapFailed { pid, tid },
        Call::Remap(..) if fails => Event::RemapEnd { pid, tid, moved: None, stack: stack(site) },
        Call::Remap(first, count) => {
            program.unmap(first, count);
            let (first, count) = (a % PAGES + 1, b % 8 + 1);
            program.map(first, count, site);
            let moved = Some((first * PAGE, count * PAGE));
            Event::RemapEnd { pid, tid, moved, stack: stack(site) }
        }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..100u8, 0..8usize, 0..3u32, any::<u64>(), any::<u64>()), 1..300)
}

fn book(events: impl IntoIterator<Item = Event>) -> Ledger {
    let mut ledger = Ledger::new(Limits { closed_processes: 1000, sites: 10_000, ..limits() });
    for event in events {
        ledger.apply(event, at(1));
        assert_books(&ledger);
    }
    ledger
}

fn said_of(process: &ProcessSnapshot) -> Truth {
    let live = process.sites.iter().map(|site| {
        let (kind, stack, bytes, ..) = row(site);
        ((kind, stack), bytes)
    });
    live.filter(|(_, bytes)| *bytes > 0).collect()
}

fn sum(truth: &Truth, kind: Kind) -> u64 {
    truth.iter().filter(|((k, _), _)| *k == kind).map(|(_, bytes)| bytes).sum()
}

proptest! {
    #[test]
    fn with_every_record_it_knows_the_truth(steps in steps()) {
        let system = System::run(&steps);
        let ledger = book(system.events.iter().cloned());
        let snapshot = ledger.snapshot(at(1), Duration::ZERO);
        let said = snapshot.processes.iter();
        let said: BTreeMap<_, _> = said.map(|process| (process.key, said_of(process))).collect();
        prop_assert_eq!(said, system.truths());
        let totals = ledger.totals();
        prop_assert_eq!((totals.unknown_process, totals.anomalies), (0, Anomalies::default()));

        let mut together = book([]);
        let mut events = system.events;
        together.apply_all(&mut events, at(1));
        prop_assert!(events.is_empty());
        prop_assert_eq!(together.snapshot(at(1), Duration::ZERO), snapshot);
    }

    #[test]
    fn with_lost_frees_the_truth_is_within_what_is_doubtful(
        steps in steps(),
        losses in prop::collection::vec(prop::bool::weighted(0.1), 1..50),
    ) {
        let of_one_process = steps.into_iter().filter(|step| step.0 < 92);
        let system = System::run(&of_one_process.collect::<Vec<_>>());
        let mut losses = losses.into_iter().cycle();
        let mut lost = Lost::default();
        let ledger = &mut book(system.events.iter().filter(|event| {
            let is_lost = matches!(event, Event::Free { .. }) && losses.next() == Some(true);
            lost.frees += u64::from(is_lost);
            !is_lost
        }).cloned());
        ledger.set_lost(system.running[0].key.pid, lost);
        let process = ledger.snapshot(at(1), Duration::ZERO).processes.remove(0);
        let (said, truth) = (said_of(&process), system.running[0].truth());
        prop_assert_eq!(sum(&said, Kind::Mmap), sum(&truth, Kind::Mmap));
        prop_assert!(sum(&said, Kind::Heap) >= sum(&truth, Kind::Heap));
        prop_assert!(sum(&said, Kind::Heap) <= sum(&truth, Kind::Heap) + process.doubtful_bytes);
        prop_assert!(process.replaced <= lost.frees);
        prop_assert_eq!(process.unmatched_frees, 0);
    }

    /// Whatever is lost, the books agree: `book` looks after every event.
    #[test]
    fn with_any_records_lost_the_books_agree(
        steps in steps(),
        losses in prop::collection::vec(prop::bool::weighted(0.1), 1..50),
        blocks in prop_oneof![Just(1000u64), 0..20u64],
        sites in prop_oneof![Just(1000u64), 0..10u64],
        closed_processes in 0..4usize,
    ) {
        let mut losses = losses.into_iter().cycle();
        let mut ledger = Ledger::new(Limits { blocks, closed_processes, sites, ..limits() });
        for event in System::run(&steps).events {
            if losses.next() == Some(true) {
                continue;
            }
            ledger.apply(event, at(1));
            assert_books(&ledger);
            let totals = ledger.totals();
            prop_assert!(totals.closed <= closed_processes && totals.sites <= sites);
        }
    }
}
