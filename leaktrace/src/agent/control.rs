//! The fast side of arming: answers the kernel side while a process waits on its CPU.
//!
//! Comes in: requests of the control ring. Goes out: the answer, within microseconds; a [`Job`] for what takes
//! longer, with the thread in question paused. Never: touches the ledger; the event ring tells it of the same
//! things, in order with the allocations. Never waits.

use std::sync::Arc;
use std::time::Instant;

use leaktrace_common::limits::COMM_LEN;
use leaktrace_common::record::{Control as Request, Header, request};

use super::shared::Shared;
use super::watch::{WatchError, announce};
use crate::event::{Pid, ProcessKey, Tid};
use crate::probe::pause::Pause;
use crate::target::{Mappings, Process};
use crate::transport::Ring;

/// What is left to do for a process after its request was answered.
#[derive(Debug, Clone)]
pub enum Work {
    /// Place probes into what it maps.
    Place(Arc<Mappings>),
    /// Let this task carry its probes.
    MoveTo(Tid),
}

/// Work, and for whom.
#[derive(Debug, Clone)]
pub struct Job {
    /// The process.
    pub process: ProcessKey,
    /// What to do.
    pub work: Work,
    /// The thread that is paused meanwhile.
    pub paused: Option<Tid>,
}

/// What a paused thread must not have done yet, unless its process waited until it was paused.
#[derive(Debug)]
enum Before {
    /// Run its program's first instruction.
    FirstInstruction { comm: String },
    /// Left the dynamic loader.
    LeavingLoader(Arc<Mappings>),
}

/// A thread that is paused until its job is done.
#[derive(Debug)]
pub struct Paused {
    process: ProcessKey,
    pause: Pause,
    check: Option<Before>,
}

impl Paused {
    /// Whether it has stopped: until then it can't be let go.
    pub fn has_stopped(&mut self) -> bool {
        self.pause.has_stopped()
    }

    /// Lets it go; says so if it came too late.
    pub fn resume(mut self, shared: &Shared, placed: bool) {
        let pid = self.process.pid;
        match &self.check {
            Some(Before::FirstInstruction { comm }) if !begins_program(pid, &mut self.pause) => {
                shared.notes.late(format!(
                    "process {pid} ({comm}) ran before its probes were in place: its first allocations may be missing"
                ));
            }
            Some(Before::LeavingLoader(mappings))
                if placed && !in_loader(shared, mappings, &mut self.pause) =>
            {
                shared.notes.late(format!(
                    "process {pid} used a new library before its probes were in place: its first allocations \
                     there may be missing"
                ));
            }
            _ => {}
        }
    }
}

/// A request that was answered.
#[derive(Debug, Default)]
pub struct Answered {
    /// What is left to do.
    pub job: Option<Job>,
    /// Who is paused until it is done.
    pub paused: Option<Paused>,
}

/// All requests that wait in the ring, in the order in which they should be answered.
pub fn requests(ring: &mut Ring) -> Vec<Request> {
    let mut requests = Vec::new();
    ring.drain(usize::MAX, |bytes| requests.extend(parse(bytes)));
    // A new child that does not wait has a CPU to run on as soon as the one that does is let go.
    requests.sort_by_key(|request| !(request.header.kind == request::FORK && request.header.detail == 0));
    requests
}

/// Answers a request.
pub fn answer(shared: &Shared, request: &Request) -> Answered {
    let begun = Instant::now();
    let key = ProcessKey { pid: Pid(request.header.pid), start_ns: request.start_ns };
    let pid = key.pid;
    let waits = request.header.detail == 1;
    let result = match request.header.kind {
        request::EXEC => {
            exec(shared, key, Tid(request.other), request.generation, comm(&request.comm), waits)
        }
        request::FORK => fork(shared, Pid(request.other), key, waits),
        request::LIBRARIES => libraries(shared, key, Tid(request.other), request.generation, waits),
        request::LEADER_EXIT => leader_exit(key),
        _ => {
            shared.board().disarm(pid);
            Ok(Answered::default())
        }
    };
    let result = result.unwrap_or_else(|error| {
        tracing::debug!(%pid, %error, "not armed");
        // Gone before anyone could look at it, or nothing can be done about it.
        let in_time = waits && shared.gate().release(pid, false);
        if !in_time && request.header.kind != request::LEADER_EXIT {
            shared.notes.late(format!(
                "process {pid} was not armed in time ({error}): its allocations may be missing"
            ));
        }
        Answered::default()
    });
    tracing::trace!(%pid, kind = request.header.kind, waits, took = ?begun.elapsed(), "answered");
    result
}

/// A process has begun a program.
fn exec(
    shared: &Shared,
    key: ProcessKey,
    caller: Tid,
    generation: u32,
    comm: String,
    waits: bool,
) -> Result<Answered, WatchError> {
    let pid = key.pid;
    let mappings = shared.registry.capture(key, generation)?;
    let mut board = shared.board();
    if caller.0 != pid.0 {
        // Another thread than the leader called it, and the leader's probes went with the leader.
        board.disarm(pid);
    }
    board.arm_ahead(pid, &mappings).map_err(|source| WatchError::Arm { pid, source })?;
    let complete = board.is_armed(pid, &mappings);
    drop(board);
    let pause = if complete { None } else { pause(shared, key, Tid(pid.0)) };
    let held = shared.gate().release(pid, false) && waits;
    announce(pid, &comm);
    let check = (!held).then_some(Before::FirstInstruction { comm });
    Ok(placing(shared, key, mappings, complete, pause, check))
}

/// A traced process has forked.
fn fork(shared: &Shared, parent: Pid, child: ProcessKey, waits: bool) -> Result<Answered, WatchError> {
    let pid = child.pid;
    if let Ok(parent) = Process::open(parent) {
        shared.registry.forked(parent.key(), child);
    }
    shared.board().arm_child(parent, pid).map_err(|source| WatchError::Arm { pid, source })?;
    let held = waits && shared.gate().release(pid, false);
    if held || !Process::open_same(child)?.has_run() {
        return Ok(Answered::default());
    }
    shared.notes.late(format!(
        "process {pid}, a child of {parent}, ran before its probes were in place: its first allocations and \
         frees may be missing"
    ));
    // It may have lost its breakpoints already.
    Ok(Answered {
        job: Some(Job { process: child, work: Work::MoveTo(Tid(pid.0)), paused: None }),
        paused: None,
    })
}

/// The dynamic loader has mapped or unmapped libraries.
fn libraries(
    shared: &Shared,
    key: ProcessKey,
    thread: Tid,
    generation: u32,
    waits: bool,
) -> Result<Answered, WatchError> {
    let (mappings, moved_on) = shared.registry.capture_change(key, generation)?;
    let complete = shared.board().is_armed(key.pid, &mappings);
    let pause = if complete { None } else { pause(shared, key, thread) };
    let held = shared.gate().release(key.pid, moved_on) && waits;
    let check = (!held).then(|| Before::LeavingLoader(Arc::clone(&mappings)));
    Ok(placing(shared, key, mappings, complete, pause, check))
}

/// The thread that carries the probes has ended.
fn leader_exit(key: ProcessKey) -> Result<Answered, WatchError> {
    let threads = Process::open_same(key)?.threads()?;
    let other = threads.into_iter().find(|tid| tid.0 != key.pid.0);
    let job = other.map(|tid| Job { process: key, work: Work::MoveTo(tid), paused: None });
    Ok(Answered { job, paused: None })
}

/// What is left to do if not all that a process maps is `complete`.
fn placing(
    shared: &Shared,
    process: ProcessKey,
    mappings: Arc<Mappings>,
    complete: bool,
    pause: Option<(Tid, Pause)>,
    check: Option<Before>,
) -> Answered {
    if complete {
        return Answered::default();
    }
    if pause.is_none() && check.is_some() {
        shared.notes.late(format!(
            "process {} ran before its probes were in place: its first allocations in new code may be missing",
            process.pid
        ));
    }
    let work = Work::Place(mappings);
    let paused = pause.as_ref().map(|(tid, _)| *tid);
    Answered {
        job: Some(Job { process, work, paused }),
        paused: pause.map(|(_, pause)| Paused { process, pause, check }),
    }
}

/// Stops a thread when it leaves the kernel; says so if that can't be done.
fn pause(shared: &Shared, process: ProcessKey, thread: Tid) -> Option<(Tid, Pause)> {
    match Pause::begin(thread) {
        Ok(pause) => Some((thread, pause)),
        Err(error) => {
            if error.raw_os_error() != Some(libc::ESRCH) {
                shared.notes.late(format!(
                    "process {} can't be paused for its probes ({error}; does a debugger have it?): its first \
                     allocations in new code may be missing",
                    process.pid
                ));
            }
            None
        }
    }
}

/// Whether a paused process has yet to run its program's first instruction.
fn begins_program(pid: Pid, pause: &mut Pause) -> bool {
    let next = pause.next_instruction();
    next.is_some() && next == Process::open(pid).ok().and_then(|process| process.first_instruction())
}

/// Whether a paused thread is in the dynamic loader: while that runs, what it has loaded does not.
fn in_loader(shared: &Shared, mappings: &Mappings, pause: &mut Pause) -> bool {
    let at = pause.next_instruction().and_then(|address| mappings.locate(address));
    at.and_then(|location| location.file).is_some_and(|file| shared.board().is_loader(&file))
}

/// A request from its bytes; `None` if they are too few, which would be a kernel side of another build.
fn parse(bytes: &[u8]) -> Option<Request> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some(Request {
        header: Header { kind: *bytes.first()?, detail: *bytes.get(1)?, count: 0, pid: u32_at(4)? },
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
