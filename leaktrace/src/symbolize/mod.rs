//! From return addresses to frames with function, file and line.
//!
//! Comes in: a stack's addresses, and the [`ModuleRegistry`] that knows where they were. Goes out:
//! [`Frame`]s, innermost first, inlined functions included. What is not known stays `None`; a file that can't
//! be read costs its own names and nothing else. Symbols are looked for in the file itself, in its debug file
//! ([`debug_file`]) and, for generated code, in the process's perf map ([`perf_map`]). Never: probes, verdicts,
//! the target's memory, the network.
//!
//! Cost: the first address of a file opens it and indexes its compilation units; a later one parses the
//! functions of a unit that no earlier one was in; a repeated one is a table look-up.

mod debug_file;
mod demangle;
mod object_symbols;
mod perf_map;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;

use self::debug_file::DebugFiles;
use self::object_symbols::{ObjectSymbols, Symbol};
use self::perf_map::PerfMap;
use crate::event::ProcessKey;
use crate::report::model::Frame;
use crate::target::{FileId, Location, ModuleFile, ModuleRegistry, Process, Root};

/// Resolved addresses kept: some tens of megabytes. A program with more call sites than that is resolved anew.
const MAX_CACHED: usize = 1 << 17;

/// Where to look, and how much to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Directories with separate debug files, as of this system; each is looked for in the target's file tree
    /// too. Like gdb's `debug-file-directory`.
    pub debug_directories: Vec<PathBuf>,
    /// Files whose symbol tables and debug information are kept in memory.
    pub loaded_files: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { debug_directories: vec![PathBuf::from("/usr/lib/debug")], loaded_files: 64 }
    }
}

/// Names addresses. Stays on the thread that made it.
#[derive(Debug)]
pub struct Symbolizer {
    options: Options,
    files: FxHashMap<FileId, FileSymbols>,
    generated: FxHashMap<ProcessKey, GeneratedCode>,
    cached: usize,
    /// Counts resolved stacks: the clock of what was used last.
    now: u64,
}

/// What is known of a file's addresses.
#[derive(Debug)]
struct FileSymbols {
    file: Weak<ModuleFile>,
    /// `None` until it is needed, or again when others were needed more.
    loaded: Option<ObjectSymbols>,
    /// By the file's own addresses.
    resolved: FxHashMap<u64, Box<[Symbol]>>,
    used: u64,
}

/// What is known of the code that a process generated.
#[derive(Debug, Default)]
struct GeneratedCode {
    perf_map: Option<PerfMap>,
    /// The first answer for each address counts: the code there may be replaced, but the stack is of the old.
    resolved: FxHashMap<u64, Option<Arc<str>>>,
}

impl Symbolizer {
    /// Without anything loaded yet.
    pub fn new(options: Options) -> Self {
        Self { options, files: FxHashMap::default(), generated: FxHashMap::default(), cached: 0, now: 0 }
    }

    /// The frames of a stack whose addresses all are return addresses, innermost first. Functions inlined at
    /// an address come before the one that they were inlined into, with the same address.
    pub fn resolve(
        &mut self,
        registry: &ModuleRegistry,
        process: ProcessKey,
        generation: u32,
        addresses: &[u64],
    ) -> Vec<Frame> {
        self.forget_what_is_gone(registry);
        self.now += 1;
        let mappings = registry.mappings(process, generation);
        let mut frames = Vec::with_capacity(addresses.len());
        for &address in addresses {
            // The call ends before the address that it returns to, which may be the next function's.
            let call = address.saturating_sub(1);
            let location = mappings.as_ref().and_then(|mappings| mappings.locate(call));
            let symbols = self.symbols(process, location.as_ref(), call);
            frames.extend(symbols.iter().map(|symbol| frame(address, location.as_ref(), symbol)));
        }
        frames
    }

    fn symbols(&mut self, process: ProcessKey, location: Option<&Location>, call: u64) -> Vec<Symbol> {
        let file = location.and_then(|location| location.file.as_ref());
        match (file, location) {
            // A file that is no ELF file is memory that a compiler writes its code to (memfd).
            (Some(file), Some(location)) if file.elf().is_some() || file.descriptor().is_err() => {
                self.in_file(process, file, location.offset)
            }
            (None, Some(location)) if &*location.module == "[vdso]" => vec![Symbol::default()],
            _ => vec![Symbol { function: self.in_generated_code(process, call), ..Symbol::default() }],
        }
    }

    fn in_file(&mut self, process: ProcessKey, file: &Arc<ModuleFile>, offset: u64) -> Vec<Symbol> {
        let Some(address) = file.elf().and_then(|elf| elf.address_of(offset)) else {
            return vec![Symbol::default()];
        };
        if self.cached >= MAX_CACHED {
            self.files.values_mut().for_each(|symbols| symbols.resolved.clear());
            self.cached = 0;
        }
        let symbols = self.files.entry(file.id()).or_insert_with(|| FileSymbols {
            file: Arc::downgrade(file),
            loaded: None,
            resolved: FxHashMap::default(),
            used: 0,
        });
        symbols.used = self.now;
        if let Some(known) = symbols.resolved.get(&address) {
            return known.to_vec();
        }
        let options = &self.options;
        let loaded = symbols.loaded.get_or_insert_with(|| load(file, process, options));
        let found = loaded.find(address);
        symbols.resolved.insert(address, found.clone().into());
        self.cached += 1;
        self.unload_beyond_the_limit();
        found
    }

    fn in_generated_code(&mut self, process: ProcessKey, address: u64) -> Option<Arc<str>> {
        let generated = self.generated.entry(process).or_default();
        if generated.resolved.len() >= MAX_CACHED {
            generated.resolved.clear();
        }
        let perf_map = &mut generated.perf_map;
        let find = || {
            if perf_map.is_none() {
                *perf_map = PerfMap::open(process);
            }
            perf_map.as_mut()?.find(address)
        };
        generated.resolved.entry(address).or_insert_with(find).clone()
    }

    /// Closes what only we still hold.
    fn forget_what_is_gone(&mut self, registry: &ModuleRegistry) {
        let cached = &mut self.cached;
        self.files.retain(|_, symbols| {
            let alive = symbols.file.strong_count() > 0;
            if !alive {
                *cached -= symbols.resolved.len();
            }
            alive
        });
        self.generated.retain(|process, _| registry.exe(*process).is_some());
    }

    fn unload_beyond_the_limit(&mut self) {
        let loaded = || self.files.values().filter(|symbols| symbols.loaded.is_some());
        if loaded().count() > self.options.loaded_files
            && let Some(oldest) = loaded().map(|symbols| symbols.used).min()
            && let Some(symbols) =
                self.files.values_mut().find(|symbols| symbols.loaded.is_some() && symbols.used == oldest)
        {
            symbols.loaded = None;
        }
    }
}

fn load(file: &ModuleFile, process: ProcessKey, options: &Options) -> ObjectSymbols {
    let target = Process::open_same(process).ok().and_then(|process| process.root().ok());
    let debug_files = DebugFiles { directories: &options.debug_directories, own: Root::own().ok(), target };
    ObjectSymbols::load(file, &debug_files)
}

fn frame(address: u64, location: Option<&Location>, symbol: &Symbol) -> Frame {
    Frame {
        address: format!("{address:#x}"),
        module: location.map(|location| location.module.to_string()).unwrap_or_default(),
        build_id: location.and_then(|location| location.file.as_ref()?.build_id()).map(ToString::to_string),
        // The location is the call's.
        offset: format!("{:#x}", location.map_or(address, |location| location.offset + 1)),
        function: symbol.function.as_deref().map(ToString::to_string),
        file: symbol.file.as_deref().map(ToString::to_string),
        line: symbol.line,
        inlined: symbol.inlined,
    }
}
