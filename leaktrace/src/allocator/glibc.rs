//! The GNU C library, shared or linked in.
//!
//! Comes in: nothing. Goes out: its table. The `__libc_` names are other names of the same functions, unless a
//! static program has replaced `malloc` and the library's own calls go past the replacement. Never: the
//! loader's first small allocator (`__minimal_malloc`), whose blocks nobody frees.

use super::{AllocatorTable, Function, Prefixes, Role, c, function};

pub(super) const TABLE: AllocatorTable = AllocatorTable {
    name: "glibc",
    marks: &[&["gnu_get_libc_version", "__libc_setup_tls"]],
    prefixes: Prefixes::Listed(&[""]),
    functions: &[c::FUNCTIONS, OWN_NAMES],
};

const OWN_NAMES: &[Function] = &[
    function("__libc_malloc", Role::Malloc),
    function("__libc_calloc", Role::Calloc),
    function("__libc_realloc", Role::Realloc),
    function("__libc_reallocarray", Role::Reallocarray),
    function("__libc_free", Role::Free),
    function("__libc_memalign", Role::SizeSecond),
    function("__posix_memalign", Role::PosixMemalign),
    function("__libc_valloc", Role::Malloc),
    function("__libc_pvalloc", Role::Malloc),
];
