//! Outstanding blocks of every traced process, by call site.
//!
//! Comes in: [`crate::event::Event`]s in the order in which they happened, each with the time at which it was
//! seen. Goes out: [`LedgerSnapshot`]. Never: I/O, clocks, threads, symbols.

mod snapshot;

pub use snapshot::{LedgerSnapshot, ProcessSnapshot, SiteSnapshot};
