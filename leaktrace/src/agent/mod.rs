//! The pipeline at work: threads, their order of start and stop, and what they share.
//!
//! Comes in: a checked [`RunConfig`](crate::cli::config::RunConfig). Goes out: reports at any moment, metrics.
//! Never: decides what is a leak; that is the report's.
//!
//! Threads besides the caller's: two answer the control ring ([`desk`]; a process may be waiting), one arms
//! processes ([`arm`]), one moves records from the event ring into the ledger ([`intake`]), one serves metrics.
//! They share [`shared::Shared`].

pub mod arm;
pub mod board;
pub mod clock;
pub mod control;
pub mod desk;
pub mod intake;
pub mod launch;
pub mod notes;
pub mod observe;
pub mod session;
pub mod shared;
pub mod watch;
