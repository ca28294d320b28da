//! The C interface that every `malloc` replacement implements.
//!
//! Comes in: nothing. Goes out: rows for the allocators' tables. Never: a table of its own.

use super::{Function, Role, function};

pub(super) const FUNCTIONS: &[Function] = &[
    function("malloc", Role::Malloc),
    function("calloc", Role::Calloc),
    function("realloc", Role::Realloc),
    function("reallocarray", Role::Reallocarray),
    function("free", Role::Free),
    function("cfree", Role::Free),
    function("free_sized", Role::Free),
    function("free_aligned_sized", Role::Free),
    function("memalign", Role::SizeSecond),
    function("aligned_alloc", Role::SizeSecond),
    function("posix_memalign", Role::PosixMemalign),
    function("valloc", Role::Malloc),
    function("pvalloc", Role::Malloc),
];
