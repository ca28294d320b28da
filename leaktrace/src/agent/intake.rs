//! Moves records from the event ring into the ledger.
//!
//! Comes in: the event ring. Goes out: the ledger, locked for a moment at a time. Never: symbols, or a look at
//! the ring while there is nothing to do.
//!
//! A block's age counts from when its record was seen here: at most [`Pace`]'s longest sleep late, and no probe
//! has to read a clock.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::clock::Clock;
use crate::decode::decode;
use crate::event::{Event, Kind};
use crate::ledger::{Ledger, Moment};
use crate::transport::{Pace, Ring, RingError};

/// Records that are applied while the ledger is locked once: a fraction of a millisecond.
const BATCH: usize = 4096;

/// The ledger and what feeds it.
pub struct Intake {
    ledger: Mutex<Ledger>,
    input: Mutex<Input>,
    clock: Clock,
    events: AtomicU64,
    undecodable: AtomicU64,
    ring_bytes: usize,
    kinds: BTreeSet<Kind>,
}

/// The ring, and the events of the batch that is being read.
struct Input {
    ring: Ring,
    events: Vec<Event>,
}

impl Intake {
    /// Feeds `ledger` from `ring`, whose size is `ring_bytes`, with events of these kinds.
    pub fn new(ledger: Ledger, ring: Ring, ring_bytes: usize, kinds: BTreeSet<Kind>) -> Self {
        Self {
            ledger: Mutex::new(ledger),
            input: Mutex::new(Input { ring, events: Vec::with_capacity(BATCH) }),
            clock: Clock::default(),
            events: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            ring_bytes,
            kinds,
        }
    }

    /// The trace's time.
    pub fn now(&self) -> Moment {
        Moment(self.clock.elapsed())
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The ledger; records wait meanwhile.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that were read.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Records that are of another build's kernel side.
    pub fn undecodable(&self) -> u64 {
        self.undecodable.load(Ordering::Relaxed)
    }

    /// Feeds the ledger until `stop`.
    pub fn run(&self, stop: &AtomicBool) -> Result<(), RingError> {
        let (waiter, _) = self.input.lock().unwrap_or_else(PoisonError::into_inner).ring.waiter()?;
        let mut pace = Pace::new(self.ring_bytes);
        while !stop.load(Ordering::Acquire) {
            let found = self.drain();
            let sleep = pace.after(found);
            waiter.wait(sleep)?;
        }
        Ok(())
    }

    /// Applies all records that wait now, and those that arrive meanwhile as far as a ring's worth. Returns
    /// their bytes.
    pub fn drain(&self) -> usize {
        let mut total = 0;
        loop {
            let (records, bytes) = self.batch();
            total += bytes;
            if records < BATCH || total >= self.ring_bytes {
                return total;
            }
        }
    }

    fn batch(&self) -> (usize, usize) {
        // One batch is finished before the next is read: the order of events is that of the ring.
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        let Input { ring, events } = &mut *input;
        let found = ring.drain(BATCH, |bytes| match decode(bytes) {
            Ok(event) if self.is_wanted(&event) => events.push(event),
            Ok(_) => {}
            Err(error) => {
                if self.undecodable.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::error!(%error, "a record can't be read");
                }
            }
        });
        self.events.fetch_add(found.0 as u64, Ordering::Relaxed);
        self.ledger().apply_all(events, self.now());
        found
    }

    /// Heap functions are probed even if only mappings are asked for: what an allocator maps while it allocates
    /// is no mapping of the program's.
    fn is_wanted(&self, event: &Event) -> bool {
        self.kinds.contains(&Kind::Heap)
            || !matches!(
                event,
                Event::Alloc { .. }
                    | Event::Free { .. }
                    | Event::ReallocBegin { .. }
                    | Event::ReallocEnd { .. }
            )
    }
}
