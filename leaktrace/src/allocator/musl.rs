//! The musl C library, shared or linked in.
//!
//! Comes in: nothing. Goes out: its table. A static program's own calls inside the library go to the `__libc_`
//! names. Never: `__libc_malloc_impl`, which both lead to.

use super::{AllocatorTable, Function, Prefixes, Role, c, function};

pub(super) const TABLE: AllocatorTable = AllocatorTable {
    name: "musl",
    marks: &[&["__init_libc", "__dls3"]],
    prefixes: Prefixes::Listed(&[""]),
    functions: &[c::FUNCTIONS, OWN_NAMES],
};

const OWN_NAMES: &[Function] = &[
    function("__libc_malloc", Role::Malloc),
    function("__libc_calloc", Role::Calloc),
    function("__libc_realloc", Role::Realloc),
    function("__libc_free", Role::Free),
];
