//! What leaktrace itself costs the machine.
//!
//! Comes in: `/proc/self`. Goes out: [`Usage`]. Never: a made-up 0; what can't be read is not exported.

use procfs::WithCurrentSystemInfo;
use procfs::process::Process;

/// leaktrace's own use of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) open_fds: usize,
}

pub(super) fn usage() -> Option<Usage> {
    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    Some(Usage {
        cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
        resident_bytes: stat.rss_bytes().get(),
        open_fds: process.fd_count().ok()?,
    })
}
