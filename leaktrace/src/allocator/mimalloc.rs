//! mimalloc 1, 2 and 3: its own interface, and the C interface where it takes that over.
//!
//! Comes in: nothing. Goes out: two tables, the second with the functions whose first argument is a heap.
//! Never: what only calls others that are listed (`mi_cfree`, `mi_reallocarr`), nor the destruction of a whole
//! heap, whose blocks stay outstanding.

use super::{AllocatorTable, Function, Prefixes, Role, c, function, throwing};

pub(super) const TABLE: AllocatorTable = AllocatorTable {
    name: "mimalloc",
    marks: &[&["mi_free"], &["mi_malloc", "mi_malloc_aligned", "mi_zalloc"]],
    prefixes: Prefixes::Listed(&[""]),
    functions: &[c::FUNCTIONS, OVERRIDES, OWN],
};

pub(super) const HEAPS: AllocatorTable = AllocatorTable {
    name: "mimalloc",
    marks: &[&["malloc", "zalloc", "malloc_aligned"]],
    prefixes: Prefixes::Listed(&["mi_heap_", "mi_theap_"]),
    functions: &[HEAP],
};

/// Names that it takes over besides the C interface.
const OVERRIDES: &[Function] = &[
    function("__libc_malloc", Role::Malloc),
    function("__libc_calloc", Role::Calloc),
    function("__libc_realloc", Role::Realloc),
    function("__libc_free", Role::Free),
    function("__libc_memalign", Role::SizeSecond),
    function("__posix_memalign", Role::PosixMemalign),
    function("__libc_valloc", Role::Malloc),
    function("__libc_pvalloc", Role::Malloc),
    function("reallocf", Role::Realloc),
    function("vfree", Role::Free),
];

const OWN: &[Function] = &[
    function("mi_malloc", Role::Malloc),
    function("mi_malloc_small", Role::Malloc),
    function("mi_malloc_aligned", Role::Malloc),
    function("mi_malloc_aligned_at", Role::Malloc),
    function("mi_zalloc", Role::Malloc),
    function("mi_zalloc_small", Role::Malloc),
    function("mi_zalloc_aligned", Role::Malloc),
    function("mi_zalloc_aligned_at", Role::Malloc),
    function("mi_umalloc", Role::Malloc),
    function("mi_valloc", Role::Malloc),
    function("mi_pvalloc", Role::Malloc),
    function("mi_memalign", Role::SizeSecond),
    function("mi_aligned_alloc", Role::SizeSecond),
    function("mi_posix_memalign", Role::PosixMemalign),
    function("mi_calloc", Role::Calloc),
    function("mi_calloc_aligned", Role::Calloc),
    function("mi_calloc_aligned_at", Role::Calloc),
    function("mi_mallocn", Role::Calloc),
    function("mi_realloc", Role::Realloc),
    function("mi_reallocf", Role::Realloc),
    function("mi_realloc_aligned", Role::Realloc),
    function("mi_realloc_aligned_at", Role::Realloc),
    function("mi_rezalloc", Role::Realloc),
    function("mi_rezalloc_aligned", Role::Realloc),
    function("mi_rezalloc_aligned_at", Role::Realloc),
    function("mi_reallocn", Role::Reallocarray),
    function("mi_reallocarray", Role::Reallocarray),
    function("mi_recalloc", Role::Reallocarray),
    function("mi_recalloc_aligned", Role::Reallocarray),
    function("mi_recalloc_aligned_at", Role::Reallocarray),
    throwing("mi_new", Role::Malloc),
    throwing("mi_new_aligned", Role::Malloc),
    function("mi_new_nothrow", Role::Malloc),
    function("mi_new_aligned_nothrow", Role::Malloc),
    throwing("mi_new_n", Role::Calloc),
    throwing("mi_new_realloc", Role::Realloc),
    throwing("mi_new_reallocn", Role::Reallocarray),
    function("mi_free", Role::Free),
    function("mi_free_small", Role::Free),
    function("mi_free_size", Role::Free),
    function("mi_free_aligned", Role::Free),
    function("mi_free_size_aligned", Role::Free),
];

const HEAP: &[Function] = &[
    function("malloc", Role::SizeSecond),
    function("malloc_small", Role::SizeSecond),
    function("malloc_aligned", Role::SizeSecond),
    function("malloc_aligned_at", Role::SizeSecond),
    function("zalloc", Role::SizeSecond),
    function("zalloc_small", Role::SizeSecond),
    function("zalloc_aligned", Role::SizeSecond),
    function("zalloc_aligned_at", Role::SizeSecond),
    function("calloc", Role::CallocSecond),
    function("calloc_aligned", Role::CallocSecond),
    function("calloc_aligned_at", Role::CallocSecond),
    function("mallocn", Role::CallocSecond),
    function("realloc", Role::ReallocSecond),
    function("reallocf", Role::ReallocSecond),
    function("realloc_aligned", Role::ReallocSecond),
    function("realloc_aligned_at", Role::ReallocSecond),
    function("rezalloc", Role::ReallocSecond),
    function("rezalloc_aligned", Role::ReallocSecond),
    function("rezalloc_aligned_at", Role::ReallocSecond),
    throwing("alloc_new", Role::SizeSecond),
    throwing("alloc_new_n", Role::CallocSecond),
];
