//! The time of a trace.
//!
//! Comes in: its begin and its end. Goes out: how long it has been tracing, which is what ages and durations
//! count. Never: runs while targets are being armed, or while their probes are taken away.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Stands still at zero before the begin, and after the end.
#[derive(Debug, Default)]
pub struct Clock {
    begun: OnceLock<Instant>,
    ended: OnceLock<Instant>,
}

impl Clock {
    /// Begins, unless it has.
    pub fn begin(&self) {
        self.begun.get_or_init(Instant::now);
    }

    /// Ends, unless it has.
    pub fn end(&self) {
        self.ended.get_or_init(Instant::now);
    }

    /// Time since the begin.
    pub fn elapsed(&self) -> Duration {
        let Some(begun) = self.begun.get() else { return Duration::ZERO };
        self.ended.get().copied().unwrap_or_else(Instant::now).saturating_duration_since(*begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_from_its_begin_to_its_end() {
        let clock = Clock::default();
        assert_eq!(clock.elapsed(), Duration::ZERO);
        clock.begin();
        std::thread::sleep(Duration::from_millis(2));
        let running = clock.elapsed();
        assert!(running >= Duration::from_millis(2));
        clock.begin();
        assert!(clock.elapsed() >= running, "a second begin is none");
        clock.end();
        let whole = clock.elapsed();
        std::thread::sleep(Duration::from_millis(2));
        clock.end();
        assert_eq!(clock.elapsed(), whole);
    }
}
