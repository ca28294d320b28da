//! From findings to bytes: text for a person, JSON for a program, folded stacks and pprof for viewers.
//!
//! Comes in: a [`model::Report`]. Goes out: bytes on a writer. Never: decisions about what is a leak, symbols,
//! clocks.

pub mod model;
