//! A stack's identity and why it ends.
//!
//! Comes in: return addresses, innermost first. Goes out: a 64-bit id. Never: symbols.

/// Why a stack ends where it does.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// At the thread's outermost frame.
    Complete = 0,
    /// After [`crate::limits::MAX_FRAMES`] frames.
    TooDeep = 1,
    /// The frame pointer does not lead to another frame: code without frame pointers.
    Broken = 2,
    /// Stack memory could not be read.
    Unreadable = 3,
}

impl Ending {
    /// The value of a record's `detail`; `None` for a number this version does not know.
    pub const fn from_wire(detail: u8) -> Option<Self> {
        Some(match detail {
            0 => Self::Complete,
            1 => Self::TooDeep,
            2 => Self::Broken,
            3 => Self::Unreadable,
            _ => return None,
        })
    }
}

/// Running id of a stack: seeded with the generation of the process's mappings, fed with each frame.
///
/// A multiply-rotate hash (the idea of wyhash and FxHash): the verifier sees four instructions a frame, and
/// the final avalanche makes all 64 bits depend on all frames. Two stacks of one run share an id with a
/// probability of n²/2⁶⁵.
#[derive(Debug, Clone, Copy)]
pub struct StackId(u64);

impl StackId {
    /// Starts an id.
    #[inline(always)]
    pub const fn new(generation: u32) -> Self {
        Self(0x9E37_79B9_7F4A_7C15 ^ generation as u64)
    }

    /// Adds the next outer frame.
    #[inline(always)]
    #[must_use]
    pub const fn frame(self, address: u64) -> Self {
        Self((self.0.rotate_left(23) ^ address).wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    /// The id; never 0, which means "no stack" on the wire.
    #[inline(always)]
    pub const fn finish(self) -> u64 {
        let mut x = self.0;
        x ^= x >> 32;
        x = x.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        x ^= x >> 32;
        if x == 0 { 1 } else { x }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn order_and_generation_matter() {
        let ab = StackId::new(0).frame(0xa).frame(0xb).finish();
        assert_ne!(ab, StackId::new(0).frame(0xb).frame(0xa).finish());
        assert_ne!(ab, StackId::new(1).frame(0xa).frame(0xb).finish());
        assert_ne!(ab, StackId::new(0).frame(0xa).finish());
    }

    #[test]
    fn neighbouring_addresses_do_not_collide() {
        let mut seen = HashSet::new();
        for outer in 0..1000u64 {
            for inner in 0..1000u64 {
                let id =
                    StackId::new(0).frame(0x7f00_0000_1000 + inner * 5).frame(0x5500_0000_0000 + outer * 7);
                assert!(seen.insert(id.finish()), "collision at {outer} {inner}");
            }
        }
    }

    #[test]
    fn unknown_ending_is_none() {
        assert_eq!(Ending::from_wire(2), Some(Ending::Broken));
        assert_eq!(Ending::from_wire(200), None);
    }
}
