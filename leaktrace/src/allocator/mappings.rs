//! The C library's functions that map memory.
//!
//! Comes in: nothing. Goes out: their table. Never: `brk`, which only moves the end of one mapping.

use super::{AllocatorTable, Function, Prefixes, Role, function};

pub(super) const TABLE: AllocatorTable = AllocatorTable {
    name: "mappings",
    marks: &[&["mmap", "mmap64"], &["munmap"]],
    prefixes: Prefixes::Listed(&[""]),
    functions: &[FUNCTIONS],
};

const FUNCTIONS: &[Function] = &[
    function("mmap", Role::Mmap),
    function("mmap64", Role::Mmap),
    function("__mmap", Role::Mmap),
    function("munmap", Role::Munmap),
    function("__munmap", Role::Munmap),
    function("mremap", Role::Mremap),
    function("__mremap", Role::Mremap),
];
