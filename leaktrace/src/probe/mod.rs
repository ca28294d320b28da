//! Puts the kernel side into the kernel and its probes into traced processes.
//!
//! Comes in: which processes, which files and offsets. Goes out: records on the rings. Never: a breakpoint in
//! a process that is not traced, or a probe left behind.

pub mod btf;
pub mod guardian;
pub mod load;
pub mod perf;
pub mod plan;
pub mod registrar;
pub mod tracefs;
