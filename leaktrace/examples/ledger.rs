//! How fast the ledger is and how much memory it takes: `cargo run --release -p leaktrace --example ledger`.
//!
//! Comes in: nothing. Goes out: a table of decoded and booked events per second, by outstanding blocks, and
//! what a block takes in memory. Times are this thread's CPU time, so that a busy machine disturbs less.
//! Never: probes.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use hashbrown::HashMap;
use leaktrace::decode::decode;
use leaktrace::event::{Comm, Event, Pid, ProcessKey};
use leaktrace::ledger::{Ledger, Limits, Moment};
use leaktrace_common::record::kind;
use rustc_hash::FxBuildHasher;
use rustix::time::{ClockId, clock_gettime};

const PID: u32 = 4711;
const CHILD: u32 = 4712;
const SITES: u64 = 500;

/// Addresses as a heap of blocks of one size has them.
const FIRST: u64 = 0x7f00_0000_0010;
const STRIDE: u64 = 96;

/// Pairs of records in a measurement; each is repeated and the median taken.
const PAIRS: u64 = 2_000_000;
const REPEATS: usize = 5;

fn main() -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "ns for a pair (alloc + free), decoded and booked")?;
    writeln!(out, "outstanding    one by one    together    M events/s    a bare hash map")?;
    for live in [1_000, 100_000, 1_000_000, 10_000_000] {
        let Pair { single, together, bare } = pair_times(live)?;
        let rate = 2e3 / together.as_nanos() as f64;
        let [single, together, bare] = [single, together, bare].map(|time| time.as_nanos());
        writeln!(out, "{live:>11}    {single:>10}    {together:>8}    {rate:>10.1}    {bare:>15}")?;
    }
    writeln!(out)?;
    writeln!(out, "outstanding    bytes a block    slowest alloc    snapshot    fork    exit")?;
    for live in [1_000_000, 1_835_000, 1_836_000, 7_340_000, 7_341_000] {
        let row = resident(live)?;
        writeln!(
            out,
            "{live:>11}    {:>13.1}    {:>10.1} ms    {:>5.1} ms  {:>4.1} ms {:>4.1} ms",
            row.bytes_a_block, row.slowest, row.snapshot, row.fork, row.exit
        )?;
    }
    Ok(())
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(Limits::default());
    ledger.watch(key(PID), Comm("bench".into()), Moment::default());
    ledger
}

fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid: Pid(pid), start_ns: 0 }
}

/// Times of the free of an old block and of an allocation.
struct Pair {
    /// From bytes, through [`Ledger::apply`].
    single: Duration,
    /// From bytes, through [`Ledger::apply_all`].
    together: Duration,
    /// By a hash map that keeps (size, site, time) by (pid, address), and nothing else.
    bare: Duration,
}

/// Medians, with so many blocks outstanding.
fn pair_times(live: u64) -> Result<Pair> {
    let mut ledger = ledger();
    let mut map = HashMap::<(u32, u64), (u64, u32, u32), FxBuildHasher>::default();
    let mut addresses: Vec<u64> = (0..live).map(|i| FIRST + i * STRIDE).collect();
    let mut random = Random(1);
    for addr in &addresses {
        ledger.apply(decode(&alloc(*addr, random.next()))?, Moment::default());
        map.insert((PID, *addr), (1, 1, 1));
    }
    let mut fresh = FIRST + live * STRIDE;
    // The records are laid out as on the ring, so that making them isn't measured.
    let mut ring = || -> Vec<([u8; 16], [u8; 32])> {
        let pair = |_| {
            let slot = (random.next() % live) as usize;
            let freed = addresses[slot];
            // Three quarters go back to where a block was just freed, as allocators do.
            if random.next().is_multiple_of(4) {
                fresh += STRIDE;
                addresses[slot] = fresh;
            }
            (free(freed), alloc(addresses[slot], random.next()))
        };
        (0..PAIRS).map(pair).collect()
    };
    let follow = |map: &mut HashMap<_, _, _>, ring: &[([u8; 16], [u8; 32])]| {
        for (free, alloc) in ring {
            map.remove(&(PID, addr(black_box(free))));
            map.insert((PID, addr(black_box(alloc))), (1, 1, 1));
        }
    };
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let mut events = Vec::new();
    for _ in 0..REPEATS {
        let records = ring();
        let start = cpu_time()?;
        for (free, alloc) in &records {
            ledger.apply(decode(black_box(free))?, Moment::default());
            ledger.apply(decode(black_box(alloc))?, Moment::default());
        }
        times[0].push(cpu_time()?.saturating_sub(start));
        follow(&mut map, &records);

        let records = ring();
        let start = cpu_time()?;
        for records in records.chunks(100) {
            for (free, alloc) in records {
                events.push(decode(black_box(free))?);
                events.push(decode(black_box(alloc))?);
            }
            ledger.apply_all(&mut events, Moment::default());
        }
        times[1].push(cpu_time()?.saturating_sub(start));

        let start = cpu_time()?;
        follow(&mut map, &records);
        times[2].push(cpu_time()?.saturating_sub(start));
    }
    let [single, together, bare] = times.map(|mut times| {
        times.sort_unstable();
        times[REPEATS / 2] / PAIRS as u32
    });
    Ok(Pair { single, together, bare })
}

/// The address in a record.
fn addr(record: &[u8]) -> u64 {
    record[8..].first_chunk().map_or(0, |addr| u64::from_le_bytes(*addr))
}

/// Costs of a ledger with many outstanding blocks; times in milliseconds.
struct Resident {
    bytes_a_block: f64,
    slowest: f64,
    snapshot: f64,
    fork: f64,
    exit: f64,
}

fn resident(live: u64) -> Result<Resident> {
    let mut ledger = ledger();
    let before = resident_bytes()?;
    let mut random = Random(1);
    let mut slowest = Duration::ZERO;
    for i in 0..live {
        let event = decode(&alloc(FIRST + i * STRIDE, random.next()))?;
        let start = cpu_time()?;
        ledger.apply(event, Moment::default());
        slowest = slowest.max(cpu_time()?.saturating_sub(start));
    }
    let bytes_a_block = (resident_bytes()? - before) as f64 / live as f64;
    let snapshot = time(|| ledger.snapshot(Moment::default(), Duration::ZERO))?;
    let fork = Event::Fork { parent: Pid(PID), child: key(CHILD), comm: Comm("child".into()) };
    let fork = time(|| ledger.apply(fork, Moment::default()))?;
    let exit =
        time(|| ledger.apply(Event::Exit { pid: Pid(CHILD), lost: <_>::default() }, Moment::default()))?;
    let slowest = slowest.as_secs_f64() * 1e3;
    Ok(Resident { bytes_a_block, slowest, snapshot, fork, exit })
}

/// Milliseconds that something takes.
fn time<T>(work: impl FnOnce() -> T) -> Result<f64> {
    let start = cpu_time()?;
    black_box(work());
    Ok(cpu_time()?.saturating_sub(start).as_secs_f64() * 1e3)
}

fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::ThreadCPUTime).try_into()?)
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// A record of an allocation from one of the sites.
fn alloc(addr: u64, random: u64) -> [u8; 32] {
    let mut record = [0; 32];
    record[0] = kind::ALLOC;
    record[4..8].copy_from_slice(&PID.to_le_bytes());
    record[8..16].copy_from_slice(&addr.to_le_bytes());
    record[16..24].copy_from_slice(&(random >> 40 & 0xfff).to_le_bytes());
    let site = random % SITES + 1;
    record[24..32].copy_from_slice(&site.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    record
}

fn free(addr: u64) -> [u8; 16] {
    let mut record = [0; 16];
    record[0] = kind::FREE;
    record[4..8].copy_from_slice(&PID.to_le_bytes());
    record[8..16].copy_from_slice(&addr.to_le_bytes());
    record
}

/// A small generator (xorshift64*), so that every run does the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
