//! Heap blocks.

use super::*;
use Kind::Heap;

#[test]
fn a_block_is_outstanding_until_it_is_freed() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).alloc(0x2000, 50, 1).alloc(0x3000, 7, 2);
    t.assert_sites(P, &[(Heap, 1, 150, 2, 150, 2), (Heap, 2, 7, 1, 7, 1)]);
    t.free(0x1000).free(0x3000);
    t.assert_sites(P, &[(Heap, 1, 50, 1, 150, 2), (Heap, 2, 0, 0, 7, 1)]);
}

#[test]
fn a_block_without_a_stack_has_a_site_of_its_own() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 0).map(0x10_000, 4096, 0);
    t.assert_sites(P, &[(Heap, 0, 100, 1, 100, 1), (Kind::Mmap, 0, 4096, 1, 4096, 1)]);
}

#[test]
fn an_empty_block_is_a_block() {
    let mut t = Trace::new();
    t.alloc(0x1000, 0, 1).assert_sites(P, &[(Heap, 1, 0, 1, 0, 1)]);
    t.free(0x1000).assert_sites(P, &[(Heap, 1, 0, 0, 0, 1)]);
}

#[test]
fn an_address_that_is_handed_out_again_replaces_its_block() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).alloc(0x1000, 30, 2);
    t.assert_sites(P, &[(Heap, 1, 0, 0, 100, 1), (Heap, 2, 30, 1, 30, 1)]);
    assert_eq!(t.process(P).replaced, 1);
    assert_eq!(t.process(P).unmatched_frees, 0);
}

#[test]
fn a_free_of_an_unknown_block_is_counted_and_changes_nothing() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).free(0x2000).free(0x1000).free(0x1000);
    t.assert_sites(P, &[(Heap, 1, 0, 0, 100, 1)]);
    assert_eq!(t.process(P).unmatched_frees, 2);
    assert_eq!(t.ledger.totals().anomalies.unmatched_frees, 2);
}

#[test]
fn the_oldest_block_tells_a_sites_age() {
    let mut t = Trace::new();
    t.at(1).alloc(0x1000, 1, 1).at(3).alloc(0x2000, 1, 1).at(10);
    assert_eq!(t.site(P, Heap, 1).oldest_age, Some(SECOND * 9));
    t.free(0x1000);
    assert_eq!(t.site(P, Heap, 1).oldest_age, Some(SECOND * 7));
    t.free(0x2000);
    assert_eq!(t.site(P, Heap, 1).oldest_age, None);
}

#[test]
fn young_blocks_are_left_out_of_what_is_outstanding() {
    let mut t = Trace::new();
    t.at(1).alloc(0x1000, 1, 1).at(3).alloc(0x2000, 20, 1).map(0x10_000, 4096, 1).at(4);
    let rows = |min_age| {
        let snapshot = t.ledger.snapshot(t.now, SECOND * min_age);
        let mut rows: Vec<Row> = snapshot.processes[0].sites.iter().map(row).collect();
        rows.sort_unstable();
        rows
    };
    let mmap = |bytes, blocks| (Kind::Mmap, 1, bytes, blocks, 4096, 1);
    assert_eq!(rows(0), [(Heap, 1, 21, 2, 21, 2), mmap(4096, 1)]);
    assert_eq!(rows(1), [(Heap, 1, 21, 2, 21, 2), mmap(4096, 1)], "a block of just that age counts");
    assert_eq!(rows(2), [(Heap, 1, 1, 1, 21, 2), mmap(0, 0)]);
    assert_eq!(rows(4), [(Heap, 1, 0, 0, 21, 2), mmap(0, 0)]);
    assert_eq!(rows(5), [(Heap, 1, 0, 0, 21, 2), mmap(0, 0)], "longer than the trace");
}

#[test]
fn a_block_that_moves_goes_to_the_site_that_moved_it() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).realloc_begin(T, 0x1000).realloc_end(T, Some((0x2000, 300)), 2);
    t.assert_sites(P, &[(Heap, 1, 0, 0, 100, 1), (Heap, 2, 300, 1, 300, 1)]);
    t.free(0x2000).assert_sites(P, &[(Heap, 1, 0, 0, 100, 1), (Heap, 2, 0, 0, 300, 1)]);
    assert_eq!(t.process(P).unmatched_frees, 0);
}

#[test]
fn a_block_that_grows_in_place_moves_to_where_it_is() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).realloc_begin(T, 0x1000).realloc_end(T, Some((0x1000, 300)), 2);
    t.assert_sites(P, &[(Heap, 1, 0, 0, 100, 1), (Heap, 2, 300, 1, 300, 1)]);
    assert_eq!(t.process(P).replaced, 0);
}

#[test]
fn a_block_whose_move_fails_is_as_it_was() {
    let mut t = Trace::new();
    t.at(1).alloc(0x1000, 100, 1).at(5).realloc_begin(T, 0x1000).realloc_end(T, None, 2).at(6);
    t.assert_sites(P, &[(Heap, 1, 100, 1, 100, 1)]);
    assert_eq!(t.site(P, Heap, 1).oldest_age, Some(SECOND * 5));
    t.free(0x1000).assert_sites(P, &[(Heap, 1, 0, 0, 100, 1)]);
    assert_eq!(t.process(P).unmatched_frees, 0);
}

#[test]
fn a_block_on_the_move_is_outstanding() {
    let mut t = Trace::new();
    t.at(1).alloc(0x1000, 100, 1).realloc_begin(T, 0x1000).at(4);
    t.assert_sites(P, &[(Heap, 1, 100, 1, 100, 1)]);
    assert_eq!(t.site(P, Heap, 1).oldest_age, Some(SECOND * 3));
}

#[test]
fn an_address_whose_block_is_on_the_move_may_go_to_another_thread() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).realloc_begin(T, 0x1000).alloc(0x1000, 8, 3);
    t.realloc_end(T, Some((0x2000, 300)), 2);
    t.assert_sites(P, &[(Heap, 1, 0, 0, 100, 1), (Heap, 2, 300, 1, 300, 1), (Heap, 3, 8, 1, 8, 1)]);
    assert_eq!(t.ledger.totals().anomalies, Anomalies::default());
}

#[test]
fn two_threads_move_blocks_at_the_same_time() {
    let mut t = Trace::new();
    t.alloc(0x1000, 1, 1).alloc(0x2000, 2, 2).realloc_begin(T, 0x1000).realloc_begin(U, 0x2000);
    t.realloc_end(T, Some((0x2000, 10)), 1).realloc_end(U, Some((0x1000, 20)), 2);
    t.assert_sites(P, &[(Heap, 1, 10, 1, 11, 2), (Heap, 2, 20, 1, 22, 2)]);
    assert_eq!(t.ledger.totals().anomalies, Anomalies::default());
}

#[test]
fn the_move_of_an_unknown_block_is_an_unmatched_free_and_an_allocation() {
    let mut t = Trace::new();
    t.realloc_begin(T, 0x1000).realloc_end(T, Some((0x2000, 300)), 2);
    t.assert_sites(P, &[(Heap, 2, 300, 1, 300, 1)]);
    assert_eq!(t.process(P).unmatched_frees, 1);
}

#[test]
fn an_end_whose_beginning_was_lost_is_an_allocation() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).realloc_end(T, Some((0x2000, 300)), 2).realloc_end(T, None, 2);
    t.assert_sites(P, &[(Heap, 1, 100, 1, 100, 1), (Heap, 2, 300, 1, 300, 1)]);
    assert_eq!(t.process(P).unmatched_frees, 0);
}

#[test]
fn a_beginning_whose_end_was_lost_is_forgotten_at_the_threads_next() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).alloc(0x2000, 50, 2).realloc_begin(T, 0x1000).realloc_begin(T, 0x2000);
    t.assert_sites(P, &[(Heap, 1, 0, 0, 100, 1), (Heap, 2, 50, 1, 50, 1)]);
    assert_eq!(t.ledger.totals().anomalies.unended_moves, 1);
    t.realloc_end(T, None, 2).free(0x2000);
    assert_eq!(t.process(P).unmatched_frees, 0);
}

#[test]
fn a_failed_move_does_not_push_a_newer_block_out() {
    // The first move's end, and the second's beginning, were lost.
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).realloc_begin(T, 0x1000).alloc(0x1000, 8, 2).realloc_end(T, None, 1);
    t.assert_sites(P, &[(Heap, 1, 0, 0, 100, 1), (Heap, 2, 8, 1, 8, 1)]);
    assert_eq!(t.process(P).replaced, 1);
}

#[test]
fn sizes_that_cannot_be_do_no_harm() {
    let mut t = Trace::new();
    t.alloc(0x1000, u64::MAX, 1).alloc(0x2000, u64::MAX, 1).alloc(0x3000, 5, 1);
    t.free(0x1000).free(0x2000).assert_sites(P, &[(Heap, 1, 5, 1, 3, 3)]);
}

#[test]
fn lost_frees_make_the_largest_blocks_doubtful() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).alloc(0x2000, 700, 1).alloc(0x3000, 300, 2).map(0x10_000, 4096, 1);
    assert_eq!(t.process(P).doubtful_bytes, 0);
    for (frees, doubtful) in [(1, 4096), (2, 4796), (3, 5096), (4, 5196), (1 << 40, 5196)] {
        t.ledger.set_lost(P, Lost { frees, ..Lost::default() });
        assert_eq!(t.process(P).doubtful_bytes, doubtful, "{frees} lost");
    }
    t.apply(Event::Exit { pid: P, lost: Lost { frees: 2, ..Lost::default() } });
    assert_eq!(t.process(P).doubtful_bytes, 4796);
    assert_eq!(t.process(P).lost.frees, 2);
}

#[test]
fn totals_need_no_snapshot() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).alloc(0x2000, 50, 2).free(0x2000).free(0x2000).map(0x10_000, 4096, 1);
    let anomalies = Anomalies { unmatched_frees: 1, ..Anomalies::default() };
    let expected = ProcessTotals {
        key: key(P, 1),
        comm: &comm("p"),
        live_bytes: 4196,
        live_allocations: 2,
        allocated_bytes: 4246,
        allocations: 3,
        anomalies,
    };
    assert_eq!(t.ledger.processes().collect::<Vec<_>>(), [expected]);
    let expected =
        LedgerTotals { running: 1, tracked_blocks: 2, sites: 3, anomalies, ..LedgerTotals::default() };
    assert_eq!(t.ledger.totals(), expected);
}
