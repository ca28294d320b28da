//! The symbols of one ELF file, by blazesym: from its debug information, else its symbol tables.
//!
//! Comes in: a file that the registry keeps, and where debug files are. Goes out: the functions at an address.
//! Files are opened by descriptor, so the answer is right even if the path now names another file. Never:
//! processes; fails.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};
use rustc_hash::FxHashSet;

use super::debug_file::{DebugFiles, Sections};
use super::demangle::demangle;
use crate::target::{ModuleFile, descriptor_path};

/// How far a symbol without a size reaches. An assembler function is short; beyond it lies code whose symbols
/// were stripped.
const SIZELESS_REACH: usize = 4096;

/// A function at an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Symbol {
    /// Demangled.
    pub function: Option<Arc<str>>,
    /// Source file.
    pub file: Option<Arc<str>>,
    /// Line in it.
    pub line: Option<u32>,
    /// Whether it was inlined into the next.
    pub inlined: bool,
}

/// The symbols of a file.
#[derive(Debug)]
pub(super) struct ObjectSymbols {
    /// One for each file, so that dropping it frees all and no other file is mistaken for it.
    symbolizer: Symbolizer,
    /// Best first.
    sources: Vec<Source<'static>>,
    /// Keeps the sources' paths valid.
    _open: Vec<File>,
    names: Names,
}

/// Each name once: thousands of addresses lie in a handful of source files.
#[derive(Debug, Default)]
struct Names(FxHashSet<Arc<str>>);

impl ObjectSymbols {
    /// Opens the file and its debug file. Parses nothing yet.
    pub fn load(file: &ModuleFile, debug_files: &DebugFiles<'_>) -> Self {
        let mut sources = Vec::new();
        let mut open = Vec::new();
        match file.open(debug_files.target.as_ref()) {
            Err(error) => tracing::warn!(path = %file.path().display(), "no symbols: can't open it: {error}"),
            Ok(object) => {
                let sections = Sections::read(&object);
                if !sections.debug_info
                    && let Some(debug) = debug_files.find(file, &sections)
                {
                    sources.push(source(descriptor_path(&debug), true));
                    open.push(debug);
                }
                if sections.debug_info {
                    sources.push(source(path_with_package(file.path(), &object), true));
                }
                sources.push(source(descriptor_path(&object), false));
                open.push(object);
            }
        }
        let symbolizer = Symbolizer::builder()
            .enable_auto_reload(false)
            .enable_demangling(false)
            .set_debug_dirs(Some(debug_files.directories))
            .build();
        Self { symbolizer, sources, _open: open, names: Names::default() }
    }

    /// The functions at an address of the file, innermost first; at least one, of which nothing may be known.
    pub fn find(&mut self, address: u64) -> Vec<Symbol> {
        let mut found = None;
        let (symbolizer, names) = (&self.symbolizer, &mut self.names);
        self.sources.retain(|source| {
            if found.is_some() {
                return true;
            }
            match symbolizer.symbolize_single(source, Input::VirtOffset(address)) {
                Ok(Symbolized::Sym(symbol)) => found = names.functions(&symbol),
                Ok(Symbolized::Unknown(_)) => {}
                Err(error) => {
                    // It would fail, and take as long, for the next address too.
                    tracing::warn!("symbols are not used: {source:?}: {error}");
                    return false;
                }
            }
            true
        });
        found.unwrap_or_else(|| vec![Symbol::default()])
    }
}

fn source(path: PathBuf, debug_syms: bool) -> Source<'static> {
    let mut elf = Elf::new(path);
    elf.debug_syms = debug_syms;
    Source::Elf(elf)
}

/// A path under which the file's DWARF package (`PATH.dwp`) is found if it has one and still is at its path.
fn path_with_package(path: &Path, object: &File) -> PathBuf {
    let mut package = path.as_os_str().to_owned();
    package.push(".dwp");
    let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    match (Path::new(&package).exists(), path.metadata(), object.metadata()) {
        (true, Ok(named), Ok(open)) if same(&named, &open) => path.to_path_buf(),
        _ => descriptor_path(object),
    }
}

impl Names {
    /// Innermost first; `None` if it is no answer.
    fn functions(&mut self, symbol: &Sym<'_>) -> Option<Vec<Symbol>> {
        if symbol.name.is_empty() || (symbol.size.is_none() && symbol.offset > SIZELESS_REACH) {
            return None;
        }
        let inlined = symbol.inlined.iter().rev();
        let mut functions: Vec<_> =
            inlined.map(|f| self.function(&f.name, f.code_info.as_ref(), true)).collect();
        functions.push(self.function(&symbol.name, symbol.code_info.as_deref(), false));
        Some(functions)
    }

    fn function(&mut self, name: &str, code: Option<&CodeInfo<'_>>, inlined: bool) -> Symbol {
        Symbol {
            function: (!name.is_empty()).then(|| self.once(&demangle(name))),
            file: code.map(|code| self.once(&code.to_path().to_string_lossy())),
            line: code.and_then(|code| code.line),
            inlined,
        }
    }

    fn once(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let new = Arc::<str>::from(name);
        self.0.insert(Arc::clone(&new));
        new
    }
}
