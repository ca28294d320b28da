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
//! Where probes go, and getting them there.
//!
//! Comes in: programs and libraries. Goes out: sites that the kernel can put a breakpoint on. Never: what a
//! function means; that is [`crate::allocator`]'s.

pub mod code;
pub mod debug_file;
pub mod elf;
pub mod emulation;
pub mod site;
