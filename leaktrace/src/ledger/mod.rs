//! Outstanding blocks of every traced process, by call site.
//!
//! Comes in: [`crate::event::Event`]s in the order in which they happened, each with the time at which it was
//! seen. Goes out: [`LedgerSnapshot`], and [`LedgerTotals`] for metrics. Never: I/O, clocks, threads,
//! symbols.
//!
//! Any sequence of events is taken, since any record can be lost: what does not fit together is counted
//! ([`Anomalies`]), and the numbers stay those of some sequence that does. Memory is bounded by [`Limits`].

mod blocks;
mod closed;
mod hash;
mod limits;
mod mappings;
mod moment;
mod process;
mod sites;
mod snapshot;
mod stacks;
mod survey;
#[cfg(test)]
mod tests;
mod totals;

use std::time::Duration;

use leaktrace_common::process::Lost;
use rustc_hash::FxHashMap;

pub use self::limits::Limits;
pub use self::moment::Moment;
pub use self::snapshot::{LedgerSnapshot, ProcessSnapshot, SiteSnapshot};
pub use self::totals::{Anomalies, LedgerTotals, ProcessTotals};

use self::closed::Closed;
use self::limits::Room;
use self::moment::Tick;
use self::process::{Origin, Process};
use self::stacks::Stacks;
use crate::event::{Comm, Event, Frames, Pid, ProcessKey, StackId};

/// Events whose blocks are fetched before the first of them is booked: enough to keep the memory busy, few
/// enough to be still in the nearest cache.
const FETCHED_TOGETHER: usize = 64;

/// The books of a trace.
#[derive(Debug)]
pub struct Ledger {
    running: FxHashMap<Pid, Process>,
    closed: Closed,
    stacks: Stacks,
    room: Room,
    unknown_process: u64,
    /// Of processes that are no longer running.
    past_anomalies: Anomalies,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(limits: Limits) -> Self {
        Self {
            running: FxHashMap::default(),
            closed: Closed::new(limits.closed_processes),
            stacks: Stacks::new(limits.stacks),
            room: Room::new(&limits),
            unknown_process: 0,
            past_anomalies: Anomalies::default(),
        }
    }

    /// A process that runs already is traced from now on. One that is known stays as it is.
    pub fn watch(&mut self, process: ProcessKey, comm: Comm, now: Moment) {
        if self.running.get(&process.pid).is_none_or(|known| known.key != process) {
            self.start(Process::new(process, comm), now);
        }
    }

    /// Tells what the kernel side has lost for a running process up to now; its exit tells it for good.
    pub fn set_lost(&mut self, pid: Pid, lost: Lost) {
        if let Some(process) = self.running.get_mut(&pid) {
            process.lost = lost;
        }
    }

    /// Books an event. `now` is when it was seen; it must not go backwards.
    #[inline]
    pub fn apply(&mut self, event: Event, now: Moment) {
        let at = Tick::of(now);
        match event {
            Event::Alloc { pid, addr, size, stack } => {
                if let Some((process, room)) = self.known(pid) {
                    process.alloc(addr, size, Origin { stack, at }, room);
                }
            }
            Event::Free { pid, addr } => {
                if let Some((process, room)) = self.known(pid) {
                    process.free(addr, room);
                }
            }
            Event::ReallocBegin { pid, tid, addr } => {
                if let Some((process, room)) = self.known(pid) {
                    process.realloc_begin(tid, addr, room);
                }
            }
            Event::ReallocEnd { pid, tid, moved, stack } => {
                if let Some((process, room)) = self.known(pid) {
                    process.realloc_end(tid, moved, Origin { stack, at }, room);
                }
            }
            Event::Map { pid, addr, len, stack } => {
                if let Some((process, room)) = self.known(pid) {
                    process.map(addr, len, Origin { stack, at }, room);
                }
            }
            Event::UnmapBegin { pid, tid, addr, len } => {
                if let Some((process, room)) = self.known(pid) {
                    process.unmap_begin(tid, addr, len, room);
                }
            }
            Event::UnmapFailed { pid, tid } => {
                if let Some((process, room)) = self.known(pid) {
                    process.unmap_failed(tid, room);
                }
            }
            Event::RemapBegin { pid, tid, addr, len } => {
                if let Some((process, room)) = self.known(pid) {
                    process.remap_begin(tid, addr, len, room);
                }
            }
            Event::RemapEnd { pid, tid, moved, stack } => {
                if let Some((process, room)) = self.known(pid) {
                    process.remap_end(tid, moved, Origin { stack, at }, room);
                }
            }
            Event::Stack { id, frames } => self.stack(id, frames),
            Event::Fork { parent, child, comm } => self.fork(parent, child, comm, now),
            Event::Exec { process, comm } => self.start(Process::new(process, comm), now),
            Event::Exit { pid, lost } => self.exit(pid, lost, now),
        }
    }

    /// Books events that were seen together, and leaves the list empty. With many blocks outstanding much
    /// faster than one by one (2.5 times with a million): the memory of several frees is fetched at the same
    /// time.
    pub fn apply_all(&mut self, events: &mut Vec<Event>, now: Moment) {
        let mut events = events.drain(..);
        while !events.as_slice().is_empty() {
            let together = events.as_slice().len().min(FETCHED_TOGETHER);
            for event in &events.as_slice()[..together] {
                self.fetch(event);
            }
            for event in events.by_ref().take(together) {
                self.apply(event, now);
            }
        }
    }

    /// Has the processor fetch the block that an event takes away. What is allocated needs no memory that
    /// isn't either new or just freed.
    #[inline]
    fn fetch(&self, event: &Event) {
        if let Event::Free { pid, addr } | Event::ReallocBegin { pid, addr, .. } = event
            && let Some(process) = self.running.get(pid)
        {
            process.fetch(*addr);
        }
    }

    /// All processes. Outstanding blocks of running ones that are younger than `min_age` are left out; of one
    /// that ended everything counts, since nothing will free it any more, and its ages are those at its end.
    ///
    /// Walks over all blocks: some 10 ms for a million.
    pub fn snapshot(&self, now: Moment, min_age: Duration) -> LedgerSnapshot {
        let running = self.running.values().map(|process| survey::running(process, now, min_age));
        let mut processes: Vec<_> = running.chain(self.closed.iter().cloned()).collect();
        processes.sort_by_key(|process| (process.key.start_ns, process.key.pid));
        LedgerSnapshot { processes }
    }

    /// The frames of a stack; `None` if they were lost or there was no room for them.
    pub fn frames(&self, id: StackId) -> Option<&Frames> {
        self.stacks.get(id)
    }

    /// Numbers of the whole ledger, without a walk over blocks.
    pub fn totals(&self) -> LedgerTotals {
        let mut anomalies = self.past_anomalies;
        for process in self.running.values() {
            anomalies.add(&process.anomalies);
        }
        LedgerTotals {
            running: self.running.len(),
            closed: self.closed.len(),
            closed_dropped: self.closed.dropped(),
            tracked_blocks: self.room.blocks.used(),
            sites: self.room.sites.used(),
            unsited: self.room.unsited,
            stacks: self.stacks.len(),
            stacks_dropped: self.stacks.dropped(),
            unknown_process: self.unknown_process,
            anomalies,
        }
    }

    /// Numbers of each running process, without a walk over blocks.
    pub fn processes(&self) -> impl Iterator<Item = ProcessTotals<'_>> {
        self.running.values().map(Process::totals)
    }

    /// The running process of a pid, and the room that its event may need.
    #[inline]
    fn known(&mut self, pid: Pid) -> Option<(&mut Process, &mut Room)> {
        self.closed.make_room(1, &mut self.room);
        let process = self.running.get_mut(&pid);
        if process.is_none() {
            self.unknown_process += 1;
        }
        process.map(|process| (process, &mut self.room))
    }

    /// A process takes its pid. One of the same key ran another program before, and its memory is gone; one
    /// of another key ended unseen.
    fn start(&mut self, process: Process, now: Moment) {
        let key = process.key;
        let Some(before) = self.running.insert(key.pid, process) else { return };
        if before.key == key {
            self.past_anomalies.add(&before.anomalies);
            before.release(&mut self.room);
        } else {
            self.close(before, now);
        }
    }

    /// A child whose parent isn't known starts with nothing outstanding.
    fn fork(&mut self, parent: Pid, child: ProcessKey, comm: Comm, now: Moment) {
        let process = if let Some(parent) = self.running.get(&parent) {
            self.closed.make_room(parent.sites.counted(), &mut self.room);
            parent.fork(child, comm, &mut self.room)
        } else {
            self.unknown_process += 1;
            Process::new(child, comm)
        };
        self.start(process, now);
    }

    fn exit(&mut self, pid: Pid, lost: Lost, now: Moment) {
        match self.running.remove(&pid) {
            Some(mut process) => {
                process.lost = lost;
                self.close(process, now);
            }
            None => self.unknown_process += 1,
        }
    }

    fn close(&mut self, process: Process, now: Moment) {
        let snapshot = survey::ended(&process, now);
        self.past_anomalies.add(&process.anomalies);
        process.release(&mut self.room);
        self.closed.push(snapshot, &mut self.room);
    }

    fn stack(&mut self, id: StackId, frames: Frames) {
        if self.stacks.is_sweep_due() {
            let running = self.running.values().flat_map(|process| process.sites.iter());
            let running = running.filter_map(|site| site.stack);
            let closed = self.closed.iter().flat_map(|process| &process.sites);
            let used = running.chain(closed.filter_map(|site| site.stack)).collect();
            self.stacks.sweep(&used);
        }
        self.stacks.insert(id, frames);
    }
}
