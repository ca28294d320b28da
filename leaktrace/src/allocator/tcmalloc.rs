//! The two tcmallocs: gperftools' (`tc_malloc`) and Google's (`TCMallocInternalMalloc`).
//!
//! Comes in: nothing. Goes out: a table each. Their names are other names of `malloc`, `operator new` and so
//! on, unless a program links them beside another `malloc`. Never: sampling hooks.

use super::{AllocatorTable, Function, Prefixes, Role, c, function, throwing};

pub(super) const GPERFTOOLS: AllocatorTable = AllocatorTable {
    name: "tcmalloc (gperftools)",
    marks: &[&["tc_malloc"]],
    prefixes: Prefixes::Listed(&[""]),
    functions: &[c::FUNCTIONS, OVERRIDES, TC],
};

pub(super) const GOOGLE: AllocatorTable = AllocatorTable {
    name: "tcmalloc",
    marks: &[&["TCMallocInternalMalloc", "TCMallocInternalNew"]],
    prefixes: Prefixes::Listed(&[""]),
    functions: &[c::FUNCTIONS, OVERRIDES, INTERNAL],
};

const OVERRIDES: &[Function] = &[
    function("sdallocx", Role::Free),
    function("__libc_malloc", Role::Malloc),
    function("__libc_calloc", Role::Calloc),
    function("__libc_realloc", Role::Realloc),
    function("__libc_free", Role::Free),
    function("__libc_memalign", Role::SizeSecond),
    function("__posix_memalign", Role::PosixMemalign),
    function("__libc_valloc", Role::Malloc),
    function("__libc_pvalloc", Role::Malloc),
];

const TC: &[Function] = &[
    function("tc_malloc", Role::Malloc),
    function("tc_malloc_skip_new_handler", Role::Malloc),
    function("tc_calloc", Role::Calloc),
    function("tc_realloc", Role::Realloc),
    function("tc_memalign", Role::SizeSecond),
    function("tc_posix_memalign", Role::PosixMemalign),
    function("tc_valloc", Role::Malloc),
    function("tc_pvalloc", Role::Malloc),
    throwing("tc_new", Role::Malloc),
    throwing("tc_newarray", Role::Malloc),
    throwing("tc_new_aligned", Role::Malloc),
    throwing("tc_newarray_aligned", Role::Malloc),
    function("tc_new_nothrow", Role::Malloc),
    function("tc_newarray_nothrow", Role::Malloc),
    function("tc_new_aligned_nothrow", Role::Malloc),
    function("tc_newarray_aligned_nothrow", Role::Malloc),
    function("tc_free", Role::Free),
    function("tc_cfree", Role::Free),
    function("tc_free_sized", Role::Free),
    function("tc_delete", Role::Free),
    function("tc_deletearray", Role::Free),
    function("tc_delete_sized", Role::Free),
    function("tc_deletearray_sized", Role::Free),
    function("tc_delete_aligned", Role::Free),
    function("tc_deletearray_aligned", Role::Free),
    function("tc_delete_sized_aligned", Role::Free),
    function("tc_deletearray_sized_aligned", Role::Free),
    function("tc_delete_nothrow", Role::Free),
    function("tc_deletearray_nothrow", Role::Free),
    function("tc_delete_aligned_nothrow", Role::Free),
    function("tc_deletearray_aligned_nothrow", Role::Free),
];

const INTERNAL: &[Function] = &[
    function("TCMallocInternalMalloc", Role::Malloc),
    function("TCMallocInternalCalloc", Role::Calloc),
    function("TCMallocInternalRealloc", Role::Realloc),
    function("TCMallocInternalReallocArray", Role::Reallocarray),
    function("TCMallocInternalMemalign", Role::SizeSecond),
    function("TCMallocInternalAlignedAlloc", Role::SizeSecond),
    function("TCMallocInternalPosixMemalign", Role::PosixMemalign),
    function("TCMallocInternalValloc", Role::Malloc),
    function("TCMallocInternalPvalloc", Role::Malloc),
    throwing("TCMallocInternalNew", Role::Malloc),
    throwing("TCMallocInternalNewArray", Role::Malloc),
    throwing("TCMallocInternalNewAligned", Role::Malloc),
    throwing("TCMallocInternalNewArrayAligned", Role::Malloc),
    function("TCMallocInternalNewNothrow", Role::Malloc),
    function("TCMallocInternalNewArrayNothrow", Role::Malloc),
    function("TCMallocInternalNewAlignedNothrow", Role::Malloc),
    function("TCMallocInternalNewArrayAlignedNothrow", Role::Malloc),
    // These return a pointer and a size in two registers; the pointer is in the usual one.
    throwing("TCMallocInternalSizeReturningNew", Role::Malloc),
    throwing("TCMallocInternalSizeReturningNewAligned", Role::Malloc),
    throwing("__size_returning_new", Role::Malloc),
    throwing("__size_returning_new_aligned", Role::Malloc),
    throwing("__size_returning_new_hot_cold", Role::Malloc),
    throwing("__size_returning_new_aligned_hot_cold", Role::Malloc),
    function("TCMallocInternalFree", Role::Free),
    function("TCMallocInternalCfree", Role::Free),
    function("TCMallocInternalFreeSized", Role::Free),
    function("TCMallocInternalFreeAlignedSized", Role::Free),
    function("TCMallocInternalSdallocx", Role::Free),
    function("TCMallocInternalDelete", Role::Free),
    function("TCMallocInternalDeleteArray", Role::Free),
    function("TCMallocInternalDeleteSized", Role::Free),
    function("TCMallocInternalDeleteArraySized", Role::Free),
    function("TCMallocInternalDeleteAligned", Role::Free),
    function("TCMallocInternalDeleteArrayAligned", Role::Free),
    function("TCMallocInternalDeleteSizedAligned", Role::Free),
    function("TCMallocInternalDeleteArraySizedAligned", Role::Free),
    function("TCMallocInternalDeleteNothrow", Role::Free),
    function("TCMallocInternalDeleteArrayNothrow", Role::Free),
    function("TCMallocInternalDeleteAlignedNothrow", Role::Free),
    function("TCMallocInternalDeleteArrayAlignedNothrow", Role::Free),
];
