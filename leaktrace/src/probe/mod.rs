//! Where probes go, and getting them there.
//!
//! Comes in: programs and libraries. Goes out: sites that the kernel can put a breakpoint on. Never: what a
//! function means; that is [`crate::allocator`]'s.

pub mod code;
pub mod debug_file;
pub mod elf;
pub mod emulation;
pub mod site;
