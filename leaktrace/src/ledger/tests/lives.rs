//! Processes.

use super::*;
use Kind::{Heap, Mmap};

#[test]
fn events_of_an_unknown_process_are_counted_and_ignored() {
    let mut t = Trace::new();
    let (pid, tid, stack) = (Q, T, None);
    for event in [
        Event::Alloc { pid, addr: 1, size: 1, stack },
        Event::Free { pid, addr: 1 },
        Event::ReallocBegin { pid, tid, addr: 1 },
        Event::ReallocEnd { pid, tid, moved: Some((1, 1)), stack },
        Event::Map { pid, addr: 1, len: 1, stack },
        Event::UnmapBegin { pid, tid, addr: 1, len: 1 },
        Event::UnmapFailed { pid, tid },
        Event::RemapBegin { pid, tid, addr: 1, len: 1 },
        Event::RemapEnd { pid, tid, moved: Some((1, 1)), stack },
        Event::Exit { pid, lost: Lost::default() },
    ] {
        t.apply(event);
    }
    assert_eq!(t.ledger.totals().unknown_process, 10);
    assert_eq!(t.ledger.totals().running, 1);
    assert_eq!(t.process(P).sites, []);
}

#[test]
fn a_child_has_a_copy_and_a_life_of_its_own() {
    let mut t = Trace::new();
    t.at(1).alloc(0x1000, 100, 1).alloc(0x2000, 50, 2).map(0x10_000, 8192, 1).at(3).fork(P, Q);
    assert_eq!(t.process(Q).comm, comm("child"));
    let copied = [(Heap, 1, 100, 1, 0, 0), (Heap, 2, 50, 1, 0, 0), (Mmap, 1, 8192, 1, 0, 0)];
    t.assert_sites(Q, &copied);
    assert_eq!(t.site(Q, Heap, 1).oldest_age, Some(SECOND * 2), "as old as in the parent");

    t.free(0x1000).alloc(0x3000, 7, 1).unmap(T, 0x10_000, 4096);
    t.assert_sites(Q, &copied);

    t.apply(Event::Free { pid: Q, addr: 0x2000 });
    t.apply(Event::Alloc { pid: Q, addr: 0x3000, size: 9, stack: stack(3) });
    t.assert_sites(Q, &[(Heap, 1, 100, 1, 0, 0), (Heap, 3, 9, 1, 9, 1), (Mmap, 1, 8192, 1, 0, 0)]);
    let parents = [(Heap, 1, 7, 1, 107, 2), (Heap, 2, 50, 1, 50, 1), (Mmap, 1, 4096, 1, 8192, 1)];
    t.assert_sites(P, &parents);
    assert_eq!(t.ledger.totals().anomalies, Anomalies::default());
}

#[test]
fn what_the_parents_threads_were_moving_is_in_the_child_where_it_was() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).map(0x10_000, 8192, 1);
    t.realloc_begin(T, 0x1000).remap_begin(U, 0x11_000, 4096).fork(P, Q);
    t.assert_sites(Q, &[(Heap, 1, 100, 1, 0, 0), (Mmap, 1, 8192, 1, 0, 0)]);
    t.realloc_end(T, Some((0x2000, 1)), 1).remap_end(U, None, 1);
    t.assert_sites(P, &[(Heap, 1, 1, 1, 101, 2), (Mmap, 1, 8192, 1, 8192, 1)]);
    t.apply(Event::Free { pid: Q, addr: 0x1000 });
    t.apply(Event::UnmapBegin { pid: Q, tid: T, addr: 0x10_000, len: 8192 });
    t.assert_sites(Q, &[]);
    assert_eq!(t.ledger.totals().anomalies, Anomalies::default());
}

#[test]
fn a_child_does_not_have_two_blocks_at_one_address() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).realloc_begin(T, 0x1000).alloc(0x1000, 8, 2).fork(P, Q);
    t.assert_sites(Q, &[(Heap, 2, 8, 1, 0, 0)]);
    t.assert_sites(P, &[(Heap, 1, 100, 1, 100, 1), (Heap, 2, 8, 1, 8, 1)]);
}

#[test]
fn a_child_of_an_unknown_parent_starts_empty() {
    let mut t = Trace::new();
    t.fork(Pid(99), Q).apply(Event::Alloc { pid: Q, addr: 1, size: 5, stack: stack(1) });
    t.assert_sites(Q, &[(Heap, 1, 5, 1, 5, 1)]);
    assert_eq!(t.ledger.totals().unknown_process, 1);
}

#[test]
fn a_child_that_is_watched_before_its_fork_is_read_gets_its_copy() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).ledger.watch(key(Q, 2), comm("early"), at(0));
    t.fork(P, Q).assert_sites(Q, &[(Heap, 1, 100, 1, 0, 0)]);
    assert_eq!(t.ledger.totals().closed, 0);
}

#[test]
fn a_new_program_starts_with_nothing() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).map(0x10_000, 8192, 1).realloc_begin(T, 0x1000).free(0x9000);
    t.exec(key(P, 1), "new");
    t.assert_sites(P, &[]);
    let process = t.process(P);
    assert_eq!((process.comm, process.exited, process.unmatched_frees), (comm("new"), false, 0));
    assert_eq!(t.ledger.totals().closed, 0);
    assert_eq!(t.ledger.totals().anomalies.unmatched_frees, 1, "the whole ledger's counts only grow");
    t.alloc(0x1000, 5, 1).assert_sites(P, &[(Heap, 1, 5, 1, 5, 1)]);
    assert_eq!(t.process(P).replaced, 0);
}

#[test]
fn a_program_of_an_unknown_process_is_its_first_sight() {
    let mut t = Trace::new();
    t.exec(key(Q, 7), "q").apply(Event::Alloc { pid: Q, addr: 1, size: 5, stack: stack(1) });
    t.assert_sites(Q, &[(Heap, 1, 5, 1, 5, 1)]);
    assert_eq!(t.process(Q).comm, comm("q"));
    assert_eq!(t.ledger.totals().unknown_process, 0);
}

#[test]
fn a_pid_with_another_start_is_another_process() {
    type Reuse = fn(&mut Trace) -> &mut Trace;
    let reuse: [Reuse; 3] = [
        |t| t.exec(key(P, 5), "second"),
        |t| {
            t.ledger.watch(key(P, 5), comm("second"), t.now);
            t
        },
        |t| {
            let child = key(P, 5);
            t.fork(P, Q).apply(Event::Fork { parent: Q, child, comm: comm("second") })
        },
    ];
    for reuse in reuse {
        let mut t = Trace::new();
        t.at(1).alloc(0x1000, 100, 1).at(3);
        reuse(&mut t).at(9);
        let processes = t.ledger.snapshot(t.now, Duration::ZERO).processes;
        let first = processes.iter().find(|process| process.key == key(P, 1)).expect("the first");
        assert!(first.exited);
        assert_eq!(first.sites.iter().map(row).collect::<Vec<_>>(), [(Heap, 1, 100, 1, 100, 1)]);
        assert_eq!(first.sites[0].oldest_age, Some(SECOND * 2), "its age at its end");
        assert_eq!(t.process(P).comm, comm("second"));
        assert!(!t.process(P).exited);
        assert_books(&t.ledger);
    }
}

#[test]
fn watching_a_known_process_changes_nothing() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).ledger.watch(key(P, 1), comm("p"), at(0));
    t.assert_sites(P, &[(Heap, 1, 100, 1, 100, 1)]);
}

#[test]
fn a_process_that_ended_keeps_its_numbers() {
    let mut t = Trace::new();
    t.at(1).alloc(0x1000, 100, 1).at(2).alloc(0x2000, 7, 1).free(0x9000).realloc_begin(T, 0x2000).at(4);
    let lost = Lost { allocs: 1, alloc_bytes: 2, frees: 0, moves: 0 };
    t.apply(Event::Exit { pid: P, lost }).at(100);
    let process = t.process(P);
    assert!(process.exited);
    assert_eq!((process.lost, process.unmatched_frees), (lost, 1));
    assert_eq!(process.sites.iter().map(row).collect::<Vec<_>>(), [(Heap, 1, 107, 2, 107, 2)]);
    assert_eq!(process.sites[0].oldest_age, Some(SECOND * 3));
    assert_eq!(t.ledger.totals().tracked_blocks, 0);
    assert_eq!(t.ledger.totals().anomalies.unmatched_frees, 1);

    t.alloc(0x3000, 1, 1);
    assert_eq!(t.ledger.totals().unknown_process, 1, "nothing happens to it any more");
    t.exec(key(P, 50), "p").assert_sites(P, &[]);
    assert_eq!(t.ledger.snapshot(t.now, Duration::ZERO).processes.len(), 2);
}

#[test]
fn no_block_of_an_ended_process_is_too_young() {
    let mut t = Trace::new();
    t.at(9).alloc(0x1000, 100, 1).exit(P);
    let snapshot = t.ledger.snapshot(at(10), SECOND * 60);
    assert_eq!(snapshot.processes[0].sites.iter().map(row).collect::<Vec<_>>(), [(Heap, 1, 100, 1, 100, 1)]);
}

#[test]
fn processes_come_by_start_then_pid() {
    let mut t = Trace::new();
    t.exec(key(Pid(5), 3), "a").exec(key(Pid(4), 3), "b").exec(key(Pid(9), 2), "c").exit(Pid(9));
    let snapshot = t.ledger.snapshot(t.now, Duration::ZERO);
    let keys: Vec<_> = snapshot.processes.iter().map(|process| process.key).collect();
    assert_eq!(keys, [key(P, 1), key(Pid(9), 2), key(Pid(4), 3), key(Pid(5), 3)]);
}
