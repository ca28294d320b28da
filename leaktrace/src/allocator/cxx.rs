//! `operator new` and `operator delete`: of libstdc++ and libc++, which call `malloc` and `free`, of
//! allocators, which often don't, and of programs that replace them.
//!
//! Comes in: nothing. Goes out: their table; [`super::discover`] finds out which kind each is. Never: a class's
//! own operators.

use super::{AllocatorTable, Function, Prefixes, Role, function, throwing};

pub(super) const TABLE: AllocatorTable = AllocatorTable {
    name: NAME,
    marks: &[&["_Znwm", "_Znam", "_ZnwmSt11align_val_t", "_ZnwmRKSt9nothrow_t"]],
    prefixes: Prefixes::Listed(&[""]),
    functions: &[OPERATORS],
};

/// Name of the table.
pub(super) const NAME: &str = "C++ operators";

const OPERATORS: &[Function] = &[
    throwing("_Znwm", Role::Malloc),
    throwing("_Znam", Role::Malloc),
    throwing("_ZnwmSt11align_val_t", Role::Malloc),
    throwing("_ZnamSt11align_val_t", Role::Malloc),
    function("_ZnwmRKSt9nothrow_t", Role::Malloc),
    function("_ZnamRKSt9nothrow_t", Role::Malloc),
    function("_ZnwmSt11align_val_tRKSt9nothrow_t", Role::Malloc),
    function("_ZnamSt11align_val_tRKSt9nothrow_t", Role::Malloc),
    // Google's hint how long a block will live.
    throwing("_Znwm12__hot_cold_t", Role::Malloc),
    throwing("_Znam12__hot_cold_t", Role::Malloc),
    throwing("_ZnwmSt11align_val_t12__hot_cold_t", Role::Malloc),
    throwing("_ZnamSt11align_val_t12__hot_cold_t", Role::Malloc),
    function("_ZnwmRKSt9nothrow_t12__hot_cold_t", Role::Malloc),
    function("_ZnamRKSt9nothrow_t12__hot_cold_t", Role::Malloc),
    function("_ZnwmSt11align_val_tRKSt9nothrow_t12__hot_cold_t", Role::Malloc),
    function("_ZnamSt11align_val_tRKSt9nothrow_t12__hot_cold_t", Role::Malloc),
    function("_ZdlPv", Role::Free),
    function("_ZdaPv", Role::Free),
    function("_ZdlPvm", Role::Free),
    function("_ZdaPvm", Role::Free),
    function("_ZdlPvSt11align_val_t", Role::Free),
    function("_ZdaPvSt11align_val_t", Role::Free),
    function("_ZdlPvmSt11align_val_t", Role::Free),
    function("_ZdaPvmSt11align_val_t", Role::Free),
    function("_ZdlPvRKSt9nothrow_t", Role::Free),
    function("_ZdaPvRKSt9nothrow_t", Role::Free),
    function("_ZdlPvSt11align_val_tRKSt9nothrow_t", Role::Free),
    function("_ZdaPvSt11align_val_tRKSt9nothrow_t", Role::Free),
];
