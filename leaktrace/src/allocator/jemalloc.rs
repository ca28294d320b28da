//! jemalloc, under whatever prefix it was configured with (`je_`, Rust's `_rjem_`, none).
//!
//! Comes in: nothing. Goes out: its table. Never: `xallocx`, which resizes in place and may not: the block
//! keeps its first size.

use super::{AllocatorTable, Function, Prefixes, Role, c, function};

pub(super) const TABLE: AllocatorTable = AllocatorTable {
    name: "jemalloc",
    // The second group keeps a name like `smallocx` from being a prefix `s`.
    marks: &[&["mallocx"], &["dallocx", "sdallocx"]],
    prefixes: Prefixes::Any,
    functions: &[c::FUNCTIONS, EXTENDED],
};

const EXTENDED: &[Function] = &[
    function("mallocx", Role::Malloc),
    function("rallocx", Role::Realloc),
    function("dallocx", Role::Free),
    function("sdallocx", Role::Free),
];
