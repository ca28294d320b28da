//! Mappings.

use super::*;
use Kind::Mmap;

/// Bytes of `n` pages; also the address of page `n`.
const fn pages(n: u64) -> u64 {
    n * 4096
}

/// A mapping of pages 10 to 20.
fn ten_pages() -> Trace {
    let mut t = Trace::new();
    t.at(1).map(pages(10), pages(10), 1).at(5);
    t
}

/// Expects so many pages in so many pieces at site 1.
#[track_caller]
fn assert_left(t: &Trace, left: u64, pieces: u64) {
    t.assert_sites(P, &[(Mmap, 1, pages(left), pieces, pages(10), 1)]);
    if pieces > 0 {
        assert_eq!(t.site(P, Mmap, 1).oldest_age, t.now.0.checked_sub(SECOND), "each piece keeps the time");
    }
    assert_eq!(t.ledger.totals().anomalies, Anomalies::default());
}

#[test]
fn a_mapping_is_outstanding_until_it_is_unmapped() {
    let mut t = ten_pages();
    assert_left(&t, 10, 1);
    t.unmap(T, pages(10), pages(10));
    assert_left(&t, 0, 0);
}

#[test]
fn an_unmapping_trims_a_head_a_tail_and_the_middle() {
    let mut t = ten_pages();
    t.unmap(T, pages(8), pages(3));
    assert_left(&t, 9, 1);
    t.unmap(T, pages(19), pages(4));
    assert_left(&t, 8, 1);
    t.unmap(T, pages(14), pages(2));
    assert_left(&t, 6, 2);
    t.unmap(T, pages(0), pages(100));
    assert_left(&t, 0, 0);
}

#[test]
fn an_unmapping_reaches_over_many_mappings() {
    let mut t = Trace::new();
    t.map(pages(10), pages(2), 1).map(pages(12), pages(2), 2).map(pages(20), pages(2), 3);
    t.unmap(T, pages(11), pages(10));
    t.assert_sites(
        P,
        &[
            (Mmap, 1, pages(1), 1, pages(2), 1),
            (Mmap, 2, 0, 0, pages(2), 1),
            (Mmap, 3, pages(1), 1, pages(2), 1),
        ],
    );
}

#[test]
fn an_unknown_range_is_ignored_silently() {
    let mut t = ten_pages();
    t.unmap(T, pages(1), pages(9)).unmap(T, pages(20), pages(9)).unmap(T, pages(15), 0);
    t.remap_begin(T, pages(30), pages(1)).remap_end(T, None, 2);
    assert_left(&t, 10, 1);
}

#[test]
fn a_failed_unmapping_gives_back_what_it_took() {
    for (from, len) in [(10, 10), (8, 4), (18, 4), (13, 3), (0, 100), (30, 1)] {
        let mut t = ten_pages();
        t.unmap(T, pages(from), pages(len)).unmap_failed(T);
        assert_left(&t, 10, 1);
    }
    let mut t = ten_pages();
    t.unmap(T, pages(12), pages(1)).unmap(T, pages(16), pages(1)).unmap(T, pages(11), pages(8));
    assert_left(&t, 2, 2);
    t.unmap_failed(T);
    assert_left(&t, 8, 3);
}

#[test]
fn a_failure_undoes_the_last_unmapping_of_its_own_thread_once() {
    let mut t = ten_pages();
    t.unmap(T, pages(10), pages(1)).unmap(U, pages(19), pages(1)).unmap_failed(T);
    assert_left(&t, 9, 1);
    t.unmap_failed(T);
    assert_left(&t, 9, 1);
    t.unmap(T, pages(11), pages(1)).unmap(T, pages(50), pages(1)).unmap_failed(T);
    assert_left(&t, 8, 2);
}

#[test]
fn what_was_mapped_meanwhile_stays() {
    let mut t = ten_pages();
    t.unmap(T, pages(10), pages(10)).map(pages(12), pages(2), 2).map(pages(19), pages(2), 2).unmap_failed(T);
    t.assert_sites(P, &[(Mmap, 1, pages(7), 2, pages(10), 1), (Mmap, 2, pages(4), 2, pages(4), 2)]);
}

#[test]
fn a_mapping_replaces_what_it_covers() {
    let mut t = ten_pages();
    t.map(pages(12), pages(2), 2);
    t.assert_sites(P, &[(Mmap, 1, pages(8), 2, pages(10), 1), (Mmap, 2, pages(2), 1, pages(2), 1)]);
    t.map(pages(5), pages(20), 3);
    t.assert_sites(
        P,
        &[(Mmap, 1, 0, 0, pages(10), 1), (Mmap, 2, 0, 0, pages(2), 1), (Mmap, 3, pages(20), 1, pages(20), 1)],
    );
    assert_eq!(t.process(P).replaced, 0);
}

#[test]
fn a_mapping_that_moves_goes_to_the_site_that_moved_it() {
    let mut t = ten_pages();
    t.remap_begin(T, pages(10), pages(10));
    assert_left(&t, 10, 1);
    t.remap_end(T, Some((pages(40), pages(15))), 2);
    t.assert_sites(P, &[(Mmap, 1, 0, 0, pages(10), 1), (Mmap, 2, pages(15), 1, pages(15), 1)]);
    t.unmap(T, pages(40), pages(15));
    t.assert_sites(P, &[(Mmap, 1, 0, 0, pages(10), 1), (Mmap, 2, 0, 0, pages(15), 1)]);
}

#[test]
fn a_mapping_shrinks_grows_and_moves_in_part() {
    let mut t = ten_pages();
    t.remap_begin(T, pages(10), pages(10)).remap_end(T, Some((pages(10), pages(4))), 1);
    t.assert_sites(P, &[(Mmap, 1, pages(4), 1, pages(14), 2)]);
    t.remap_begin(T, pages(12), pages(1));
    t.assert_sites(P, &[(Mmap, 1, pages(4), 3, pages(14), 2)]);
    t.remap_end(T, Some((pages(50), pages(1))), 1);
    t.assert_sites(P, &[(Mmap, 1, pages(4), 3, pages(15), 3)]);
}

#[test]
fn a_move_that_fails_leaves_the_mapping_whole() {
    for (from, len) in [(10, 10), (12, 3), (5, 7)] {
        let mut t = ten_pages();
        t.remap_begin(T, pages(from), pages(len)).remap_end(T, None, 2);
        assert_left(&t, 10, 1);
    }
}

#[test]
fn a_move_whose_end_was_lost_is_forgotten_at_the_threads_next_call() {
    type Next = fn(&mut Trace) -> &mut Trace;
    let next: [Next; 3] = [
        |t| t.unmap(T, pages(90), pages(1)),
        |t| t.unmap_failed(T),
        |t| t.remap_begin(T, pages(90), pages(1)),
    ];
    for next in next {
        let mut t = ten_pages();
        t.remap_begin(T, pages(10), pages(4)).remap_begin(U, pages(14), pages(1));
        next(&mut t).assert_sites(P, &[(Mmap, 1, pages(6), 2, pages(10), 1)]);
        assert_eq!(t.ledger.totals().anomalies.unended_moves, 1);
    }
}

#[test]
fn an_end_whose_beginning_was_lost_is_a_mapping() {
    let mut t = Trace::new();
    t.remap_end(T, Some((pages(10), pages(10))), 1);
    t.assert_sites(P, &[(Mmap, 1, pages(10), 1, pages(10), 1)]);
}

#[test]
fn a_realloc_may_move_a_mapping_in_its_midst() {
    let mut t = Trace::new();
    t.alloc(0x1000, 100, 1).map(pages(10), pages(10), 1).realloc_begin(T, 0x1000);
    t.remap_begin(T, pages(10), pages(10)).remap_end(T, Some((pages(30), pages(20))), 1);
    t.unmap(T, pages(49), pages(1)).realloc_end(T, Some((0x2000, 500)), 1);
    t.assert_sites(P, &[(Kind::Heap, 1, 500, 1, 600, 2), (Mmap, 1, pages(19), 1, pages(30), 2)]);
    assert_eq!(t.ledger.totals().anomalies, Anomalies::default());
}

#[test]
fn ranges_end_with_whole_pages_and_sizes_are_the_requested_ones() {
    let mut t = Trace::new();
    t.map(pages(10), 5000, 1).map(pages(12), 100, 2);
    t.assert_sites(P, &[(Mmap, 1, 5000, 1, 5000, 1), (Mmap, 2, 100, 1, 100, 1)]);
    t.unmap(T, pages(10), 1);
    t.assert_sites(P, &[(Mmap, 1, 904, 1, 5000, 1), (Mmap, 2, 100, 1, 100, 1)]);
    t.unmap_failed(T).unmap(U, pages(11), 5000);
    t.assert_sites(P, &[(Mmap, 1, 4096, 1, 5000, 1), (Mmap, 2, 0, 0, 100, 1)]);
    // A newer mapping owns its whole last page.
    t.map(pages(11), 1, 3).unmap_failed(U);
    t.assert_sites(P, &[(Mmap, 1, 4096, 1, 5000, 1), (Mmap, 2, 100, 1, 100, 1), (Mmap, 3, 1, 1, 1, 1)]);
}

#[test]
fn ranges_that_cannot_be_do_no_harm() {
    let mut t = Trace::new();
    t.map(u64::MAX - 10, u64::MAX, 1).map(u64::MAX, 5, 1).map(pages(3), 0, 1).unmap(T, u64::MAX, u64::MAX);
    t.remap_begin(T, 5, u64::MAX).remap_end(T, Some((u64::MAX, u64::MAX)), 1);
    assert_eq!(t.site(P, Mmap, 1).live_allocations, 0);
    assert_books(&t.ledger);
}

#[test]
fn threads_that_unmapped_and_died_do_not_pile_up() {
    let mut t = Trace::with(Limits { blocks: 100_000, ..limits() });
    for tid in 0..50_000 {
        t.map(pages(10), pages(1), 1).unmap(Tid(tid), pages(10), pages(1));
    }
    t.unmap_failed(Tid(0)).assert_sites(P, &[(Mmap, 1, 0, 0, pages(50_000), 50_000)]);
    t.unmap_failed(Tid(49_999)).assert_sites(P, &[(Mmap, 1, pages(1), 1, pages(50_000), 50_000)]);
}
