//! leaktrace: what a running program has allocated and not freed, by call site.
//!
//! Data flows one way: [`probe`] → wire record ([`leaktrace_common`]) → [`event`] → [`ledger`] → finding
//! ([`report::model`]) → [`report`] or [`metrics`]. Each stage is a directory. `decode`, `event`, `ledger` and
//! `report` are pure: no I/O, no clock, no threads. Only `probe` and `transport` name aya.

pub mod agent;
pub mod allocator;
pub mod capability;
pub mod cli;
pub mod commands;
pub mod decode;
pub mod event;
pub mod ledger;
pub mod metrics;
pub mod probe;
pub mod report;
pub mod symbolize;
pub mod target;
pub mod transport;
