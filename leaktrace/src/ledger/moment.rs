//! Time, as the ledger keeps it.
//!
//! Comes in: from the caller, as time since the start of the trace. Goes out: ages. Never: reads a clock.

use std::time::Duration;

/// A point in time: how long after the start of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub Duration);

/// A [`Moment`] in four bytes: steps of 2²⁴ ns (16.8 ms), rounded down, good for 2⁵⁶ ns (834 days). What
/// happens later than that counts as of that time: its age is then too high, everything else stays right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Tick(u32);

/// Nanoseconds of a step, as a power of two.
const STEP_LOG2: u32 = 24;

impl Tick {
    pub const MAX: Self = Self(u32::MAX);

    #[inline]
    pub fn of(moment: Moment) -> Self {
        let steps = moment.0.as_nanos() >> STEP_LOG2;
        Self(u32::try_from(steps).unwrap_or(u32::MAX))
    }

    /// How long ago it is; up to a step too much.
    pub fn age(self, now: Moment) -> Duration {
        now.0.saturating_sub(Duration::from_nanos(u64::from(self.0) << STEP_LOG2))
    }

    /// The latest tick that is `min_age` ago; `None` if the trace is younger than that.
    pub fn latest(now: Moment, min_age: Duration) -> Option<Self> {
        if min_age.is_zero() {
            return Some(Self::MAX);
        }
        now.0.checked_sub(min_age).map(|then| Self::of(Moment(then)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn an_age_is_right_to_a_step() {
        let step = Duration::from_nanos(1 << STEP_LOG2);
        for then in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(5), DAY * 700] {
            for true_age in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(20), DAY * 100] {
                let age = Tick::of(Moment(then)).age(Moment(then + true_age));
                assert!(true_age <= age && age < true_age + step, "{true_age:?} after {then:?}: {age:?}");
            }
        }
    }

    #[test]
    fn time_stands_still_after_834_days_and_does_not_start_again() {
        assert!(Tick::of(Moment(DAY * 833)) < Tick::of(Moment(DAY * 834)));
        assert_eq!(Tick::of(Moment(DAY * 900)), Tick::MAX);
        assert_eq!(Tick::of(Moment(Duration::MAX)), Tick::MAX);
        assert!(Tick::MAX.age(Moment(DAY * 900)) > DAY * 60);
    }

    #[test]
    fn an_age_before_the_block_is_zero() {
        assert_eq!(Tick::of(Moment(DAY)).age(Moment::default()), Duration::ZERO);
    }

    #[test]
    fn nothing_is_older_than_the_trace() {
        assert_eq!(Tick::latest(Moment(DAY), DAY * 2), None);
        assert_eq!(Tick::latest(Moment(DAY), Duration::ZERO), Some(Tick::MAX));
        assert_eq!(Tick::latest(Moment(DAY * 2), DAY), Some(Tick::of(Moment(DAY))));
    }
}
