//! Which allocators a file holds, and where their functions are.
//!
//! Comes in: the functions that a file defines. Goes out: one claim per address and role. Never: looks at code.

use std::sync::LazyLock;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{AllocatorTable, Function, Prefixes, Role, TABLES, delegate, loader};
use crate::probe::elf::{ElfError, Image, Symbol, SymbolTable};

/// A function that belongs to an allocator.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// Which.
    pub table: &'static AllocatorTable,
    /// Its symbol.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Whether an exception may leave it.
    pub throws: bool,
    /// Virtual address.
    pub address: u64,
    /// Bytes of code, 0 if unknown.
    pub size: u64,
}

/// The functions of a file whose names matter.
#[derive(Debug, Default)]
pub(super) struct Defined<'d> {
    by_name: FxHashMap<&'d [u8], Vec<Symbol<'d>>>,
    /// Prefixes of tables that accept any.
    prefixes: FxHashSet<&'d str>,
}

/// Every name that is looked for in every file, with its role if it has one.
static WANTED: LazyLock<FxHashMap<Vec<u8>, Option<Role>>> = LazyLock::new(|| {
    let mut wanted = FxHashMap::default();
    for name in delegate::NO_RETURN.iter().chain([&loader::C_LIBRARY]) {
        wanted.insert(name.as_bytes().to_vec(), None);
    }
    for table in TABLES {
        let prefixes = match table.prefixes {
            Prefixes::Listed(prefixes) => prefixes,
            Prefixes::Any => &[""],
        };
        for prefix in prefixes {
            for mark in table.marks.iter().copied().flatten() {
                wanted.entry(format!("{prefix}{mark}").into_bytes()).or_insert(None);
            }
            for function in table.functions.iter().copied().flatten() {
                wanted.insert(format!("{prefix}{}", function.name).into_bytes(), Some(function.role));
            }
        }
    }
    wanted
});

/// Length of the longest name of interest; a prefix of a dozen bytes is allowed for.
static LONGEST: LazyLock<usize> = LazyLock::new(|| WANTED.keys().map(Vec::len).max().unwrap_or(0).max(32));

/// First mark of each table whose prefix is not known beforehand.
fn open_marks() -> impl Iterator<Item = &'static str> {
    TABLES.iter().filter(|t| t.prefixes == Prefixes::Any).filter_map(|t| t.marks.first()?.first().copied())
}

/// The role of a function of another file, by its name.
pub(super) fn role_of(name: &[u8]) -> Option<Role> {
    WANTED.get(name).copied().flatten()
}

impl<'d> Defined<'d> {
    /// Reads the symbol tables of each image: the file itself, and its debug file.
    pub(super) fn read(images: &[Image<'d>]) -> Result<Self, ElfError> {
        let mut defined = Self::default();
        defined.scan(images, |name, prefixes| {
            for mark in open_marks() {
                if let Some(prefix) = name.strip_suffix(mark.as_bytes()) {
                    prefixes.extend(std::str::from_utf8(prefix).ok().filter(|p| !p.is_empty()));
                }
            }
            WANTED.contains_key(name)
        })?;
        let prefixes = std::mem::take(&mut defined.prefixes);
        if !prefixes.is_empty() {
            // A second look costs only the few files that have a prefixed allocator.
            defined.scan(images, |name, _| prefixes.iter().any(|p| name.starts_with(p.as_bytes())))?;
        }
        defined.prefixes = prefixes;
        Ok(defined)
    }

    fn scan(
        &mut self,
        images: &[Image<'d>],
        mut wanted: impl FnMut(&'d [u8], &mut FxHashSet<&'d str>) -> bool,
    ) -> Result<(), ElfError> {
        for image in images {
            for table in [SymbolTable::Dynamic, SymbolTable::Full] {
                image.functions(table, *LONGEST, |symbol| {
                    if wanted(symbol.name, &mut self.prefixes) {
                        let same_name = self.by_name.entry(symbol.name).or_default();
                        if !same_name.iter().any(|known| known.address == symbol.address) {
                            same_name.push(symbol);
                        }
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Addresses of the functions of a name.
    pub(super) fn addresses(&self, name: &str) -> impl Iterator<Item = u64> {
        self.by_name.get(name.as_bytes()).into_iter().flatten().map(|s| s.address)
    }

    fn has(&self, prefix: &str, name: &str) -> bool {
        self.by_name.contains_key(format!("{prefix}{name}").as_bytes())
    }

    /// What each table claims, each address and role once.
    pub(super) fn claims(&self) -> Vec<Claim> {
        // glibc's loader has an allocator of its own, whose blocks nobody frees.
        let loader_only = self.has("", loader::TABLE.marks[0][0]) && !self.has("", loader::C_LIBRARY);
        let tables = if loader_only { &[&loader::TABLE] } else { TABLES };
        let mut claims: Vec<Claim> = Vec::new();
        for table in tables {
            for prefix in self.prefixes_of(table) {
                for function in table.functions.iter().copied().flatten() {
                    self.claim(table, prefix, function, &mut claims);
                }
            }
        }
        claims
    }

    /// The prefixes with which a table's marks are there.
    fn prefixes_of(&self, table: &AllocatorTable) -> Vec<&str> {
        let candidates: Vec<&str> = match table.prefixes {
            Prefixes::Listed(listed) => listed.to_vec(),
            Prefixes::Any => self.prefixes.iter().copied().chain([""]).collect(),
        };
        let all = |prefix: &str| table.marks.iter().all(|any| any.iter().any(|mark| self.has(prefix, mark)));
        candidates.into_iter().filter(|prefix| all(prefix)).collect()
    }

    fn claim(
        &self,
        table: &'static AllocatorTable,
        prefix: &str,
        function: &Function,
        claims: &mut Vec<Claim>,
    ) {
        let name = format!("{prefix}{}", function.name);
        for symbol in self.by_name.get(name.as_bytes()).into_iter().flatten() {
            let known = claims.iter_mut().find(|c| c.address == symbol.address && c.role == function.role);
            match known {
                Some(known) => {
                    known.throws |= function.throws;
                    known.size = known.size.max(symbol.size);
                }
                None => claims.push(Claim {
                    table,
                    name: name.clone(),
                    role: function.role,
                    throws: function.throws,
                    address: symbol.address,
                    size: symbol.size,
                }),
            }
        }
    }
}
