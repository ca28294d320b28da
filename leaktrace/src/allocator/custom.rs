//! A `malloc` that a program or library brings itself and that is none of the known ones.
//!
//! Comes in: nothing. Goes out: its table. Never: a wrapper around one function only.

use super::{AllocatorTable, Prefixes, c};

pub(super) const TABLE: AllocatorTable = AllocatorTable {
    name: "custom",
    marks: &[&["malloc"], &["free"]],
    prefixes: Prefixes::Listed(&[""]),
    functions: &[c::FUNCTIONS],
};
