//! Makes a file's uprobe events, once for all processes, and hangs programs on them.
//!
//! Comes in: a file, a plan of programs and offsets. Goes out: [`RegisteredFile`], by which a process is armed.
//! Never: arms a process by itself: the task that an event is anchored on only sleeps.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::load::KernelSide;
use super::perf::{self, Placement};
use super::plan::PlannedEvent;
use super::tracefs::{Definition, Tracefs};

/// Makes events under one group.
#[derive(Debug)]
pub struct Registrar {
    tracefs: Tracefs,
    /// Task that events are anchored on: the guardian.
    anchor: u32,
    files: u32,
}

/// A probe that could not be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its program.
    pub program: &'static str,
    /// File offset of its first place.
    pub offset: u64,
    /// Why, and what to do.
    pub why: String,
}

/// A file whose events exist.
#[derive(Debug)]
pub struct RegisteredFile {
    events: Vec<RegisteredEvent>,
}

#[derive(Debug)]
struct RegisteredEvent {
    definition: Definition,
    /// Holds the program; closing it takes an RCU grace period, see [`close_all`].
    anchor: OwnedFd,
}

impl Registrar {
    /// Events are defined in `tracefs` and anchored on the task `anchor`.
    pub fn new(tracefs: Tracefs, anchor: u32) -> Self {
        Self { tracefs, anchor, files: 0 }
    }

    /// Makes the events of `plan` in `file`. What the kernel refuses is returned; the rest works.
    pub fn register(
        &mut self,
        kernel: &KernelSide,
        file: BorrowedFd<'_>,
        plan: &[PlannedEvent],
    ) -> (RegisteredFile, Vec<Refused>) {
        let number = self.files;
        self.files += 1;
        let mut registered = RegisteredFile { events: Vec::with_capacity(plan.len()) };
        let mut refused = Vec::new();
        for event in plan {
            let name = format!("f{number}_{}", event.program);
            match self.event(kernel, file, event, &name, &event.offsets) {
                Ok(event) => registered.events.push(event),
                // One bad place spoils its event: try them one by one.
                Err(_) if event.offsets.len() > 1 => {
                    for (i, offset) in event.offsets.iter().enumerate() {
                        match self.event(kernel, file, event, &format!("{name}_{i}"), &[*offset]) {
                            Ok(event) => registered.events.push(event),
                            Err(why) => {
                                refused.push(Refused { program: event.program, offset: *offset, why });
                            }
                        }
                    }
                }
                Err(why) => {
                    let offset = event.offsets.first().copied().unwrap_or_default();
                    refused.push(Refused { program: event.program, offset, why });
                }
            }
        }
        (registered, refused)
    }

    fn event(
        &self,
        kernel: &KernelSide,
        file: BorrowedFd<'_>,
        event: &PlannedEvent,
        name: &str,
        offsets: &[u64],
    ) -> Result<RegisteredEvent, String> {
        let program =
            kernel.uprobe(event.program).ok_or_else(|| format!("no program `{}`", event.program))?;
        let definition =
            self.tracefs.define(name, event.kind, file, offsets).map_err(|error| error.to_string())?;
        let anchor = perf::open(definition.id, self.anchor, Placement::Now)
            .and_then(|anchor| perf::set_program(anchor.as_fd(), program).map(|()| anchor));
        match anchor {
            Ok(anchor) => Ok(RegisteredEvent { definition, anchor }),
            Err(error) => {
                let _ = self.tracefs.undefine(name);
                Err(format!("the kernel refuses the probe: {error}"))
            }
        }
    }

    /// Removes the events of `files`: closes them side by side, then removes their definitions.
    pub fn remove(&self, files: impl IntoIterator<Item = RegisteredFile>) {
        let (names, anchors): (Vec<_>, Vec<_>) = files
            .into_iter()
            .flat_map(|file| file.events)
            .map(|event| (event.definition.name, event.anchor))
            .unzip();
        close_all(anchors);
        for name in names {
            if let Err(error) = self.tracefs.undefine(&name) {
                tracing::debug!(%error, "a definition stays until the guardian removes it");
            }
        }
    }
}

impl RegisteredFile {
    /// Puts the file's breakpoints into the memory of the task `tid`; closing the descriptors takes them away.
    pub fn arm(&self, tid: u32, placement: Placement) -> io::Result<Vec<OwnedFd>> {
        self.events.iter().map(|event| perf::open(event.definition.id, tid, placement)).collect()
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether the file has no events.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// Closes descriptors from several threads: each close waits for a grace period (about 0.1 s), and those that
/// wait at the same time share one.
fn close_all(descriptors: Vec<OwnedFd>) {
    const THREADS: usize = 32;
    let per_thread = descriptors.len().div_ceil(THREADS).max(1);
    let mut descriptors = descriptors.into_iter();
    std::thread::scope(|scope| {
        loop {
            let batch: Vec<_> = descriptors.by_ref().take(per_thread).collect();
            if batch.is_empty() {
                break;
            }
            scope.spawn(move || drop(batch));
        }
    });
}
