//! The slow side of arming: finds the allocation functions in files, makes their events, and places breakpoints
//! into memory that is mapped already.
//!
//! Comes in: processes that run or are paused, their mappings. Goes out: breakpoints in those processes, and
//! notes about what could not be probed. Never: called while a CPU waits: placing a breakpoint takes an RCU grace
//! period, which does not end before that CPU is let go.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::board::KnownFile;
use super::shared::Shared;
use crate::allocator::{self, DiscoverError, Discovery, Exit};
use crate::event::{Kind, Pid};
use crate::probe::load::KernelSide;
use crate::probe::perf::Placement;
use crate::probe::plan::plan;
use crate::probe::registrar::{RegisteredFile, Registrar};
use crate::target::{Mappings, ModuleFile};

/// Arms processes.
pub struct Armer {
    kernel: KernelSide,
    registrar: Registrar,
    kinds: BTreeSet<Kind>,
    debug_roots: Vec<PathBuf>,
    shared: Arc<Shared>,
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
    pub fn new(kernel: KernelSide, registrar: Registrar, kinds: BTreeSet<Kind>, shared: Arc<Shared>) -> Self {
        Self { kernel, registrar, kinds, debug_roots: vec![PathBuf::from("/usr/lib/debug")], shared }
    }

    /// Makes the events of `mappings`' files without arming anyone: who maps them later is armed ahead.
    pub fn prepare(&mut self, mappings: &Mappings) {
        for file in mappings.files() {
            self.know(file);
        }
    }

    /// Adds the process to the events of every file that it maps and was not added to yet.
    pub fn arm(&mut self, pid: Pid, mappings: &Mappings) -> io::Result<ArmOutcome> {
        let mut outcome = ArmOutcome::default();
        for file in mappings.files() {
            let known = self.know(file);
            outcome.allocators.extend(&known.allocators);
            let Some(events) = &known.events else { continue };
            let board = self.shared.board();
            let (added, tid) = (board.is_added(pid, file), board.carrier(pid));
            drop(board);
            if !added {
                let descriptors = events.arm(tid, Placement::Now)?;
                self.shared.board().add(pid, file, descriptors);
                outcome.new_files += 1;
            }
        }
        Ok(outcome)
    }

    /// Moves a process's probes to the task `tid`: the one that carried them has ended, or may have lost them.
    pub fn move_to(&mut self, pid: Pid, tid: u32) -> io::Result<()> {
        let files = self.shared.board().move_to(pid, tid);
        for known in files {
            if let Some(events) = &known.events {
                // The new ones first: the breakpoints stay in place.
                let descriptors = events.arm(tid, Placement::Now)?;
                self.shared.board().add(pid, &known.file, descriptors);
            }
        }
        Ok(())
    }

    /// Takes all probes away and removes all events.
    pub fn shut_down(self) {
        let files = self.shared.board().clear();
        self.registrar.remove(files);
    }

    /// Looks at a file if it was not looked at before.
    fn know(&mut self, file: &Arc<ModuleFile>) -> KnownFile {
        if let Some(known) = self.shared.board().file(file) {
            return known.clone();
        }
        let begun = Instant::now();
        let known = self.look_at(file);
        tracing::debug!(
            file = %file.path().display(),
            allocators = ?known.allocators,
            events = known.events.as_ref().map_or(0, |events| RegisteredFile::len(events)),
            took = ?begun.elapsed(),
            "looked at a file"
        );
        self.shared.board().add_file(known.clone());
        known
    }

    fn look_at(&mut self, file: &Arc<ModuleFile>) -> KnownFile {
        let mut known = KnownFile { file: Arc::clone(file), events: None, allocators: Vec::new() };
        let path = file.path();
        let opened = match (file.open(None), file.descriptor()) {
            (Ok(opened), Ok(descriptor)) => (opened, descriptor),
            (Err(error), _) => {
                self.shared.notes.incomplete(format!("{}: not probed: {error}", path.display()));
                return known;
            }
            (_, Err(unkept)) => {
                self.shared.notes.incomplete(format!("{}: not probed: {unkept}", path.display()));
                return known;
            }
        };
        let discovery = match allocator::discover(opened.0, path, &self.debug_roots) {
            Ok(discovery) => discovery,
            Err(error @ DiscoverError::Stripped { .. }) => {
                self.shared.notes.incomplete(format!("{}: {error}", path.display()));
                return known;
            }
            Err(error) => {
                tracing::debug!(file = %path.display(), %error, "no allocation functions are known");
                return known;
            }
        };
        for problem in &discovery.problems {
            self.shared.notes.incomplete(format!(
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
        self.shared.notes.probes_refused(refused.len());
        for refusal in refused {
            self.shared.notes.incomplete(format!(
                "{}: the probe for {} at offset {:#x} is not in place: {}",
                path.display(),
                refusal.program,
                refusal.offset,
                refusal.why
            ));
        }
        known.allocators = discovery.allocators;
        known.events = Some(Arc::new(events));
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
