//! Where probes go, and getting them there: puts the kernel side into the kernel and its probes into traced
//! processes.
//!
//! Comes in: which processes, which files and offsets. Goes out: records on the rings. Never: a breakpoint in
//! a process that is not traced, a probe left behind, or what a function means; that is
//! [`crate::allocator`]'s.

pub mod btf;
pub mod code;
pub mod debug_file;
pub mod elf;
pub mod emulation;
pub mod gate;
pub mod guardian;
pub mod load;
pub mod pause;
pub mod perf;
pub mod plan;
pub mod registrar;
pub mod site;
pub mod tracefs;
