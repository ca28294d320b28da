//! Reads a BPF ring buffer.
//!
//! Comes in: the ring. Goes out: each record's bytes. Never: wakes for single events: the kernel side wakes the
//! agent only when much is waiting, and [`Pace`] says when to look without being woken.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use rustix::event::{EventfdFlags, epoll};

/// Why a ring cannot be waited for.
#[derive(Debug, thiserror::Error)]
#[error("cannot wait for the ring buffer: {0}")]
pub struct RingError(#[from] io::Error);

/// A ring.
pub struct Ring(RingBuf<MapData>);

/// Waits for a ring, or for a [`Waker`]. Each waiting thread needs its own.
#[derive(Debug)]
pub struct Waiter(OwnedFd);

/// Wakes the thread that waits.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Ends the wait that is, or the next.
    pub fn wake(&self) {
        // It only fails when the counter is full, and then the waiter wakes up anyway.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

impl Ring {
    /// Prepares to read `ring`.
    pub fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// Hands up to `limit` waiting records to `consume`, in order. Returns how many there were, and their bytes.
    pub fn drain(&mut self, limit: usize, mut consume: impl FnMut(&[u8])) -> (usize, usize) {
        let (mut records, mut bytes) = (0, 0);
        while records < limit {
            let Some(record) = self.0.next() else { break };
            consume(&record);
            records += 1;
            bytes += record.len();
        }
        (records, bytes)
    }

    /// What waits for this ring, and what wakes it.
    pub fn waiter(&self) -> Result<(Waiter, Waker), RingError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = rustix::event::eventfd(0, flags).map_err(io::Error::from)?;
        // Edge-triggered: a record that was put without a wakeup is no reason to return.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        for source in [self.0.as_fd(), wake.as_fd()] {
            epoll::add(&epoll, source, epoll::EventData::new_u64(0), flags).map_err(io::Error::from)?;
        }
        Ok((Waiter(epoll), Waker(Arc::new(wake))))
    }
}

impl Waiter {
    /// Sleeps until the kernel side wakes the agent, or for `timeout`.
    pub fn wait(&self, timeout: Duration) -> Result<(), RingError> {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        let timeout = rustix::event::Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match epoll::wait(&self.0, &mut events, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }
}

/// How long to sleep between looks at the ring: long when nothing happens, short when much does.
#[derive(Debug, Clone)]
pub struct Pace {
    ring_bytes: usize,
    sleep: Duration,
}

impl Pace {
    /// Between looks at a ring in use. An eighth of the ring is a comfortable amount to find.
    const SHORTEST: Duration = Duration::from_millis(1);
    /// Between looks at a ring at rest: ten a second cost nothing that can be measured.
    const LONGEST: Duration = Duration::from_millis(100);

    /// For a ring of this size.
    pub fn new(ring_bytes: usize) -> Self {
        Self { ring_bytes, sleep: Self::SHORTEST }
    }

    /// The next sleep, given what the last look found.
    pub fn after(&mut self, found_bytes: usize) -> Duration {
        self.sleep = if found_bytes > self.ring_bytes / 8 {
            self.sleep / 2
        } else if found_bytes < self.ring_bytes / 64 {
            self.sleep * 2
        } else {
            self.sleep
        };
        self.sleep = self.sleep.clamp(Self::SHORTEST, Self::LONGEST);
        self.sleep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_ring_is_looked_at_ten_times_a_second() {
        let mut pace = Pace::new(64 << 20);
        let last = (0..20).map(|_| pace.after(0)).last();
        assert_eq!(last, Some(Pace::LONGEST));
    }

    #[test]
    fn a_full_ring_is_looked_at_again_at_once() {
        let mut pace = Pace::new(1 << 20);
        (0..20).for_each(|_| _ = pace.after(0));
        let last = (0..20).map(|_| pace.after(1 << 20)).last();
        assert_eq!(last, Some(Pace::SHORTEST));
    }
}
