//! Answers the kernel side: a process that runs, forks or loads libraries may be waiting.
//!
//! Comes in: requests of the control ring, and the processes that a run starts with. Goes out: armed processes.
//! Never: touches the ledger; the event ring tells it of the same things, in order with the allocations.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use leaktrace_common::limits::COMM_LEN;
use leaktrace_common::record::{Control as Request, request};

use super::arm::Armer;
use super::intake::Intake;
use super::notes::Notes;
use crate::event::{Pid, ProcessKey, Tid};
use crate::probe::gate::{Gate, GateError};
use crate::probe::pause::Pause;
use crate::target::{ModuleRegistry, Process, ProcessError};
use crate::transport::Ring;

/// The side of the agent that processes wait for.
pub struct Control {
    armer: Armer,
    gate: Arc<Mutex<Gate>>,
    registry: Arc<ModuleRegistry>,
    notes: Arc<Notes>,
    intake: Arc<Intake>,
}

/// Why a running process can't be traced.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// What it is.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The gate is full.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The kernel says no.
    #[error("process {pid} cannot be probed: {source}")]
    Arm {
        /// Which.
        pid: Pid,
        /// Its errno.
        source: std::io::Error,
    },
    /// Nothing to probe.
    #[error(
        "process {pid} ({exe}) has no allocation function that leaktrace knows: nothing would be seen. \
         Is it a stripped static program? Its debug file would help; `-v` says what was looked at"
    )]
    NothingToProbe {
        /// Which.
        pid: Pid,
        /// Its program.
        exe: String,
    },
}

impl Control {
    /// Takes what it needs.
    pub fn new(
        armer: Armer,
        gate: Arc<Mutex<Gate>>,
        registry: Arc<ModuleRegistry>,
        notes: Arc<Notes>,
        intake: Arc<Intake>,
    ) -> Self {
        Self { armer, gate, registry, notes, intake }
    }

    /// Makes events for what this process itself maps: most processes map the same libc and loader.
    pub fn prepare(&mut self) {
        let captured = Process::open(Pid(std::process::id()))
            .and_then(|own| self.registry.capture(own.key(), 0).map(|mappings| (own.key(), mappings)));
        match captured {
            Ok((own, mappings)) => {
                self.armer.prepare(&mappings);
                self.registry.forget(own);
            }
            Err(error) => tracing::debug!(%error, "nothing is prepared"),
        }
    }

    /// Traces a process that runs already.
    pub fn watch(&mut self, process: &Process, follow_exec: bool) -> Result<(), WatchError> {
        let (key, pid) = (process.key(), process.key().pid);
        process.check_traceable()?;
        let mappings = self.registry.capture(key, 0)?;
        let armed = self.armer.arm(pid, &mappings).map_err(|source| WatchError::Arm { pid, source });
        let watched = armed.and_then(|outcome| {
            if outcome.new_files == 0 {
                return Err(WatchError::NothingToProbe { pid, exe: mappings.exe().to_string() });
            }
            let comm = process.comm()?;
            self.announce(pid, &comm.0, &outcome.allocators);
            // The ledger must know the process before its first event comes.
            self.intake.ledger().watch(key, comm, self.intake.now());
            Ok(self.gate().open(key, follow_exec)?)
        });
        if watched.is_err() {
            self.armer.disarm(pid);
        }
        watched
    }

    /// Opens the gate for a process that is about to run its program; its exec arms it.
    pub fn expect(&mut self, process: &Process) -> Result<(), WatchError> {
        // Events that are on the task before its exec are in the loader from its first instruction.
        let mappings = self.registry.capture(process.key(), 0)?;
        let pid = process.key().pid;
        self.armer.arm(pid, &mappings).map_err(|source| WatchError::Arm { pid, source })?;
        Ok(self.gate().open(process.key(), true)?)
    }

    /// Answers all requests that wait.
    pub fn answer_all(&mut self, ring: &mut Ring) {
        loop {
            let mut requests = Vec::new();
            ring.drain(usize::MAX, |bytes| requests.extend(parse(bytes)));
            if requests.is_empty() {
                return;
            }
            // A new child that does not wait has a CPU to run on as soon as the one that does is let go.
            requests
                .sort_by_key(|request| !(request.header.kind == request::FORK && request.header.detail == 0));
            requests.iter().for_each(|request| self.answer(request));
        }
    }

    /// Takes all probes away and removes all events.
    pub fn shut_down(self) {
        self.armer.shut_down();
    }

    fn answer(&mut self, request: &Request) {
        let begun = Instant::now();
        let key = ProcessKey { pid: Pid(request.header.pid), start_ns: request.start_ns };
        let pid = key.pid;
        let waits = request.header.detail == 1;
        let result = match request.header.kind {
            request::EXEC => self.exec(key, request.generation, &comm(&request.comm), waits),
            request::FORK => self.fork(Pid(request.other), key, waits),
            request::LIBRARIES => self.libraries(key, Tid(request.other), request.generation, waits),
            request::LEADER_EXIT => self.leader_exit(key),
            _ => {
                self.armer.disarm(pid);
                Ok(())
            }
        };
        if waits {
            self.release(pid, false);
        }
        if let Err(error) = result {
            // It may simply be gone: its exit is on its way.
            tracing::debug!(%pid, %error, "not armed");
        }
        tracing::trace!(%pid, kind = request.header.kind, waits, took = ?begun.elapsed(), "answered");
    }

    /// A process has begun a program and waits in the kernel, on a CPU that does nothing else meanwhile. What
    /// takes long is done after it was let go, while it is paused.
    fn exec(&mut self, key: ProcessKey, generation: u32, comm: &str, waits: bool) -> Result<(), WatchError> {
        let pid = key.pid;
        let mappings = self.registry.capture(key, generation)?;
        let more = self.armer.arm_ahead(pid, &mappings).map_err(|source| WatchError::Arm { pid, source })?;
        let mut pause = if more { self.pause(key, Tid(pid.0)) } else { None };
        let held = self.release(pid, false) && waits;
        let outcome = self.armer.arm(pid, &mappings).map_err(|source| WatchError::Arm { pid, source })?;
        // One that did not wait may have been stopped before its first instruction all the same.
        if more && !held && !pause.as_mut().is_some_and(|pause| begins_program(pid, pause)) {
            self.notes.late(format!(
                "process {pid} ({comm}) ran before its probes were in place: its first allocations may be missing"
            ));
        }
        self.announce(pid, comm, &outcome.allocators);
        Ok(())
    }

    /// Stops a thread when it leaves the kernel; says so if that can't be done.
    fn pause(&self, process: ProcessKey, thread: Tid) -> Option<Pause> {
        match Pause::begin(thread) {
            Ok(pause) => Some(pause),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => None,
            Err(error) => {
                self.notes.late(format!(
                    "process {} can't be paused for its probes ({error}; does a debugger have it?): its first \
                     allocations in new code may be missing",
                    process.pid
                ));
                None
            }
        }
    }

    fn fork(&mut self, parent: Pid, child: ProcessKey, waits: bool) -> Result<(), WatchError> {
        let pid = child.pid;
        if let Ok(parent) = Process::open(parent) {
            self.registry.forked(parent.key(), child);
        }
        self.armer.arm_child(parent, pid).map_err(|source| WatchError::Arm { pid, source })?;
        let held = waits && self.release(pid, false);
        if !held && Process::open_same(child)?.has_run() {
            // It may have lost its breakpoints already.
            self.armer.move_to(pid, pid.0).map_err(|source| WatchError::Arm { pid, source })?;
            self.notes.late(format!(
                "process {pid}, a child of {parent}, ran before its probes were in place: its first allocations \
                 and frees may be missing"
            ));
        }
        Ok(())
    }

    fn libraries(
        &mut self,
        key: ProcessKey,
        thread: Tid,
        generation: u32,
        waits: bool,
    ) -> Result<(), WatchError> {
        let pid = key.pid;
        let (mappings, moved_on) = self.registry.capture_change(key, generation)?;
        let new = !self.armer.is_armed(pid, &mappings);
        let mut pause = if new { self.pause(key, thread) } else { None };
        let held = self.release(pid, moved_on) && waits;
        let outcome = self.armer.arm(pid, &mappings).map_err(|source| WatchError::Arm { pid, source })?;
        let in_loader = |pause: &mut Pause| {
            let at = pause.next_instruction().and_then(|address| mappings.locate(address));
            at.and_then(|location| location.file).is_some_and(|file| self.armer.is_loader(&file))
        };
        // While the loader runs, what it has loaded does not.
        if outcome.new_files > 0 && !held && !pause.as_mut().is_some_and(in_loader) {
            self.notes.late(format!(
                "process {pid} used a new library before its probes were in place: its first allocations there may be \
                 missing"
            ));
        }
        Ok(())
    }

    fn leader_exit(&mut self, key: ProcessKey) -> Result<(), WatchError> {
        let process = Process::open_same(key)?;
        let Some(thread) = process.threads()?.into_iter().find(|tid| tid.0 != key.pid.0) else {
            return Ok(());
        };
        self.armer.move_to(key.pid, thread.0).map_err(|source| WatchError::Arm { pid: key.pid, source })
    }

    /// Lets a process go on; `false` if it had stopped waiting.
    fn release(&self, pid: Pid, new_generation: bool) -> bool {
        self.gate().release(pid, new_generation)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, pid: Pid, comm: &str, allocators: &std::collections::BTreeSet<&'static str>) {
        let allocators: Vec<_> = allocators.iter().copied().collect();
        tracing::debug!(%pid, comm, ?allocators, "armed");
        eprintln!("tracing {pid} ({comm})");
    }
}

/// Whether a paused process has yet to run its program's first instruction.
fn begins_program(pid: Pid, pause: &mut Pause) -> bool {
    let next = pause.next_instruction();
    next.is_some() && next == Process::open(pid).ok().and_then(|process| process.first_instruction())
}

/// A request from its bytes; `None` if they are too few, which would be a kernel side of another build.
fn parse(bytes: &[u8]) -> Option<Request> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some(Request {
        header: leaktrace_common::record::Header {
            kind: *bytes.first()?,
            detail: *bytes.get(1)?,
            count: 0,
            pid: u32_at(4)?,
        },
        other: u32_at(8)?,
        generation: u32_at(12)?,
        start_ns: u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?),
        comm: bytes.get(24..24 + COMM_LEN)?.try_into().ok()?,
    })
}

fn comm(bytes: &[u8; COMM_LEN]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(COMM_LEN);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
