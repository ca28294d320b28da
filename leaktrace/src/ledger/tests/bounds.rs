//! What happens at the limits.

use leaktrace_common::stack::Ending;

use super::*;
use Kind::{Heap, Mmap};

#[test]
fn blocks_without_room_are_in_the_totals_and_untracked() {
    let mut t = Trace::with(Limits { blocks: 2, ..limits() });
    t.alloc(0x1000, 1, 1).alloc(0x2000, 2, 1).alloc(0x3000, 40, 1).map(0x10_000, 4096, 1);
    t.assert_sites(P, &[(Heap, 1, 3, 2, 43, 3), (Mmap, 1, 0, 0, 4096, 1)]);
    let process = t.process(P);
    assert_eq!((process.untracked, process.untracked_bytes), (2, 4136));
}

#[test]
fn room_that_is_given_back_is_used_again() {
    let mut t = Trace::with(Limits { blocks: 1, ..limits() });
    t.alloc(0x1000, 1, 1).free(0x1000).alloc(0x2000, 2, 1).exec(key(P, 1), "p").alloc(0x3000, 3, 1);
    t.exit(P).exec(key(P, 2), "p").map(0x10_000, 4096, 1).unmap(T, 0x10_000, 4096).alloc(0x4000, 4, 1);
    assert_eq!(t.ledger.totals().anomalies.untracked, 0);
    t.assert_sites(P, &[(Heap, 1, 4, 1, 4, 1), (Mmap, 1, 0, 0, 4096, 1)]);
}

#[test]
fn a_block_that_replaces_or_moves_one_needs_no_room() {
    let mut t = Trace::with(Limits { blocks: 1, ..limits() });
    t.alloc(0x1000, 1, 1).alloc(0x1000, 2, 1);
    t.realloc_begin(T, 0x1000).realloc_end(T, Some((0x2000, 3)), 1);
    t.assert_sites(P, &[(Heap, 1, 3, 1, 6, 3)]);
    assert_eq!(t.process(P).untracked, 0);
}

#[test]
fn the_free_of_an_untracked_block_is_no_second_anomaly() {
    let mut t = Trace::with(Limits { blocks: 1, ..limits() });
    t.alloc(0x1000, 1, 1).alloc(0x2000, 2, 1).alloc(0x3000, 3, 1);
    t.free(0x2000).realloc_begin(T, 0x3000);
    assert_eq!(t.process(P).unmatched_frees, 0);
    t.free(0x4000);
    assert_eq!(t.process(P).unmatched_frees, 1);
}

#[test]
fn processes_share_the_room_for_blocks() {
    let mut t = Trace::with(Limits { blocks: 1, ..limits() });
    t.alloc(0x1000, 1, 1).exec(key(Q, 2), "q");
    t.apply(Event::Alloc { pid: Q, addr: 0x1000, size: 5, stack: stack(1) });
    assert_eq!(t.process(Q).untracked, 1);
    t.exit(P).apply(Event::Alloc { pid: Q, addr: 0x2000, size: 6, stack: stack(1) });
    t.assert_sites(Q, &[(Heap, 1, 6, 1, 11, 2)]);
}

#[test]
fn a_child_whose_copy_finds_no_room_starts_with_nothing() {
    for limits in [Limits { blocks: 5, ..limits() }, Limits { sites: 3, ..limits() }] {
        let mut t = Trace::with(limits);
        t.alloc(0x1000, 1, 1).alloc(0x2000, 2, 2).map(0x10_000, 4096, 1).fork(P, Q);
        t.assert_sites(Q, &[]);
        let child = t.process(Q);
        assert_eq!((child.untracked, child.untracked_bytes), (3, 4099));
        for addr in [0x1000, 0x2000, 0x3000] {
            t.apply(Event::Free { pid: Q, addr });
        }
        assert_eq!(t.process(Q).unmatched_frees, 1, "two of the three can be of what it did not inherit");
    }
}

#[test]
fn sites_without_room_are_put_down_to_no_stack() {
    let mut t = Trace::with(Limits { sites: 1, ..limits() });
    t.alloc(0x1000, 1, 1).alloc(0x2000, 20, 2).alloc(0x3000, 300, 3).alloc(0x4000, 4000, 1);
    t.assert_sites(P, &[(Heap, 0, 320, 2, 320, 2), (Heap, 1, 4001, 2, 4001, 2)]);
    assert_eq!(t.ledger.totals().unsited, 2);
    t.exec(key(P, 1), "p").alloc(0x1000, 1, 2).assert_sites(P, &[(Heap, 2, 1, 1, 1, 1)]);
}

#[test]
fn ended_processes_make_room_for_the_sites_of_running_ones() {
    let mut t = Trace::with(Limits { sites: 2, ..limits() });
    t.alloc(0x1000, 1, 1).exit(P).exec(key(Q, 2), "q");
    for site in 1..=2 {
        t.apply(Event::Alloc { pid: Q, addr: site * 16, size: 1, stack: stack(site) });
    }
    t.assert_sites(Q, &[(Heap, 1, 1, 1, 1, 1), (Heap, 2, 1, 1, 1, 1)]);
    let totals = t.ledger.totals();
    assert_eq!((totals.closed, totals.closed_dropped, totals.unsited), (0, 1, 0));
}

#[test]
fn ended_processes_make_room_for_the_sites_of_a_child() {
    let mut t = Trace::with(Limits { sites: 4, ..limits() });
    t.exec(key(Q, 2), "q");
    for site in 1..=2 {
        t.apply(Event::Alloc { pid: Q, addr: site * 16, size: 1, stack: stack(site) });
    }
    t.exit(Q).alloc(0x1000, 1, 1).alloc(0x2000, 1, 2).fork(P, Q);
    t.assert_sites(Q, &[(Heap, 1, 1, 1, 0, 0), (Heap, 2, 1, 1, 0, 0)]);
    assert_eq!(t.ledger.totals().closed_dropped, 1);
}

#[test]
fn of_ended_processes_the_smallest_of_the_older_half_goes() {
    let mut t = Trace::with(Limits { closed_processes: 3, ..limits() });
    let mut end = |pid: u32, leaked: u64| {
        t.exec(key(Pid(pid), u64::from(pid)), "p");
        t.apply(Event::Alloc { pid: Pid(pid), addr: 16, size: leaked, stack: stack(1) });
        t.exit(Pid(pid));
        let kept = t.ledger.snapshot(t.now, Duration::ZERO).processes;
        kept.iter().filter(|process| process.exited).map(|process| process.key.pid.0).collect::<Vec<_>>()
    };
    end(101, 500);
    end(102, 5);
    assert_eq!(end(103, 50), [101, 102, 103]);
    assert_eq!(end(104, 1), [101, 103, 104]);
    assert_eq!(end(105, 1), [101, 104, 105]);
    assert_eq!(end(106, 1), [101, 105, 106], "of equal ones the older");
    assert_eq!(t.ledger.totals().closed_dropped, 3);
    assert_books(&t.ledger);
}

#[test]
fn without_room_for_ended_processes_none_is_kept() {
    let mut t = Trace::with(Limits { closed_processes: 0, ..limits() });
    t.alloc(0x1000, 1, 1).exit(P);
    assert_eq!(t.ledger.snapshot(t.now, Duration::ZERO), LedgerSnapshot::default());
    assert_eq!(t.ledger.totals().closed_dropped, 1);
}

/// Arrival of a stack with one frame, its id.
fn arrives(t: &mut Trace, id: u64) {
    let frames = Frames { pid: P, generation: 0, addresses: [id].into(), ending: Ending::Complete };
    t.apply(Event::Stack { id: stack(id).unwrap(), frames });
}

fn is_known(t: &Trace, id: u64) -> bool {
    t.ledger.frames(stack(id).unwrap()).is_some_and(|frames| *frames.addresses == [id])
}

#[test]
fn a_stacks_frames_are_known_from_its_arrival() {
    let mut t = Trace::new();
    assert!(!is_known(&t, 1));
    arrives(&mut t, 1);
    arrives(&mut t, 1);
    assert!(is_known(&t, 1));
    assert_eq!(t.ledger.totals().stacks, 1);
}

#[test]
fn stacks_that_no_site_uses_make_room() {
    let mut t = Trace::with(Limits { stacks: 16, ..limits() });
    for id in 1..=16 {
        arrives(&mut t, id);
    }
    t.alloc(0x1000, 1, 1).exec(key(Q, 2), "q");
    t.apply(Event::Alloc { pid: Q, addr: 16, size: 1, stack: stack(2) }).exit(Q);
    arrives(&mut t, 17);
    assert!(is_known(&t, 1), "of a running process");
    assert!(is_known(&t, 2), "of an ended process");
    assert!(!is_known(&t, 3));
    assert!((9..=17).all(|id| is_known(&t, id)), "their first use may be still to come");
    assert_eq!(t.ledger.totals().stacks, 11);
}

#[test]
fn stacks_without_room_are_counted() {
    let mut t = Trace::with(Limits { stacks: 4, ..limits() });
    for id in 1..=10 {
        arrives(&mut t, id);
        t.alloc(id * 16, 1, id);
    }
    assert!((1..=4).all(|id| is_known(&t, id)));
    assert!((5..=10).all(|id| !is_known(&t, id)));
    assert_eq!(t.ledger.totals().stacks_dropped, 6);
    t.assert_sites(P, &(1..=10).map(|id| (Heap, id, 1, 1, 1, 1)).collect::<Vec<_>>());
}
