//! Prometheus metrics: sums per group of processes, what was lost, and what leaktrace itself costs.
//!
//! Comes in: a [`MetricsSnapshot`] at every interval, published in [`Latest`]. Goes out: `/metrics`. Never: a label
//! per process, stack or address; that is what reports are for.

mod collector;
pub mod groups;
mod own;
pub mod registry;
mod server;
mod snapshot;

#[cfg(test)]
mod tests;

pub use collector::Exporter;
pub use groups::{GroupTotals, ProcessTotals};
pub use server::{MetricsError, Port, Server};
pub use snapshot::{Group, KindTotals, Latest, MetricsSnapshot, Totals};
