//! Lets the agent put the map values into aya's typed maps.
//!
//! Comes in: the types. Goes out: `aya::Pod` for each. Never: compiled into the kernel side.

use crate::comm::CommPattern;
use crate::process::{KernelOffsets, Lost, Traced};

// SAFETY: repr(C), integers only, no implicit padding (sizes are asserted), valid for every bit pattern.
unsafe impl aya::Pod for Traced {}
// SAFETY: as above.
unsafe impl aya::Pod for Lost {}
// SAFETY: as above.
unsafe impl aya::Pod for KernelOffsets {}
// SAFETY: as above.
unsafe impl aya::Pod for CommPattern {}
