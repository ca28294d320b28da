//! The wire between the kernel side and the agent: record layouts, map values, counters and limits.
//!
//! Comes in: nothing. Goes out: types that both sides compile, so that neither can disagree about a layout.
//! Never: allocates, does I/O, or names a kernel or agent type; numbers only, `repr(C)`, explicit padding,
//! sizes and offsets asserted at compile time.
#![cfg_attr(not(test), no_std)]
#![expect(
    clippy::inline_always,
    reason = "compiled for BPF, where a call that is not inlined costs the verifier a frame of the 512-byte stack"
)]

pub mod comm;
pub mod counters;
pub mod limits;
#[cfg(feature = "user")]
mod pod;
pub mod process;
pub mod record;
pub mod stack;
