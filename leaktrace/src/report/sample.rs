//! Two reports for the tests of the writers, built as real ones are.
//!
//! Comes in: nothing. Goes out: [`report`], in which everything happens that can, and [`exact_report`], in which
//! nothing went wrong. Never: compiled into the program.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

use leaktrace_common::counters::Counter;
use leaktrace_common::process::Lost;
use leaktrace_common::stack::Ending;

use super::model::{Frame, Report};
use super::{Facts, ProcessFacts, Resolve, Resolved, build};
use crate::event::{Comm, Kind, Pid, ProcessKey, StackId};
use crate::ledger::{LedgerSnapshot, ProcessSnapshot, SiteSnapshot};

const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";

/// A frame at an offset of a module; its source, if there is one, is a file and a line.
pub(super) fn frame(function: &str, module: &str, offset: u64, source: Option<(&str, u32)>) -> Frame {
    Frame {
        address: format!("{:#x}", 0x5500_0000_0000 + offset),
        module: module.to_owned(),
        build_id: (!module.is_empty()).then(|| build_id(module)),
        offset: format!("{offset:#x}"),
        function: (!function.is_empty()).then(|| function.to_owned()),
        file: source.map(|(file, _)| file.to_owned()),
        line: source.map(|(_, line)| line),
        inlined: false,
    }
}

/// Each file has its own.
fn build_id(module: &str) -> String {
    let name = super::site_id::file_name(module);
    name.bytes().cycle().take(20).fold(String::new(), |id, byte| format!("{id}{byte:02x}"))
}

/// Known stacks by id; every other one has no frames.
#[derive(Debug, Default)]
pub(super) struct Stacks(pub(super) HashMap<StackId, Resolved>);

impl Resolve for Stacks {
    fn frames(&mut self, _: ProcessKey, stack: StackId) -> Resolved {
        let none = || Resolved { frames: Vec::new(), ending: Ending::Complete };
        self.0.get(&stack).cloned().unwrap_or_else(none)
    }
}

impl Stacks {
    pub(super) fn add(&mut self, id: u64, ending: Ending, frames: Vec<Frame>) {
        self.0.insert(stack_id(id).unwrap(), Resolved { frames, ending });
    }
}

pub(super) fn stack_id(id: u64) -> Option<StackId> {
    NonZeroU64::new(id).map(StackId)
}

/// A process without sites that nothing was lost of.
pub(super) fn process(pid: u32, comm: &str) -> ProcessSnapshot {
    ProcessSnapshot {
        key: ProcessKey { pid: Pid(pid), start_ns: 5_000_000_000 },
        comm: Comm(comm.to_owned()),
        exited: false,
        sites: Vec::new(),
        unmatched_frees: 0,
        replaced: 0,
        untracked: 0,
        untracked_bytes: 0,
        lost: Lost::default(),
        doubtful_bytes: 0,
    }
}

/// A site of which half of all blocks are outstanding.
pub(super) fn site(kind: Kind, stack: u64, live_bytes: u64, live_allocations: u64) -> SiteSnapshot {
    SiteSnapshot {
        kind,
        stack: stack_id(stack),
        live_bytes,
        live_allocations,
        allocated_bytes: 2 * live_bytes,
        allocations: 2 * live_allocations,
        oldest_age: (live_allocations > 0).then_some(Duration::from_millis(29_840)),
    }
}

fn stacks() -> Stacks {
    let main = frame("main", "/usr/bin/redis-server", 0x4_1149, Some(("/src/redis/server.c", 7012)));
    let start = frame("__libc_start_call_main", LIBC, 0x2_724a, None);
    let mut stacks = Stacks::default();
    let leak = frame("leak_one_kib", "/usr/bin/redis-server", 0x4_2000, Some(("/src/redis/leak.c", 12)));
    stacks.add(1, Ending::Complete, vec![leak, main.clone(), start.clone()]);

    let new = frame("operator new(unsigned long)", "/usr/lib/libstdc++.so.6", 0xa_9570, None);
    let insert = "std::_Rb_tree<std::string, std::pair<std::string const, std::vector<std::pair<int, Session>>>, \
                  std::_Select1st<std::pair<std::string const, std::vector<std::pair<int, Session>>>>>::insert(\
                  std::pair<std::string const, std::vector<std::pair<int, Session>>>&&)";
    let insert = frame(insert, "/usr/lib/libsessions.so.1", 0x1_1000, Some(("/usr/include/c++/12/map", 88)));
    stacks.add(2, Ending::Complete, vec![new, insert, main.clone(), start.clone()]);

    let rust = "/opt/filter/libfilter.so";
    let inlined =
        |function, file, line| Frame { inlined: true, ..frame(function, rust, 0x9_0010, Some((file, line))) };
    let push = vec![
        frame("__rustc::__rust_alloc", rust, 0x8_0000, None),
        inlined("alloc::alloc::alloc", "/rustc/library/alloc/src/alloc.rs", 95),
        inlined("alloc::vec::Vec<T>::with_capacity", "/rustc/library/alloc/src/vec/mod.rs", 480),
        frame("filter::Cache<K, V>::push", rust, 0x9_0010, Some(("src/cache.rs", 31))),
        frame("", rust, 0x9_4444, None),
        main.clone(),
        start,
    ];
    stacks.add(3, Ending::Complete, push);

    let buffer = frame("map_buffer", "/usr/bin/redis-server", 0x4_3000, Some(("/src/redis/buffer.c", 40)));
    stacks.add(4, Ending::TooDeep, vec![buffer, main]);

    let mut jit = frame("", "", 0, None);
    jit.address = "0x7f1122334455".to_owned();
    jit.offset.clone_from(&jit.address);
    stacks.add(5, Ending::Broken, vec![frame("g_strdup", "/usr/lib/libglib-2.0.so.0", 0x7_7777, None), jit]);
    stacks
}

/// Everything that can happen happens.
pub(super) fn report() -> Report {
    let mut redis = process(1234, "redis-server");
    redis.sites = vec![
        site(Kind::Heap, 1, 1 << 20, 1024),
        site(Kind::Heap, 2, 614_400, 300),
        site(Kind::Heap, 3, 65_536, 1),
        site(Kind::Mmap, 4, 262_144, 2),
        site(Kind::Heap, 5, 40, 1),
        site(Kind::Heap, 0, 999, 3),
        SiteSnapshot { allocated_bytes: 4096, allocations: 8, ..site(Kind::Mmap, 5, 0, 0) },
    ];
    redis.unmatched_frees = 17;
    redis.replaced = 1;
    let mut worker = process(77, "worker");
    worker.exited = true;
    worker.sites = vec![site(Kind::Heap, 1, 3072, 3)];
    worker.lost = Lost { allocs: 2, alloc_bytes: 4096, frees: 1, moves: 0 };
    worker.doubtful_bytes = 1024;
    worker.untracked = 1;
    worker.untracked_bytes = 512;
    let idle = process(99, "idle");

    let counter = |counter: Counter, count| (counter.name().to_owned(), count);
    let exe = |name: &str, rss_bytes| ProcessFacts { exe: format!("/usr/bin/{name}"), rss_bytes };
    let facts = Facts {
        duration: Duration::from_millis(30_210),
        events: 4_321,
        counters: [
            counter(Counter::Stacks, 1_500),
            counter(Counter::RingFullAlloc, 2),
            counter(Counter::RingFullFree, 1),
            counter(Counter::StackBroken, 1),
            counter(Counter::StackTooDeep, 2),
            counter(Counter::Unheld, 0),
        ]
        .into(),
        warnings: vec![
            "/opt/odd/libodd.so: no probe on `free`: its first instruction cannot be probed".into(),
        ],
        processes: [
            (redis.key, exe("redis-server", Some(47_290_777))),
            (worker.key, exe("worker", Some(1))),
            (idle.key, exe("idle", Some(1_048_576))),
        ]
        .into(),
        ..Facts::default()
    };
    let snapshot = LedgerSnapshot { processes: vec![idle, worker, redis] };
    let mut report = build(&snapshot, &mut stacks(), &facts);
    let site = &mut report.processes[0].sites[0];
    site.growth_bytes_per_s = Some(34_918.4);
    site.verdict = super::model::Verdict::Growing;
    report
}

/// One process, of which everything is known.
pub(super) fn exact_report() -> Report {
    let mut process = process(1, "redis-server");
    process.sites = vec![site(Kind::Heap, 1, 1024, 1), site(Kind::Heap, 2, 9216, 9)];
    let facts = Facts { duration: Duration::from_mins(2), ..Facts::default() };
    build(&LedgerSnapshot { processes: vec![process] }, &mut stacks(), &facts)
}
