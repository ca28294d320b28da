//! Which functions allocate and free, and how each is probed.
//!
//! Comes in: a program or library. Goes out: [`discover`]'s probe points, one table per allocator deciding what
//! counts. An allocator is known by the functions that a file defines, never by the file's name: it may be
//! linked in, hidden, or prefixed. Never: attaches a probe.

mod c;
mod custom;
mod cxx;
mod delegate;
mod discover;
mod glibc;
mod jemalloc;
mod loader;
mod mappings;
mod mimalloc;
mod musl;
mod recognise;
mod returns;
mod tcmalloc;
#[cfg(test)]
mod tests;

pub use discover::{DiscoverError, Discovery, Exit, ProbePoint, Problem, discover};

use iced_x86::Register;

/// What a function does and where its arguments are: one BPF program each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// `f(size, …)` returns a block.
    Malloc,
    /// `f(_, size, …)` returns a block.
    SizeSecond,
    /// `f(count, size, …)` returns a block.
    Calloc,
    /// `f(_, count, size, …)` returns a block.
    CallocSecond,
    /// `f(block, size, …)` returns the block's new place.
    Realloc,
    /// `f(_, block, size, …)` returns the block's new place.
    ReallocSecond,
    /// `f(block, count, size, …)` returns the block's new place.
    Reallocarray,
    /// `f(&block, _, size)` returns 0 and sets `block`.
    PosixMemalign,
    /// `f(block, …)` gives a block back.
    Free,
    /// The same after the function has moved the block's address to its second argument's register.
    FreeSecond,
    /// A C++ `operator new` that calls one of the above: its caller is the site. Seen at its entry only.
    New,
    /// `mmap(_, length, …)`.
    Mmap,
    /// `munmap(address, length)`.
    Munmap,
    /// `mremap(address, old length, new length, flags)`.
    Mremap,
    /// The dynamic loader has mapped or unmapped libraries.
    LoaderState,
}

impl Role {
    /// Registers that a probe reads at the entry, in the order of the role's description.
    pub const fn arguments(self) -> &'static [Register] {
        match self {
            Self::Malloc | Self::Free => &[Register::RDI],
            Self::SizeSecond | Self::FreeSecond | Self::Mmap => &[Register::RSI],
            Self::Calloc | Self::Realloc | Self::Munmap => &[Register::RDI, Register::RSI],
            Self::CallocSecond | Self::ReallocSecond => &[Register::RSI, Register::RDX],
            Self::Reallocarray => &[Register::RDI, Register::RSI, Register::RDX],
            Self::PosixMemalign => &[Register::RDI, Register::RDX],
            Self::Mremap => &[Register::RDI, Register::RSI, Register::RDX, Register::RCX],
            Self::New | Self::LoaderState => &[],
        }
    }

    /// The role that does the same with its arguments one register further on, or back. Where a function has
    /// moved its arguments so, the other role's probe can take over.
    const fn shifted(self) -> Option<Self> {
        Some(match self {
            Self::Malloc => Self::SizeSecond,
            Self::SizeSecond => Self::Malloc,
            Self::Calloc => Self::CallocSecond,
            Self::CallocSecond => Self::Calloc,
            Self::Realloc => Self::ReallocSecond,
            Self::ReallocSecond => Self::Realloc,
            Self::Free => Self::FreeSecond,
            _ => return None,
        })
    }

    /// Whether it hands out heap blocks.
    const fn allocates(self) -> bool {
        matches!(
            self,
            Self::Malloc
                | Self::SizeSecond
                | Self::Calloc
                | Self::CallocSecond
                | Self::Realloc
                | Self::ReallocSecond
                | Self::Reallocarray
                | Self::PosixMemalign
        )
    }

    /// Whether what it returns must be seen.
    const fn returns_something(self) -> bool {
        !matches!(self, Self::Free | Self::FreeSecond | Self::New | Self::LoaderState)
    }
}

/// A row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Function {
    /// Its symbol, without the table's prefix.
    name: &'static str,
    /// What it does.
    role: Role,
    /// Whether an exception may leave it: a return probe would then end the program.
    throws: bool,
}

const fn function(name: &'static str, role: Role) -> Function {
    Function { name, role, throws: false }
}

const fn throwing(name: &'static str, role: Role) -> Function {
    Function { name, role, throws: true }
}

/// What may stand before a table's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefixes {
    /// One of these.
    Listed(&'static [&'static str]),
    /// Whatever the build was configured with.
    Any,
}

/// One allocator, or another source of memory.
#[derive(Debug)]
struct AllocatorTable {
    /// Its name.
    name: &'static str,
    /// It is there if a file defines, of each group, at least one function, all with the same prefix.
    marks: &'static [&'static [&'static str]],
    /// What may stand before the names of `marks`, and of `functions`.
    prefixes: Prefixes,
    /// Its functions.
    functions: &'static [&'static [Function]],
}

/// All of them. A function that several tables list belongs to the first that a file has.
const TABLES: &[&AllocatorTable] = &[
    &jemalloc::TABLE,
    &mimalloc::TABLE,
    &mimalloc::HEAPS,
    &tcmalloc::GPERFTOOLS,
    &tcmalloc::GOOGLE,
    &glibc::TABLE,
    &musl::TABLE,
    &custom::TABLE,
    &cxx::TABLE,
    &mappings::TABLE,
    &loader::TABLE,
];
