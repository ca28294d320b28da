//! The hash of addresses and stack ids.
//!
//! Comes in: 64 bits of which some never vary (the lower four of a block's address, the upper sixteen). Goes
//! out: 64 bits of which all do. Never: resists an attacker who picks the addresses: such a program slows its
//! own tracing down.

/// Folds the 128-bit product with an odd constant: one multiplication, and each bit of the result depends on
/// the bits above and below it. A table takes its index from the lower end and its tags from the upper end; a
/// bare multiplication would leave the lower four bits of a block's hash zero.
#[inline]
pub(super) fn spread(bits: u64) -> u64 {
    let product = u128::from(bits) * 0x9E37_79B9_7F4A_7C15_u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Addresses a stride apart fall into buckets nearly as evenly as random ones, which fill 63 % of as
    /// many; and none of the 128 tags gets more than twice its share.
    #[test]
    fn strides_spread_over_buckets_and_tags() {
        const N: usize = 1 << 16;
        for stride in [8, 16, 32, 48, 64, 1 << 10, 1 << 12, 1 << 20, (1 << 12) + 16] {
            let hashes = (0..N as u64).map(|i| spread(0x7f12_3456_7010 + i * stride));
            let buckets: HashSet<u64> = hashes.clone().map(|hash| hash % N as u64).collect();
            assert!(buckets.len() > N * 55 / 100, "stride {stride}: {} buckets", buckets.len());
            let mut tags = [0; 128];
            hashes.for_each(|hash| tags[(hash >> 57) as usize] += 1);
            assert!(tags.iter().all(|tag| *tag < 2 * N / 128), "stride {stride}: {tags:?}");
        }
    }
}
