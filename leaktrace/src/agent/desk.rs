//! The threads that answer the control ring.
//!
//! Comes in: wakeups. Goes out: answered requests, at once. Never: runs on the CPU that waits for the answer
//! only.
//!
//! A process that waits spins on its CPU, which then runs nobody else; and the scheduler, seeing an ordinary
//! task there, would put a thread with a real-time priority just behind it. So there are two threads, each on
//! its own half of the CPUs: one of them is not behind the spinning process. Real-time, since otherwise they
//! would wait their turn on a machine that is busy with what is traced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::CpuSet;

use super::control::Control;
use crate::transport::{Ring, RingError, Waiter};

/// How often a thread looks whether it should end.
const LOOK_FOR_STOP: Duration = Duration::from_millis(200);

/// The threads.
pub struct Desk {
    work: Arc<Mutex<(Control, Ring)>>,
    threads: Vec<JoinHandle<Result<(), RingError>>>,
}

impl Desk {
    /// Starts to answer, until `stop`.
    pub fn open(control: Control, ring: Ring, stop: &Arc<AtomicBool>) -> Result<Self, RingError> {
        let waiters = [ring.waiter()?, ring.waiter()?];
        let work = Arc::new(Mutex::new((control, ring)));
        let threads = waiters.into_iter().enumerate().map(|(half, waiter)| {
            let (work, stop) = (Arc::clone(&work), Arc::clone(stop));
            let serve = move || {
                take_place(half);
                serve(&work, &waiter, &stop)
            };
            std::thread::Builder::new().name(format!("control-{half}")).spawn(serve)
        });
        let threads = threads.collect::<Result<_, _>>()?;
        Ok(Self { work, threads })
    }

    /// Waits for the threads' end, which `stop` brings about; then takes all probes away.
    pub fn close(self) {
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the control ring failed"),
                Err(_) => tracing::error!("a control thread ended unexpectedly"),
            }
        }
        if let Some(work) = Arc::into_inner(self.work) {
            let (control, _) = work.into_inner().unwrap_or_else(PoisonError::into_inner);
            control.shut_down();
        }
    }
}

fn serve(work: &Mutex<(Control, Ring)>, waiter: &Waiter, stop: &AtomicBool) -> Result<(), RingError> {
    while !stop.load(Ordering::Acquire) {
        let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
        let (control, ring) = &mut *work;
        control.answer_all(ring);
        drop(work);
        waiter.wait(LOOK_FOR_STOP)?;
    }
    Ok(())
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
