//! Which files have events, and which processes were added to them: what the fast and the slow side of arming
//! share.
//!
//! Comes in: events of files, descriptors of processes. Goes out: the same. Never: waits: all that is done here
//! takes microseconds, since a process may be waiting for who holds it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::notes::Notes;
use crate::event::Pid;
use crate::probe::perf::Placement;
use crate::probe::registrar::RegisteredFile;
use crate::target::{FileId, Mappings, ModuleFile};

/// How [`crate::allocator`] calls the dynamic loader.
const LOADER: &str = "loader";

/// Files and processes.
pub struct Board {
    files: FxHashMap<FileId, KnownFile>,
    armed: FxHashMap<Pid, Armed>,
    notes: Arc<Notes>,
}

/// A file that was looked at.
#[derive(Clone)]
pub struct KnownFile {
    /// The file; its descriptor keeps the inode from being reused.
    pub file: Arc<ModuleFile>,
    /// Its events, if it has allocation functions.
    pub events: Option<Arc<RegisteredFile>>,
    /// Names of the allocators in it.
    pub allocators: Vec<&'static str>,
}

/// A process with probes.
struct Armed {
    /// The task that carries them.
    tid: u32,
    /// Its perf events by file.
    files: FxHashMap<FileId, Vec<OwnedFd>>,
}

impl Board {
    /// An empty board.
    pub fn new(notes: Arc<Notes>) -> Self {
        Self { files: FxHashMap::default(), armed: FxHashMap::default(), notes }
    }

    /// What is known of a file.
    pub fn file(&self, file: &ModuleFile) -> Option<&KnownFile> {
        self.files.get(&file.id())
    }

    /// Writes down what was found out about a file.
    pub fn add_file(&mut self, known: KnownFile) {
        self.files.insert(known.file.id(), known);
    }

    /// Whether a file is a dynamic loader.
    pub fn is_loader(&self, file: &ModuleFile) -> bool {
        self.file(file).is_some_and(|known| known.allocators.contains(&LOADER))
    }

    /// Whether the process was added to the events of this file.
    pub fn is_added(&self, pid: Pid, file: &ModuleFile) -> bool {
        self.armed.get(&pid).is_some_and(|armed| armed.files.contains_key(&file.id()))
    }

    /// Whether the process was added to the events of all that it maps, and all that it maps is known.
    pub fn is_armed(&self, pid: Pid, mappings: &Mappings) -> bool {
        mappings.files().all(|file| {
            self.file(file).is_some_and(|known| known.events.is_none() || self.is_added(pid, file))
        })
    }

    /// The task that carries the process's probes.
    pub fn carrier(&self, pid: Pid) -> u32 {
        self.armed.get(&pid).map_or(pid.0, |armed| armed.tid)
    }

    /// Writes down that the process was added to a file's events.
    pub fn add(&mut self, pid: Pid, file: &ModuleFile, descriptors: Vec<OwnedFd>) {
        let armed = self.armed.entry(pid).or_insert_with(|| Armed::on(pid));
        self.notes.probes_placed(descriptors.len());
        if let Some(before) = armed.files.insert(file.id(), descriptors) {
            self.notes.probes_removed(before.len());
        }
    }

    /// Adds a process that begins a program, and maps `mappings` so far, to the events of all other files that
    /// are known: its breakpoints will come with its mappings.
    pub fn arm_ahead(&mut self, pid: Pid, mappings: &Mappings) -> io::Result<()> {
        let mapped: FxHashSet<_> = mappings.files().map(|file| file.id()).collect();
        let armed = self.armed.entry(pid).or_insert_with(|| Armed::on(pid));
        for (id, known) in &self.files {
            let Some(events) = &known.events else { continue };
            if mapped.contains(id) || armed.files.contains_key(id) {
                continue;
            }
            let descriptors = events.arm(armed.tid, Placement::AsMapped)?;
            self.notes.probes_placed(descriptors.len());
            armed.files.insert(*id, descriptors);
        }
        Ok(())
    }

    /// Adds a forked child to the events of its parent: its memory is a copy, breakpoints included, which are
    /// taken away if nobody wants them.
    pub fn arm_child(&mut self, parent: Pid, child: Pid) -> io::Result<()> {
        self.disarm(child);
        let mut armed = Armed::on(child);
        for id in self.armed.get(&parent).into_iter().flat_map(|parent| parent.files.keys()) {
            if let Some(events) = self.files.get(id).and_then(|known| known.events.as_ref()) {
                let descriptors = events.arm(child.0, Placement::AsMapped)?;
                self.notes.probes_placed(descriptors.len());
                armed.files.insert(*id, descriptors);
            }
        }
        self.armed.insert(child, armed);
        Ok(())
    }

    /// Files that the process was added to, with their events, and a task that is to carry its probes instead
    /// of the one that does.
    pub fn move_to(&mut self, pid: Pid, tid: u32) -> Vec<KnownFile> {
        let Some(armed) = self.armed.get_mut(&pid) else { return Vec::new() };
        armed.tid = tid;
        armed.files.keys().filter_map(|id| self.files.get(id).cloned()).collect()
    }

    /// Takes a process's probes away.
    pub fn disarm(&mut self, pid: Pid) {
        if let Some(armed) = self.armed.remove(&pid) {
            self.notes.probes_removed(armed.files.values().map(Vec::len).sum());
        }
    }

    /// Takes all probes away; returns the files' events.
    pub fn clear(&mut self) -> Vec<RegisteredFile> {
        self.armed.clear();
        self.files.drain().filter_map(|(_, known)| known.events.and_then(Arc::into_inner)).collect()
    }
}

impl Armed {
    fn on(pid: Pid) -> Self {
        Self { tid: pid.0, files: FxHashMap::default() }
    }
}
