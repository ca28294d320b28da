//! One walk over all outstanding blocks of a process.
//!
//! Comes in: a process. Goes out: its [`ProcessSnapshot`]. Never: changes anything.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::blocks::Block;
use super::moment::{Moment, Tick};
use super::process::Process;
use super::sites::Amount;
use super::snapshot::{ProcessSnapshot, SiteSnapshot};

/// A running process; outstanding blocks younger than `min_age` are left out.
pub(super) fn running(process: &Process, now: Moment, min_age: Duration) -> ProcessSnapshot {
    survey(process, now, Tick::latest(now, min_age))
}

/// A process that ends now: nothing will free its blocks any more, so that all of them count, however young.
pub(super) fn ended(process: &Process, now: Moment) -> ProcessSnapshot {
    ProcessSnapshot { exited: true, ..survey(process, now, Some(Tick::MAX)) }
}

/// What is outstanding of a site, of blocks that are old enough.
#[derive(Clone, Copy)]
struct Standing {
    live: Amount,
    oldest: Tick,
}

fn survey(process: &Process, now: Moment, latest: Option<Tick>) -> ProcessSnapshot {
    let none = Standing { live: Amount::default(), oldest: Tick::MAX };
    let mut standing = vec![none; process.sites.len()];
    let mut largest = Largest::new(process.lost.frees);
    if let Some(latest) = latest {
        process.for_each_block(|Block { size, site, since }| {
            if *since <= latest {
                let standing = &mut standing[site.get()];
                standing.live.add(*size);
                standing.oldest = standing.oldest.min(*since);
                largest.offer(*size);
            }
        });
    }
    let sites = process.sites.iter().zip(standing);
    let sites = sites.filter(|(site, _)| site.ever.blocks > 0 || site.live.blocks > 0);
    let sites = sites.map(|(site, Standing { live, oldest })| SiteSnapshot {
        kind: site.kind,
        stack: site.stack,
        live_bytes: live.bytes,
        live_allocations: live.blocks,
        allocated_bytes: site.ever.bytes,
        allocations: site.ever.blocks,
        oldest_age: (live.blocks > 0).then(|| oldest.age(now)),
    });
    let anomalies = process.anomalies;
    ProcessSnapshot {
        key: process.key,
        comm: process.comm.clone(),
        exited: false,
        sites: sites.collect(),
        unmatched_frees: anomalies.unmatched_frees,
        replaced: anomalies.replaced,
        untracked: anomalies.untracked,
        untracked_bytes: anomalies.untracked_bytes,
        lost: process.lost,
        doubtful_bytes: largest.sum(),
    }
}

/// The largest of many sizes.
struct Largest {
    keep: u64,
    kept: BinaryHeap<Reverse<u64>>,
}

impl Largest {
    fn new(keep: u64) -> Self {
        Self { keep, kept: BinaryHeap::new() }
    }

    #[inline]
    fn offer(&mut self, size: u64) {
        if self.keep == 0 {
            return;
        }
        if (self.kept.len() as u64) < self.keep {
            self.kept.push(Reverse(size));
        } else if let Some(mut smallest) = self.kept.peek_mut()
            && smallest.0 < size
        {
            *smallest = Reverse(size);
        }
    }

    fn sum(&self) -> u64 {
        self.kept.iter().fold(0, |sum, size| sum.wrapping_add(size.0))
    }
}
