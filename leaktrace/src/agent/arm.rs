//! Arms processes: finds the allocation functions in what they map, makes each file's events once, and adds the
//! process to them.
//!
//! Comes in: processes, their mappings. Goes out: breakpoints in those processes, and notes about what could
//! not be probed. Never: touches a process that it was not told of.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::{FxHashMap, FxHashSet};

use super::notes::Notes;
use crate::allocator::{self, DiscoverError, Discovery, Exit};
use crate::event::{Kind, Pid};
use crate::probe::load::KernelSide;
use crate::probe::perf::Placement;
use crate::probe::plan::plan;
use crate::probe::registrar::{RegisteredFile, Registrar};
use crate::target::{FileId, Mappings, ModuleFile};

/// Arms processes.
pub struct Armer {
    kernel: KernelSide,
    registrar: Registrar,
    kinds: BTreeSet<Kind>,
    debug_roots: Vec<PathBuf>,
    notes: Arc<Notes>,
    files: FxHashMap<FileId, KnownFile>,
    armed: FxHashMap<Pid, Armed>,
}

/// How [`allocator`] calls the dynamic loader.
const LOADER: &str = "loader";

/// A file that was looked at.
struct KnownFile {
    /// Its descriptor keeps the inode from being reused.
    _file: Arc<ModuleFile>,
    events: Option<RegisteredFile>,
    /// Names of the allocators in it.
    allocators: Vec<&'static str>,
}

/// A process with probes.
struct Armed {
    /// The task that carries them.
    tid: u32,
    /// Its perf events by file.
    files: FxHashMap<FileId, Vec<OwnedFd>>,
}

impl Armed {
    fn on(pid: Pid) -> Self {
        Self { tid: pid.0, files: FxHashMap::default() }
    }

    /// Adds it to a file's events; whether there was anything to add.
    fn add(
        &mut self,
        known: &KnownFile,
        id: FileId,
        placement: Placement,
        notes: &Notes,
    ) -> io::Result<bool> {
        let Some(events) = &known.events else { return Ok(false) };
        if self.files.contains_key(&id) {
            return Ok(false);
        }
        let descriptors = events.arm(self.tid, placement)?;
        notes.probes_placed(descriptors.len(), 0);
        self.files.insert(id, descriptors);
        Ok(true)
    }
}

/// What arming a process came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ArmOutcome {
    /// Files that the process was newly added to.
    pub new_files: usize,
    /// Allocators in all its files.
    pub allocators: BTreeSet<&'static str>,
}

impl Armer {
    /// Owns the loaded kernel side from here on.
    pub fn new(kernel: KernelSide, registrar: Registrar, kinds: BTreeSet<Kind>, notes: Arc<Notes>) -> Self {
        Self {
            kernel,
            registrar,
            kinds,
            debug_roots: vec![PathBuf::from("/usr/lib/debug")],
            notes,
            files: FxHashMap::default(),
            armed: FxHashMap::default(),
        }
    }

    /// Makes the events of `mappings`' files without arming anyone: [`Self::arm_ahead`] then covers them.
    pub fn prepare(&mut self, mappings: &Mappings) {
        for file in mappings.files() {
            self.know(file);
        }
    }

    /// Adds the process to the events of every file that it maps and was not added to yet. Takes an RCU grace
    /// period: the process may run or be paused, but no CPU may wait for the answer.
    pub fn arm(&mut self, pid: Pid, mappings: &Mappings) -> io::Result<ArmOutcome> {
        let mut outcome = ArmOutcome::default();
        for file in mappings.files() {
            self.know(file);
            let Some(known) = self.files.get(&file.id()) else { continue };
            outcome.allocators.extend(&known.allocators);
            let armed = self.armed.entry(pid).or_insert_with(|| Armed::on(pid));
            outcome.new_files += usize::from(armed.add(known, file.id(), Placement::Now, &self.notes)?);
        }
        Ok(outcome)
    }

    /// Adds a process that begins a program, and maps `mappings` so far, to the events of all other files that
    /// are known: its breakpoints will come with its mappings. Takes microseconds. Returns whether
    /// [`Self::arm`] is needed besides, for what is mapped already.
    pub fn arm_ahead(&mut self, pid: Pid, mappings: &Mappings) -> io::Result<bool> {
        let armed = self.armed.entry(pid).or_insert_with(|| Armed::on(pid));
        let mapped: FxHashSet<_> = mappings.files().map(|file| file.id()).collect();
        for (id, known) in self.files.iter().filter(|(id, _)| !mapped.contains(id)) {
            armed.add(known, *id, Placement::AsMapped, &self.notes)?;
        }
        // Events that the task had before it began the program were there when the file was mapped.
        Ok(!self.is_armed(pid, mappings))
    }

    /// Whether [`Self::arm`] would find nothing to do.
    pub fn is_armed(&self, pid: Pid, mappings: &Mappings) -> bool {
        let armed = self.armed.get(&pid);
        mappings.files().map(|file| file.id()).all(|id| match self.files.get(&id) {
            None => false,
            Some(known) => known.events.is_none() || armed.is_some_and(|armed| armed.files.contains_key(&id)),
        })
    }

    /// Whether a file is a dynamic loader.
    pub fn is_loader(&self, file: &ModuleFile) -> bool {
        self.files.get(&file.id()).is_some_and(|known| known.allocators.contains(&LOADER))
    }

    /// Adds a forked child to the events of its parent: its memory is a copy, breakpoints included, which are
    /// taken away if nobody wants them. Takes microseconds.
    pub fn arm_child(&mut self, parent: Pid, child: Pid) -> io::Result<()> {
        let mut armed = Armed::on(child);
        let files = self.armed.get(&parent).map(|parent| &parent.files);
        for id in files.into_iter().flat_map(|files| files.keys()) {
            if let Some(known) = self.files.get(id) {
                armed.add(known, *id, Placement::AsMapped, &self.notes)?;
            }
        }
        self.disarm(child);
        self.armed.insert(child, armed);
        Ok(())
    }

    /// Moves a process's probes to another of its threads: the one that carried them has ended.
    pub fn move_to(&mut self, pid: Pid, tid: u32) -> io::Result<()> {
        let Some(armed) = self.armed.get_mut(&pid) else { return Ok(()) };
        armed.tid = tid;
        for (id, descriptors) in &mut armed.files {
            let Some(events) = self.files.get(id).and_then(|known| known.events.as_ref()) else { continue };
            // The new ones first: the breakpoints stay in place.
            *descriptors = events.arm(tid, Placement::Now)?;
        }
        Ok(())
    }

    /// Takes a process's probes away.
    pub fn disarm(&mut self, pid: Pid) {
        if let Some(armed) = self.armed.remove(&pid) {
            self.notes.probes_removed(armed.files.values().map(Vec::len).sum());
        }
    }

    /// Takes all probes away and removes all events.
    pub fn shut_down(mut self) {
        self.armed.clear();
        self.registrar.remove(self.files.into_values().filter_map(|file| file.events));
    }

    /// Looks at a file if it was not looked at before.
    fn know(&mut self, file: &Arc<ModuleFile>) {
        if self.files.contains_key(&file.id()) {
            return;
        }
        let begun = Instant::now();
        let known = self.look_at(file);
        tracing::debug!(
            file = %file.path().display(),
            allocators = ?known.allocators,
            events = known.events.as_ref().map_or(0, RegisteredFile::len),
            took = ?begun.elapsed(),
            "looked at a file"
        );
        self.files.insert(file.id(), known);
    }

    fn look_at(&mut self, file: &Arc<ModuleFile>) -> KnownFile {
        let mut known = KnownFile { _file: Arc::clone(file), events: None, allocators: Vec::new() };
        let path = file.path();
        let opened = match (file.open(None), file.descriptor()) {
            (Ok(opened), Ok(descriptor)) => (opened, descriptor),
            (Err(error), _) => {
                self.notes.incomplete(format!("{}: not probed: {error}", path.display()));
                return known;
            }
            (_, Err(unkept)) => {
                self.notes.incomplete(format!("{}: not probed: {unkept}", path.display()));
                return known;
            }
        };
        let discovery = match allocator::discover(opened.0, path, &self.debug_roots) {
            Ok(discovery) => discovery,
            Err(error @ DiscoverError::Stripped { .. }) => {
                self.notes.incomplete(format!("{}: {error}", path.display()));
                return known;
            }
            Err(error) => {
                tracing::debug!(file = %path.display(), %error, "no allocation functions are known");
                return known;
            }
        };
        for problem in &discovery.problems {
            self.notes.incomplete(format!(
                "{}: {} is not probed: {}",
                path.display(),
                problem.function,
                problem.why
            ));
        }
        log_sites(path, &discovery);
        let plan = plan(&discovery, &self.kinds);
        if plan.is_empty() {
            return known;
        }
        let (events, refused) = self.registrar.register(&self.kernel, opened.1, &plan);
        self.notes.probes_placed(0, refused.len());
        for refusal in refused {
            self.notes.incomplete(format!(
                "{}: the probe for {} at offset {:#x} is not in place: {}",
                path.display(),
                refusal.program,
                refusal.offset,
                refusal.why
            ));
        }
        known.allocators = discovery.allocators;
        known.events = Some(events);
        known
    }
}

/// Each probe's place, for `-v`.
fn log_sites(path: &std::path::Path, discovery: &Discovery) {
    for point in &discovery.points {
        tracing::debug!(
            file = %path.display(),
            function = point.function,
            offset = format_args!("{:#x}", point.entry.offset),
            instruction = point.entry.instruction,
            how = if point.entry.emulated { "emulated" } else { "stepped" },
            result = match &point.exit {
                Exit::None => "none",
                Exit::ReturnProbe => "return probe",
                Exit::ReturnSites(_) => "return sites",
            },
            "probe site"
        );
    }
}
