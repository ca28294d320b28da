//! Carries bytes from the kernel side to the agent.
//!
//! Comes in: the rings and counters that [`crate::probe::load`] made. Goes out: records as bytes, in the order in
//! which they were reserved; losses as numbers. Never: looks into a record.

mod loss;
mod ring;

pub use loss::{Counts, LossCounters};
pub use ring::{Pace, Ring, RingError, Waiter, Waker};
