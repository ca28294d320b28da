//! A traced process seen from outside: who it is, what code is mapped into it, which files that code came from.
//!
//! Comes in: pids, and `/proc`. Goes out: [`Process`] for who and how big, [`ModuleRegistry`] for which file and
//! offset an address belonged to at a time, and the files themselves, still readable after the process is gone.
//! Never: probes, symbols, the target's memory.

mod elf;
mod files;
mod maps;
mod modules;
mod process;
mod root;
mod shadow_stack;

pub use elf::{Elf, ElfType};
pub(crate) use files::descriptor_path;
pub use files::{FileId, ModuleFile, Unkept, raise_descriptor_limit};
pub use modules::{Location, Mapping, Mappings, ModuleRegistry, RegistryStats};
pub use process::{Exe, Listed, Process, ProcessError, list};
pub use root::Root;

#[cfg(test)]
pub(crate) mod programs;
