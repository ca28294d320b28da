//! What code was mapped where, in which process, when.
//!
//! Comes in: the word that a process's mappings have changed, with their new generation
//! ([`leaktrace_common::process::Traced::generation`]). Goes out: for an address of a generation, the file and
//! the offset in it; also after the process unmapped the file, ran another program or ended. Shared between
//! the thread that arms processes and the one that reports. Never: symbols; data mappings.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};

use super::files::{FileId, FileTable, ModuleFile};
use super::maps;
use super::process::{Process, ProcessError, without_deleted};
use crate::event::ProcessKey;

/// Generations kept per process. A Python program that imports every extension module it can find has some
/// hundred; the oldest are dropped, and their addresses are then looked up in the next younger one.
const MAX_GENERATIONS: usize = 256;

/// An executable mapping.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Offset of `start` in the file.
    pub file_offset: u64,
    /// Path as the process sees it, without ` (deleted)`; a name in brackets such as `[vdso]`; or empty.
    pub module: Arc<str>,
    /// `None` for what is in no file: the vDSO, code that the process generated.
    pub file: Option<Arc<ModuleFile>>,
}

impl PartialEq for Mapping {
    fn eq(&self, other: &Self) -> bool {
        let place = |mapping: &Self| (mapping.start, mapping.end, mapping.file_offset);
        place(self) == place(other)
            && self.module == other.module
            && self.file.as_ref().map(|file| file.id()) == other.file.as_ref().map(|file| file.id())
    }
}

/// The executable mappings of a process at one time.
#[derive(Debug, PartialEq)]
pub struct Mappings {
    exe: Arc<str>,
    by_address: Box<[Mapping]>,
}

/// Where an address is.
#[derive(Debug, Clone)]
pub struct Location {
    /// See [`Mapping::module`].
    pub module: Arc<str>,
    /// See [`Mapping::file`].
    pub file: Option<Arc<ModuleFile>>,
    /// Offset in the file; without one, in the module; without that, the address itself.
    pub offset: u64,
}

impl Mappings {
    /// The program that ran; empty if it may not be known.
    pub fn exe(&self) -> &Arc<str> {
        &self.exe
    }

    /// The mappings, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.by_address.iter()
    }

    /// The files, each once, by address of their first mapping.
    pub fn files(&self) -> impl Iterator<Item = &Arc<ModuleFile>> {
        let mut seen = FxHashSet::default();
        self.by_address.iter().filter_map(|m| m.file.as_ref()).filter(move |file| seen.insert(file.id()))
    }

    /// Whether every file mapping of `earlier` is still where it was.
    fn has_all_of(&self, earlier: &Self) -> bool {
        let mut files = earlier.by_address.iter().filter(|mapping| mapping.file.is_some());
        files.all(|mapping| match self.by_address.binary_search_by_key(&mapping.start, |m| m.start) {
            Ok(at) => self.by_address[at] == *mapping,
            Err(_) => false,
        })
    }

    /// Where an address is; `None` if nothing executable is there.
    pub fn locate(&self, address: u64) -> Option<Location> {
        let after = self.by_address.partition_point(|mapping| mapping.start <= address);
        let mapping = self.by_address[..after].last().filter(|mapping| address < mapping.end)?;
        let within = address - mapping.start;
        let offset = match &mapping.file {
            Some(_) => mapping.file_offset + within,
            None if mapping.module.is_empty() => address,
            None => within,
        };
        Some(Location { module: Arc::clone(&mapping.module), file: mapping.file.clone(), offset })
    }
}

/// Device and inode, as `/proc/PID/maps` has them.
type Inode = ((u32, u32), u64);

/// Generations of one process.
type History = BTreeMap<u32, Arc<Mappings>>;

/// The mappings of all traced processes through time.
#[derive(Debug)]
pub struct ModuleRegistry {
    files: FileTable,
    histories: Mutex<FxHashMap<ProcessKey, History>>,
    dropped: AtomicU64,
}

/// How complete a registry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistryStats {
    /// Files kept open.
    pub open_files: usize,
    /// Files known by their path only: symbols are lost when their process ends.
    pub unkept_files: usize,
    /// Generations dropped because a process had too many.
    pub dropped_generations: u64,
}

impl ModuleRegistry {
    /// Keeps at most so many files open.
    pub fn new(open_files: usize) -> Self {
        Self { files: FileTable::new(open_files), histories: Mutex::default(), dropped: AtomicU64::new(0) }
    }

    /// Reads what the process has mapped now and remembers it as `generation`.
    pub fn capture(&self, process: ProcessKey, generation: u32) -> Result<Arc<Mappings>, ProcessError> {
        let captured = self.read(&Process::open_same(process)?)?;
        Ok(self.remember(process, generation, captured))
    }

    /// Reads what the process has mapped now, after its library list changed. While all that `generation` had is
    /// still there, addresses mean what they meant, and this is the same generation; else it is the next one,
    /// and `true`.
    pub fn capture_change(
        &self,
        process: ProcessKey,
        generation: u32,
    ) -> Result<(Arc<Mappings>, bool), ProcessError> {
        let captured = self.read(&Process::open_same(process)?)?;
        let before = self.lock().get(&process).and_then(|history| history.get(&generation).cloned());
        let moved_on = before.is_some_and(|before| !captured.has_all_of(&before));
        Ok((self.remember(process, generation + u32::from(moved_on), captured), moved_on))
    }

    fn remember(&self, process: ProcessKey, generation: u32, captured: Mappings) -> Arc<Mappings> {
        let mut histories = self.lock();
        let history = histories.entry(process).or_default();
        // Most often a plugin came and went: no need to have the same list twice.
        let before = history.range(..=generation).next_back().map(|(_, mappings)| mappings);
        let captured = match before {
            Some(before) if **before == captured => Arc::clone(before),
            _ => Arc::new(captured),
        };
        history.insert(generation, Arc::clone(&captured));
        while history.len() > MAX_GENERATIONS {
            history.pop_first();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        captured
    }

    /// A child starts with its parent's mappings, and may be gone before anyone can look.
    pub fn forked(&self, parent: ProcessKey, child: ProcessKey) {
        let mut histories = self.lock();
        if let Some(inherited) = histories.get(&parent).cloned() {
            let history = histories.entry(child).or_default();
            for (generation, mappings) in inherited {
                history.entry(generation).or_insert(mappings);
            }
        }
    }

    /// Drops all that is known of a process, and closes the files that only it used.
    pub fn forget(&self, process: ProcessKey) {
        // The files are closed after the lock is released.
        let _history = self.lock().remove(&process);
    }

    /// The mappings of a generation; if they were not captured, those of the nearest earlier one of the same
    /// program, else of the next later one.
    pub fn mappings(&self, process: ProcessKey, generation: u32) -> Option<Arc<Mappings>> {
        // The upper half counts programs: what one maps says nothing of the next.
        let program = (generation & 0xffff_0000)..=(generation | 0xffff);
        let histories = self.lock();
        let history = histories.get(&process)?;
        let earlier = history.range(*program.start()..=generation).next_back();
        let (_, mappings) = earlier.or_else(|| history.range(generation..=*program.end()).next())?;
        Some(Arc::clone(mappings))
    }

    /// Where an address was in a generation, by [`Self::mappings`].
    pub fn locate(&self, process: ProcessKey, generation: u32, address: u64) -> Option<Location> {
        self.mappings(process, generation)?.locate(address)
    }

    /// The program that a process runs, or ran last.
    pub fn exe(&self, process: ProcessKey) -> Option<Arc<str>> {
        let histories = self.lock();
        let (_, latest) = histories.get(&process)?.last_key_value()?;
        Some(Arc::clone(&latest.exe))
    }

    /// A file, as long as any process has it in its history or anyone holds it.
    pub fn file(&self, id: FileId) -> Option<Arc<ModuleFile>> {
        self.files.get(id)
    }

    /// How complete it is.
    pub fn stats(&self) -> RegistryStats {
        let (open_files, unkept_files) = self.files.counts();
        RegistryStats { open_files, unkept_files, dropped_generations: self.dropped.load(Ordering::Relaxed) }
    }

    fn read(&self, process: &Process) -> Result<Mappings, ProcessError> {
        let maps = process.maps()?;
        let root = process.root().ok();
        // A file has one executable mapping, rarely two in a row.
        let mut last: Option<(Inode, Arc<str>, Arc<ModuleFile>)> = None;
        let mut by_address = Vec::new();
        for line in maps::executable(&maps) {
            let name = line.path();
            let (name, _) = without_deleted(&name);
            let inode = (line.device, line.inode);
            let (module, file) = match last.take() {
                _ if line.inode == 0 => (String::from_utf8_lossy(name).into(), None),
                Some((same, module, file)) if same == inode && module.as_bytes() == name => {
                    (module, Some(file))
                }
                _ => {
                    let file = self.files.of_mapping(process, root.as_ref(), &line);
                    (String::from_utf8_lossy(name).into(), Some(file))
                }
            };
            last = file.as_ref().map(|file| (inode, Arc::clone(&module), Arc::clone(file)));
            let (start, end, file_offset) = (line.start, line.end, line.file_offset);
            by_address.push(Mapping { start, end, file_offset, module, file });
        }
        if by_address.is_empty() {
            // It is ending: its memory is gone already.
            return Err(ProcessError::NoSuchProcess { pid: process.key().pid });
        }
        let exe = process.exe().map(|exe| exe.path.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Mappings { exe: exe.into(), by_address: by_address.into() })
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<ProcessKey, History>> {
        self.histories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::io::{Seek as _, SeekFrom, Write as _};
    use std::time::SystemTime;

    use super::*;
    use crate::event::Pid;
    use crate::target::Unkept;
    use crate::target::programs::{Running, Workshop};

    const IDLE: &str = r#"#include <stdio.h>
        int main(void) { puts("ready"); fflush(stdout); return getchar(); }"#;

    fn key(pid: u32) -> ProcessKey {
        ProcessKey { pid: Pid(pid), start_ns: 0 }
    }

    /// One region, named after when it was seen.
    fn seen(module: &str) -> Arc<Mappings> {
        let region =
            Mapping { start: 0x1000, end: 0x2000, file_offset: 0, module: module.into(), file: None };
        Arc::new(Mappings { exe: module.into(), by_address: [region].into() })
    }

    fn registry(generations: &[u32]) -> ModuleRegistry {
        let registry = ModuleRegistry::new(100);
        let history = generations.iter().map(|generation| (*generation, seen(&generation.to_string())));
        registry.lock().insert(key(1), history.collect());
        registry
    }

    #[test]
    fn the_nearest_earlier_generation_of_the_same_program_counts() {
        const NEXT: u32 = 1 << 16;
        let registry = registry(&[3, 5, NEXT + 2, NEXT + 4]);
        for (generation, expected) in [
            (0, 3),
            (3, 3),
            (4, 3),
            (5, 5),
            (99, 5),
            (NEXT, NEXT + 2),
            (NEXT + 3, NEXT + 2),
            (NEXT + 9, NEXT + 4),
        ] {
            let location = registry.locate(key(1), generation, 0x1fff).unwrap();
            assert_eq!(*location.module, expected.to_string(), "generation {generation}");
        }
        assert!(registry.locate(key(1), 2 * NEXT, 0x1fff).is_none(), "nothing is known of the third program");
        assert!(registry.locate(key(2), 3, 0x1fff).is_none());
        assert_eq!(*registry.exe(key(1)).unwrap(), (NEXT + 4).to_string());
    }

    #[test]
    fn an_address_is_in_a_mapping_or_nowhere() {
        let registry = registry(&[0]);
        for (address, found) in [(0, false), (0xfff, false), (0x1000, true), (0x1fff, true), (0x2000, false)]
        {
            assert_eq!(registry.locate(key(1), 0, address).is_some(), found, "{address:#x}");
        }
    }

    #[test]
    fn a_child_inherits_without_losing_its_own() {
        let registry = registry(&[3, 4]);
        registry.lock().insert(key(2), [(4, seen("own"))].into());
        registry.forked(key(1), key(2));
        registry.forked(key(7), key(8));
        registry.forget(key(1));
        assert_eq!(*registry.locate(key(2), 3, 0x1000).unwrap().module, *"3");
        assert_eq!(*registry.locate(key(2), 4, 0x1000).unwrap().module, *"own");
        assert!(registry.mappings(key(1), 3).is_none());
        assert!(registry.mappings(key(8), 3).is_none());
    }

    #[test]
    fn old_generations_are_dropped_and_counted() {
        let shop = Workshop::new();
        let running = Running::start(&shop.c(IDLE, "idle", &[]));
        let registry = ModuleRegistry::new(100);
        let process = running.process().key();
        for generation in 0..MAX_GENERATIONS as u32 + 3 {
            registry.capture(process, generation).unwrap();
        }
        assert_eq!(registry.stats().dropped_generations, 3);
        let first = registry.mappings(process, 0).unwrap();
        let last = registry.mappings(process, 10_000).unwrap();
        assert!(Arc::ptr_eq(&first, &last), "equal lists are kept once");
    }

    #[test]
    fn what_is_mapped_in_a_process() {
        let shop = Workshop::new();
        let program = shop.c(IDLE, "idle", &[]);
        let running = Running::start(&program);
        let registry = ModuleRegistry::new(100);
        let mappings = registry.capture(running.process().key(), 0).unwrap();
        assert_eq!(**mappings.exe(), *program.to_str().unwrap());
        let names: Vec<_> =
            mappings.files().map(|file| file.path().file_name().unwrap().to_owned()).collect();
        assert!(names.contains(&"idle".into()) && names.contains(&"libc.so.6".into()), "{names:?}");
        assert!(mappings.files().all(|file| file.build_id().is_some() && file.descriptor().is_ok()));
        let vdso = mappings.iter().find(|mapping| &*mapping.module == "[vdso]").unwrap();
        assert_eq!(mappings.locate(vdso.start + 16).unwrap().offset, 16);
    }

    #[test]
    fn processes_share_their_files_which_close_with_the_last() {
        let shop = Workshop::new();
        let program = shop.c(IDLE, "idle", &[]);
        let running: [Running; 2] = [Running::start(&program), Running::start(&program)];
        let registry = ModuleRegistry::new(100);
        let [first, second] = [0, 1].map(|i| running[i].process().key());
        let ids =
            |process| registry.capture(process, 0).unwrap().files().map(|file| file.id()).collect::<Vec<_>>();
        let files = ids(first);
        assert_eq!(files, ids(second));
        assert_eq!(registry.stats().open_files, files.len());
        registry.forget(first);
        assert_eq!(registry.file(files[0]).unwrap().id(), files[0]);
        assert_eq!(registry.stats().open_files, files.len());
        registry.forget(second);
        assert!(registry.file(files[0]).is_none());
        assert_eq!(registry.stats().open_files, 0);
    }

    #[test]
    fn beyond_the_limit_files_are_known_by_path_and_say_so() {
        let shop = Workshop::new();
        let running = Running::start(&shop.c(IDLE, "idle", &[]));
        let registry = ModuleRegistry::new(1);
        let process = running.process();
        let mappings = registry.capture(process.key(), 0).unwrap();
        let again = registry.capture(process.key(), 1).unwrap();
        assert!(Arc::ptr_eq(&mappings, &again));
        let kept: Vec<_> = mappings.files().map(|file| file.descriptor().map(|_| ())).collect();
        assert_eq!(kept[..2], [Ok(()), Err(&Unkept::Limit)]);
        let stats = registry.stats();
        assert_eq!((stats.open_files, stats.unkept_files), (1, kept.len() - 1));
        for file in mappings.files() {
            assert!(file.build_id().is_some(), "the headers were read all the same");
            file.open(Some(&process.root().unwrap())).unwrap();
        }
    }

    #[test]
    fn a_touched_file_is_the_same_and_a_rewritten_one_is_not() {
        let shop = Workshop::new();
        let program = shop.c(IDLE, "idle", &[]);
        let id = |registry: &ModuleRegistry, process: ProcessKey, generation| {
            let mappings = registry.capture(process, generation).unwrap();
            mappings.files().next().unwrap().id()
        };
        let registry = ModuleRegistry::new(100);
        let running = Running::start(&program);
        let process = running.process().key();
        let first = id(&registry, process, 0);
        let file = File::open(&program).unwrap();
        file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).unwrap();
        assert_eq!(id(&registry, process, 1), first);
        running.end();

        // In place, keeping the inode; the build id is in the notes, which `-n` of readelf shows near the start.
        let other = std::fs::read(shop.c(&IDLE.replace("ready", "   ready"), "other", &[])).unwrap();
        let mut file = File::options().write(true).truncate(true).open(&program).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(&other).unwrap();
        drop(file);
        let second = Running::start(&program);
        assert_ne!(id(&registry, second.process().key(), 0), first);
    }

    #[test]
    fn a_process_that_ended_cannot_be_captured_but_is_remembered() {
        let shop = Workshop::new();
        let running = Running::start(&shop.c(IDLE, "idle", &[]));
        let registry = ModuleRegistry::new(100);
        let process = running.process().key();
        let main = registry.capture(process, 0).unwrap().iter().next().unwrap().start;
        running.end();
        assert!(matches!(registry.capture(process, 1), Err(ProcessError::NoSuchProcess { .. })));
        let location = registry.locate(process, 1, main).unwrap();
        assert!(location.file.unwrap().open(None).is_ok());
    }

    #[test]
    fn without_the_privilege_to_open_a_mapping_a_file_is_found_by_its_path() {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        let shop = Workshop::new();
        let program = shop.c(IDLE, "idle", &[]);
        let running = Running::start(&program);
        let process = running.process().key();
        let capture_unprivileged = || {
            std::thread::spawn(move || {
                let mut sets = capabilities(None).unwrap();
                sets.effective.remove(CapabilitySet::SYS_ADMIN | CapabilitySet::CHECKPOINT_RESTORE);
                set_capabilities(None, sets).unwrap();
                ModuleRegistry::new(100).capture(process, 0).unwrap()
            })
            .join()
            .unwrap()
        };
        let mappings = capture_unprivileged();
        assert!(mappings.files().all(|file| file.descriptor().is_ok()));
        std::fs::remove_file(&program).unwrap();
        std::fs::copy("/bin/true", &program).unwrap();
        let mappings = capture_unprivileged();
        let file = mappings.files().next().unwrap();
        assert_eq!(file.path(), program);
        let why = file.descriptor().unwrap_err();
        assert!(matches!(why, Unkept::Unopened(_)), "{why}");
        assert!(why.to_string().contains("CAP_CHECKPOINT_RESTORE"), "{why}");
    }

    #[test]
    fn many_threads_may_use_it() {
        fn shared<T: Send + Sync>() {}
        shared::<ModuleRegistry>();
    }
}
