//! The threads that answer the control ring, and the one that does what takes longer.
//!
//! Comes in: wakeups. Goes out: answered requests at once, finished jobs later. Never: runs on the CPU that waits
//! for the answer only.
//!
//! A process that waits spins on its CPU, which then runs nobody else; and the scheduler, seeing an ordinary
//! task there, would put a thread with a real-time priority just behind it. So two threads answer, each on its own
//! half of the CPUs: one of them is not behind the spinning process. Real-time, since otherwise they would wait
//! their turn on a machine that is busy with what is traced. Neither ever sleeps in the kernel for a grace period,
//! which a spinning process would hold up: the third thread does that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::CpuSet;

use super::arm::Armer;
use super::control::{Job, Paused, Work, answer, requests};
use super::shared::Shared;
use crate::event::Tid;
use crate::transport::{Ring, RingError, Waiter, Waker};

/// How often a thread looks whether it should end.
const LOOK_FOR_STOP: Duration = Duration::from_millis(200);
/// How often it looks whether a thread that was asked to stop has.
const LOOK_FOR_PAUSED: Duration = Duration::from_millis(1);

/// A job with the way back to who gave it.
struct Order {
    job: Job,
    done: Sender<Done>,
    waker: Waker,
}

/// A job that is done, by its paused thread.
struct Done {
    thread: Tid,
    /// Whether probes were placed.
    placed: bool,
}

/// The threads.
pub struct Desk {
    answering: Vec<JoinHandle<Result<(), RingError>>>,
    orders: Receiver<Order>,
    shared: Arc<Shared>,
}

/// The threads, the slow one included.
pub struct StaffedDesk {
    answering: Vec<JoinHandle<Result<(), RingError>>>,
    working: JoinHandle<Armer>,
}

impl Desk {
    /// Begins to answer, until `stop`. Jobs wait for [`Self::staff`].
    pub fn open(shared: &Arc<Shared>, ring: Ring, stop: &Arc<AtomicBool>) -> Result<Self, RingError> {
        let (order, orders) = channel();
        let places = [Place::new(&ring, 0)?, Place::new(&ring, 1)?];
        let ring = Arc::new(Mutex::new(ring));
        let answering = places.into_iter().map(|place| {
            let (shared, ring, stop) = (Arc::clone(shared), Arc::clone(&ring), Arc::clone(stop));
            let order = order.clone();
            let name = format!("control-{}", place.half);
            std::thread::Builder::new().name(name).spawn(move || place.serve(&shared, &ring, &order, &stop))
        });
        let answering = answering.collect::<Result<_, _>>()?;
        Ok(Self { answering, orders, shared: Arc::clone(shared) })
    }

    /// Begins to do the jobs.
    pub fn staff(self, armer: Armer) -> Result<StaffedDesk, RingError> {
        let Self { answering, orders, shared } = self;
        let working = std::thread::Builder::new()
            .name("arm".to_owned())
            .spawn(move || work(&shared, armer, &orders))?;
        Ok(StaffedDesk { answering, working })
    }
}

impl StaffedDesk {
    /// Waits for the threads' end, which `stop` brings about; then takes all probes away.
    pub fn close(self) {
        for thread in self.answering {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the control ring failed"),
                Err(_) => tracing::error!("a control thread ended unexpectedly"),
            }
        }
        if let Ok(armer) = self.working.join() {
            armer.shut_down();
        } else {
            tracing::error!("the arming thread ended unexpectedly");
        }
    }
}

/// Does jobs until nobody can give one any more.
fn work(shared: &Shared, mut armer: Armer, orders: &Receiver<Order>) -> Armer {
    while let Ok(Order { job, done, waker }) = orders.recv() {
        let pid = job.process.pid;
        let result = match &job.work {
            Work::Place(mappings) => armer.arm(pid, mappings).map(|outcome| outcome.new_files > 0),
            Work::MoveTo(tid) => armer.move_to(pid, tid.0).map(|()| true),
        };
        let placed = result.unwrap_or_else(|error| {
            tracing::debug!(%pid, %error, "not armed");
            false
        });
        if let Some(thread) = job.paused {
            // Its thread is there as long as anyone is paused.
            let _ = done.send(Done { thread, placed });
            waker.wake();
        }
        if crate::target::Process::open_same(job.process).is_err() {
            // It ended meanwhile, and its exit was answered before it was armed.
            shared.board().disarm(pid);
        }
    }
    armer
}

/// One of the two that answer.
struct Place {
    half: usize,
    waiter: Waiter,
    waker: Waker,
    done: Sender<Done>,
    finished: Receiver<Done>,
    paused: Vec<(Tid, Paused)>,
    /// Jobs that are done, whose threads have not stopped yet.
    ready: Vec<Done>,
}

impl Place {
    fn new(ring: &Ring, half: usize) -> Result<Self, RingError> {
        let (waiter, waker) = ring.waiter()?;
        let (done, finished) = channel();
        Ok(Self { half, waiter, waker, done, finished, paused: Vec::new(), ready: Vec::new() })
    }

    fn serve(
        mut self,
        shared: &Shared,
        ring: &Mutex<Ring>,
        order: &Sender<Order>,
        stop: &AtomicBool,
    ) -> Result<(), RingError> {
        take_place(self.half);
        // Those that are paused are let go first.
        while !stop.load(Ordering::Acquire) || !self.paused.is_empty() {
            loop {
                let requests = requests(&mut ring.lock().unwrap_or_else(PoisonError::into_inner));
                if requests.is_empty() {
                    break;
                }
                for request in &requests {
                    self.hand_on(answer(shared, request), order);
                }
            }
            self.resume(shared);
            let timeout = if self.ready.is_empty() { LOOK_FOR_STOP } else { LOOK_FOR_PAUSED };
            self.waiter.wait(timeout)?;
        }
        Ok(())
    }

    fn hand_on(&mut self, answered: super::control::Answered, order: &Sender<Order>) {
        let Some(job) = answered.job else { return };
        if let (Some(thread), Some(paused)) = (job.paused, answered.paused) {
            self.paused.push((thread, paused));
        }
        let given = Order { job, done: self.done.clone(), waker: self.waker.clone() };
        if let Err(refused) = order.send(given)
            && let Some(thread) = refused.0.job.paused
        {
            self.ready.push(Done { thread, placed: false });
        }
    }

    /// Lets those go whose job is done.
    fn resume(&mut self, shared: &Shared) {
        self.ready.extend(self.finished.try_iter());
        let Self { ready, paused, .. } = self;
        ready.retain(|done| {
            let Some(at) = paused.iter().position(|(thread, _)| *thread == done.thread) else { return false };
            if !paused[at].1.has_stopped() {
                return true;
            }
            paused.swap_remove(at).1.resume(shared, done.placed);
            false
        });
    }
}

/// Moves this thread to its half of the CPUs it may use, and before all ordinary threads there.
fn take_place(half: usize) {
    if let Ok(all) = rustix::thread::sched_getaffinity(None) {
        let mut mine = CpuSet::new();
        let allowed = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu));
        allowed.skip(half).step_by(2).for_each(|cpu| mine.set(cpu));
        if mine.count() > 0
            && let Err(error) = rustix::thread::sched_setaffinity(None, &mine)
        {
            tracing::debug!(%error, "a control thread stays where it is");
        }
    }
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter is valid for the call; 0 is this thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameter) } != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "requests are answered at ordinary priority");
    }
}
