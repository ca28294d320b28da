//! How much CPU a process uses.
//!
//! Comes in: a pid. Goes out: a share of one CPU. Never: an absolute time that a test would depend on.

use std::time::{Duration, Instant};

/// The share of one CPU that a process uses over a time, user and system, all threads.
pub fn share(pid: u32, time: Duration) -> f64 {
    let (start, before) = (Instant::now(), used(pid));
    std::thread::sleep(time);
    used(pid).saturating_sub(before).as_secs_f64() / start.elapsed().as_secs_f64()
}

fn used(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name, in parentheses, may hold anything; user and system ticks are the 12th and 13th field after it.
    let (_, fields) = stat.rsplit_once(')').expect("stat has a name in parentheses");
    let ticks: u64 = fields.split_ascii_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}
