//! The first line of every program: is this process traced, and as whose memory?
//!
//! Comes in: the current task. Goes out: its [`Traced`] entry. Never: more than one map lookup.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use leaktrace_common::process::Traced;

use crate::maps::TRACED;

/// The current thread of a traced process.
#[derive(Clone, Copy)]
pub struct Thread {
    /// Its own id.
    pub tid: u32,
    /// The process it belongs to.
    pub pid: u32,
    /// Owner of the memory: another process than `pid` between `vfork` and `exec`.
    pub owner: u32,
    traced: *mut Traced,
}

impl Thread {
    /// The current thread if its process is traced.
    #[inline(always)]
    pub fn current() -> Option<Self> {
        let pid_tgid = bpf_get_current_pid_tgid();
        let (pid, tid) = ((pid_tgid >> 32) as u32, pid_tgid as u32);
        let traced = TRACED.get_ptr_mut(pid)?;
        // SAFETY: a map value that was just looked up; without preallocation the memory is not reused while
        // this program runs (RCU).
        let owner = unsafe { (*traced).owner };
        Some(Self { tid, pid, owner, traced })
    }

    /// Its process's entry.
    #[inline(always)]
    pub fn traced(&self) -> *mut Traced {
        self.traced
    }

    /// Generation of the process's mappings.
    #[inline(always)]
    pub fn generation(&self) -> u32 {
        // SAFETY: as in `current`.
        unsafe { (*self.traced).generation }
    }
}
