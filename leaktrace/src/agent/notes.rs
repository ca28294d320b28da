//! What a person should know about a run besides its numbers.
//!
//! Comes in: from any thread, as it happens. Goes out: to stderr at once, and into the report. Never: the same
//! sentence twice, or without a bound.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Sentences that are kept; a run over thousands of broken processes says the rest as a number.
const MOST: usize = 50;

/// Warnings of a run.
#[derive(Debug, Default)]
pub struct Notes {
    warnings: Mutex<Vec<String>>,
    more: AtomicU64,
    incomplete: AtomicU64,
    late: AtomicU64,
    probes: AtomicU64,
    refused: AtomicU64,
}

impl Notes {
    /// Says that something was traced less than asked.
    pub fn incomplete(&self, warning: String) {
        self.incomplete.fetch_add(1, Ordering::Relaxed);
        self.warn(warning);
    }

    /// Says that a process ran before its probes were in place.
    pub fn late(&self, warning: String) {
        self.late.fetch_add(1, Ordering::Relaxed);
        self.warn(warning);
    }

    /// How often that was.
    pub fn times_late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Says something that does not make the numbers wrong.
    pub fn warn(&self, warning: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.contains(&warning) {
            return;
        }
        if warnings.len() == MOST {
            self.more.fetch_add(1, Ordering::Relaxed);
            return;
        }
        eprintln!("warning: {warning}");
        warnings.push(warning);
    }

    /// Counts probes that were placed.
    pub fn probes_placed(&self, placed: usize) {
        self.probes.fetch_add(placed as u64, Ordering::Relaxed);
    }

    /// Counts probes that the kernel refused.
    pub fn probes_refused(&self, refused: usize) {
        self.refused.fetch_add(refused as u64, Ordering::Relaxed);
    }

    /// Counts probes that were taken away.
    pub fn probes_removed(&self, removed: usize) {
        self.probes.fetch_sub(removed as u64, Ordering::Relaxed);
    }

    /// Probes in place, and probes refused so far.
    pub fn probes(&self) -> (u64, u64) {
        (self.probes.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// Whether everything was traced as asked.
    pub fn is_complete(&self) -> bool {
        self.incomplete.load(Ordering::Relaxed) == 0
    }

    /// The warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let more = self.more.load(Ordering::Relaxed);
        if more > 0 {
            warnings.push(format!("{more} more warnings were not kept"));
        }
        warnings
    }
}
