//! A trace from start to end.
//!
//! Comes in: a [`RunConfig`]. Goes out: an [`Observer`], and the word when all targets are gone. Never: leaves a
//! probe, a thread or an event definition behind, however it ends.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context as _;

use super::arm::Armer;
use super::desk::{Desk, StaffedDesk};
use super::intake::Intake;
use super::launch::{Launched, launch};
use super::observe::Observer;
use super::shared::Shared;
use super::watch::{WatchError, expect, watch};
use crate::cli::config::{RunConfig, Target};
use crate::event::Pid;
use crate::ledger::{Ledger, Limits};
use crate::probe::guardian::Guardian;
use crate::probe::load::{KernelSide, LoadOptions};
use crate::probe::registrar::Registrar;
use crate::probe::tracefs::{Tracefs, group_name, start_of};
use crate::target::{ModuleRegistry, Process, ProcessError, list, raise_descriptor_limit};
use crate::transport::{LossCounters, Ring, RingError};

/// Descriptors that are left for other things than module files, where there are enough.
const SPARE_DESCRIPTORS: u64 = 4096;

/// How many module files may be kept open, of so many descriptors.
fn kept_files(descriptors: u64) -> u64 {
    (descriptors - SPARE_DESCRIPTORS.min(descriptors / 2)) / 2
}

/// A trace that runs.
pub struct Session {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    desk: StaffedDesk,
    drain: JoinHandle<Result<(), RingError>>,
    /// Ends with the session: the targets of `--pid` and of a command.
    ends_with_targets: bool,
    /// Last: it removes what is left.
    _guardian: Guardian,
}

/// What a session starts with, besides its threads.
pub struct Started {
    /// The session.
    pub session: Session,
    /// What looks at it.
    pub observer: Observer,
    /// The command that was started, if that is the target.
    pub child: Option<Child>,
}

impl Session {
    /// Loads the kernel side, arms the targets that run, starts the threads and the command.
    ///
    /// Call it before any thread is started.
    pub fn start(config: &RunConfig, log_level: u8) -> anyhow::Result<Started> {
        let own_pid = std::process::id();
        let own_start = start_of(own_pid).context("can't read /proc/self/stat: is /proc mounted?")?;
        let tracefs = Tracefs::open(group_name(own_pid, own_start))?;
        let guardian = Guardian::spawn(&tracefs).context("can't fork the guardian process")?;
        let open_files = kept_files(raise_descriptor_limit());

        let comm_patterns = match &config.target {
            Target::Comm(patterns) => patterns.iter().map(|pattern| pattern.compiled).collect(),
            _ => Vec::new(),
        };
        let mut kernel =
            KernelSide::load(&LoadOptions { ring_bytes: config.ring_bytes, comm_patterns, log_level })?;
        let events = Ring::new(kernel.events()?);
        let requests = Ring::new(kernel.control()?);
        let gate = kernel.gate()?;
        let counters = LossCounters::new(kernel.counters()?);
        if log_level > 0 {
            spawn_log(&mut kernel);
        }
        // Before anyone is armed: a fork in between would be missed.
        kernel.attach_tracepoints()?;

        let mut limits = Limits::default();
        if let Some(blocks) = config.max_blocks {
            limits.blocks = blocks.get() as u64;
        }
        let intake =
            Intake::new(Ledger::new(limits), events, config.ring_bytes as usize, config.kinds.clone());
        let shared = Arc::new(Shared::new(intake, ModuleRegistry::new(open_files as usize), gate));
        let registrar = Registrar::new(tracefs, guardian.pid);
        let mut armer = Armer::new(kernel, registrar, config.kinds.clone(), Arc::clone(&shared));

        prepare(&shared, &mut armer);
        let stop = Arc::new(AtomicBool::new(false));
        // Before the first process is armed: its children may wait.
        let desk = Desk::open(&shared, requests, &stop)?;
        let prepared = prepare_targets(&shared, &mut armer, &config.target);
        let desk = desk.staff(armer)?;
        shared.intake.clock().begin();
        let drain = {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            spawn("drain", move || shared.intake.run(&stop))?
        };
        let observer = Observer::new(Arc::clone(&shared), counters, limits, config.min_age);
        let session = Self {
            shared,
            stop,
            desk,
            drain,
            ends_with_targets: !matches!(config.target, Target::Comm(_)),
            _guardian: guardian,
        };
        let launched = match prepared {
            Ok(launched) => launched,
            Err(error) => {
                session.end();
                return Err(error);
            }
        };
        let child = match launched.map(Launched::go).transpose() {
            Ok(child) => child,
            Err(error) => {
                session.end();
                return Err(error).with_context(|| match &config.target {
                    Target::Command { program, .. } => format!("can't run {}", program.display()),
                    _ => "can't start".to_owned(),
                });
            }
        };
        eprintln!("ready: tracing {}", describe(&config.target));
        Ok(Started { session, observer, child })
    }

    /// Whether nobody is left to trace, and nobody will come.
    pub fn is_over(&self) -> bool {
        self.ends_with_targets && self.shared.intake.ledger().totals().running == 0
    }

    /// Ends the tracing: takes in what was recorded until now, takes all probes away, ends the threads. What the
    /// ledger knows stays.
    pub fn end(self) {
        // All at once and for all: probes go one by one, and while those of `malloc` outlive those of `free`,
        // what they see is not true.
        let closed = self.shared.gate().close();
        self.shared.intake.clock().end();
        let mut ledger = self.shared.intake.ledger();
        for (pid, lost) in closed {
            ledger.set_lost(pid, lost);
        }
        drop(ledger);
        self.stop.store(true, Ordering::Release);
        match self.drain.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the event ring failed"),
            Err(_) => tracing::error!("the drain thread ended unexpectedly"),
        }
        self.shared.intake.drain();
        self.desk.close();
    }
}

/// Makes events for what this process itself maps: most processes map the same libc and loader.
fn prepare(shared: &Shared, armer: &mut Armer) {
    let captured = Process::open(Pid(std::process::id()))
        .and_then(|own| shared.registry.capture(own.key(), 0).map(|mappings| (own.key(), mappings)));
    match captured {
        Ok((own, mappings)) => {
            armer.prepare(&mappings);
            shared.registry.forget(own);
        }
        Err(error) => tracing::debug!(%error, "nothing is prepared"),
    }
}

/// Arms what runs; forks the command's process.
fn prepare_targets(shared: &Shared, armer: &mut Armer, target: &Target) -> anyhow::Result<Option<Launched>> {
    match target {
        Target::Pids(pids) => {
            let mut failures: Vec<WatchError> = Vec::new();
            for pid in pids {
                let watched = Process::open(*pid).map_err(WatchError::from);
                if let Err(error) = watched.and_then(|process| watch(shared, armer, &process, true)) {
                    failures.push(error);
                }
            }
            if failures.len() == pids.len() {
                return Err(failures.remove(0).into());
            }
            for failure in failures {
                shared.notes.incomplete(failure.to_string());
            }
            Ok(None)
        }
        Target::Comm(patterns) => {
            let own = Pid(std::process::id());
            for listed in list()? {
                let comm = leaktrace_common::comm::comm_bytes(listed.comm.0.as_bytes());
                let wanted = patterns.iter().any(|pattern| pattern.compiled.matches(&comm));
                if !wanted || listed.key.pid == own {
                    continue;
                }
                let watched = Process::open_same(listed.key).map_err(WatchError::from);
                match watched.and_then(|process| watch(shared, armer, &process, false)) {
                    Ok(()) | Err(WatchError::Process(ProcessError::NoSuchProcess { .. })) => {}
                    Err(error) => shared.notes.incomplete(error.to_string()),
                }
            }
            Ok(None)
        }
        Target::Command { program, args } => {
            let launched =
                launch(program, args).with_context(|| format!("can't start {}", program.display()))?;
            expect(shared, armer, &Process::open(Pid(launched.pid))?)?;
            Ok(Some(launched))
        }
    }
}

fn describe(target: &Target) -> String {
    match target {
        Target::Pids(pids) => match pids.len() {
            1 => "1 process".to_owned(),
            n => format!("{n} processes"),
        },
        Target::Comm(patterns) => {
            let texts: Vec<_> = patterns.iter().map(|pattern| pattern.text.as_str()).collect();
            format!("processes named {}, now and later", texts.join(", "))
        }
        Target::Command { program, .. } => program.display().to_string(),
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).context("can't start a thread")
}

/// Passes the kernel side's own log on. The thread ends with the process.
fn spawn_log(kernel: &mut KernelSide) {
    const LOOK: std::time::Duration = std::time::Duration::from_millis(100);
    match kernel.log() {
        Ok(mut log) => {
            let follow = move || {
                loop {
                    log.flush();
                    std::thread::sleep(LOOK);
                }
            };
            if let Err(error) = spawn::<()>("kernel-log", follow) {
                tracing::warn!(%error, "the kernel side's log is not shown");
            }
        }
        Err(error) => tracing::warn!(%error, "the kernel side's log is not shown"),
    }
}
