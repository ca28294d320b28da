//! The dynamic loader of glibc and of musl: an empty function that it calls after each change, for debuggers.
//!
//! Comes in: nothing. Goes out: its table. Never: the allocator that glibc's loader uses until the library's
//! is there.

use super::{AllocatorTable, Function, Prefixes, Role, function};

pub(super) const TABLE: AllocatorTable = AllocatorTable {
    name: "loader",
    marks: &[&["_dl_debug_state"]],
    prefixes: Prefixes::Listed(&[""]),
    functions: &[FUNCTIONS],
};

/// What a C library with the loader in it (musl, a static program) defines besides; glibc's loader does not.
pub(super) const C_LIBRARY: &str = "__libc_start_main";

const FUNCTIONS: &[Function] = &[function("_dl_debug_state", Role::LoaderState)];
