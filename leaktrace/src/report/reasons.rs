//! Why a number may be wrong: every reason, what it does to the numbers, and how to say it to a person.
//!
//! Comes in: the name of a counter ([`Counter::name`]) or of one of the ledger's reasons ([`ledger`]). Goes out: its
//! effect and a sentence. Never: a reason without a sentence: one that this version does not know is shown with its
//! name and counts as a loss.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use leaktrace_common::counters::Counter;

/// Reasons that the ledger counts, under their names in the report.
pub(super) mod ledger {
    /// Frees of blocks that were never seen.
    pub(in crate::report) const UNMATCHED_FREES: &str = "unmatched_frees";
    /// Blocks whose address was handed out again.
    pub(in crate::report) const REPLACED: &str = "replaced";
    /// Allocations that the ledger had no room for.
    pub(in crate::report) const UNTRACKED: &str = "untracked";
    /// Processes that ran on before their probes were in place.
    pub const LATE_PROBES: &str = "late_probes";
    /// Allocations whose call site is unknown.
    pub(in crate::report) const NO_STACK: &str = "no_stack";
}

/// What a reason does to the numbers, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// A record is missing: totals may be too low or, if it was a free, too high.
    Lost,
    /// A process or a part of its life was not traced.
    Late,
    /// The numbers are right, but some of them are at a site that is less precise than it could be.
    Truncated,
    /// Something began before the tracing: to be expected when a running process is traced.
    Unmatched,
}

/// One reason.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reason {
    pub(super) effect: Effect,
    /// What follows the number 1.
    one: &'static str,
    /// What follows every other number.
    many: &'static str,
}

/// The reason behind a counter's name; `None` if what it counts is no reason.
pub(super) fn reason(name: &str) -> Option<Reason> {
    match Counter::ALL.iter().find(|counter| counter.name() == name) {
        Some(counter) => of_counter(*counter),
        None => Some(of_ledger(name)),
    }
}

/// The sentences for reasons and their counts: the worst effects first, then those that occurred most.
pub(super) fn sentences(counts: &BTreeMap<String, u64>) -> Vec<String> {
    let mut reasons: Vec<_> = counts.iter().collect();
    let effect = |name: &str| reason(name).map_or(Effect::Unmatched, |reason| reason.effect);
    reasons.sort_by_key(|(name, count)| (effect(name), Reverse(**count)));
    reasons.into_iter().map(|(name, count)| sentence(name, *count)).collect()
}

/// The sentence for a reason that occurred `count` times, without a full stop.
fn sentence(name: &str, count: u64) -> String {
    let number = super::quantity::grouped(count);
    match reason(name) {
        Some(reason) if !reason.many.is_empty() => {
            format!("{number} {}", if count == 1 { reason.one } else { reason.many })
        }
        _ => format!("{number} × {name}, a reason that this version of leaktrace does not know"),
    }
}

const fn of_counter(counter: Counter) -> Option<Reason> {
    use Effect::{Late, Lost, Truncated};
    let (effect, one, many) = match counter {
        Counter::Stacks | Counter::Holds | Counter::HoldNanoseconds | Counter::Unheld => {
            return None;
        }
        Counter::RingFullAlloc => (
            Lost,
            "allocation was lost because leaktrace could not keep up: outstanding bytes may be too low",
            "allocations were lost because leaktrace could not keep up: outstanding bytes may be too low",
        ),
        Counter::RingFullFree => (
            Lost,
            "free was lost because leaktrace could not keep up: outstanding bytes may be too high",
            "frees were lost because leaktrace could not keep up: outstanding bytes may be too high",
        ),
        Counter::RingFullStack => (
            Lost,
            "call stack was lost because leaktrace could not keep up: a site may have no frames",
            "call stacks were lost because leaktrace could not keep up: sites may have no frames",
        ),
        Counter::RingFullLifecycle => (
            Lost,
            "fork, exec or exit was lost because leaktrace could not keep up: a process may be missing or out of date",
            "forks, execs or exits were lost because leaktrace could not keep up: processes may be missing or out of date",
        ),
        Counter::ControlRingFull => (
            Late,
            "new process, exec or library was noticed too late: what it allocated before is not counted",
            "new processes, execs or libraries were noticed too late: what they allocated before is not counted",
        ),
        Counter::InflightFull => (
            Lost,
            "allocation was not seen because too many threads allocate at once: outstanding bytes may be too low",
            "allocations were not seen because too many threads allocate at once: outstanding bytes may be too low",
        ),
        Counter::StackTooDeep => (
            Truncated,
            "call stack is deeper than what is kept: its outermost frames are missing",
            "call stacks are deeper than what is kept: their outermost frames are missing",
        ),
        Counter::StackBroken => (
            Truncated,
            "call stack ends early in code without frame pointers",
            "call stacks end early in code without frame pointers",
        ),
        Counter::StackUnreadable => (
            Truncated,
            "call stack ends early in memory that could not be read at that moment",
            "call stacks end early in memory that could not be read at that moment",
        ),
        Counter::ResultUnreadable => (
            Lost,
            "allocation was not seen because its result could not be read",
            "allocations were not seen because their results could not be read",
        ),
        Counter::ProcessesFull => (
            Late,
            "process is not traced because too many are traced already",
            "processes are not traced because too many are traced already",
        ),
    };
    Some(Reason { effect, one, many })
}

fn of_ledger(name: &str) -> Reason {
    use Effect::{Late, Lost, Truncated, Unmatched};
    let (effect, one, many) = match name {
        ledger::UNMATCHED_FREES => (
            Unmatched,
            "free was of a block that is older than the tracing, or whose allocation was lost",
            "frees were of blocks that are older than the tracing, or whose allocations were lost",
        ),
        ledger::REPLACED => (
            Unmatched,
            "block's address was handed out again although its free was not seen; it is not counted as outstanding",
            "blocks' addresses were handed out again although their frees were not seen; they are not counted as outstanding",
        ),
        ledger::LATE_PROBES => (
            Late,
            "time a process ran on before its probes were in place: what it allocated meanwhile is not counted",
            "times a process ran on before its probes were in place: what it allocated meanwhile is not counted",
        ),
        ledger::UNTRACKED => (
            Late,
            "allocation found no room in the ledger: it is in the totals, not in what is outstanding",
            "allocations found no room in the ledger: they are in the totals, not in what is outstanding",
        ),
        ledger::NO_STACK => (
            Truncated,
            "allocation has no call stack: it is listed under an unknown call site",
            "allocations have no call stack: they are listed under an unknown call site",
        ),
        // Whoever added it knows more than this table: nothing is exact by ignorance.
        _ => (Lost, "", ""),
    };
    Reason { effect, one, many }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_explained_or_is_no_reason() {
        for counter in Counter::ALL {
            let name = counter.name();
            let Some(reason) = reason(name) else {
                assert!(["stacks", "holds", "hold_nanoseconds", "unheld"].contains(&name), "{name}");
                continue;
            };
            assert!(!reason.one.is_empty() && !reason.many.is_empty(), "{name}");
            assert!(sentence(name, 1).starts_with("1 "), "{name}");
            assert!(sentence(name, 1234).starts_with("1,234 "), "{name}");
            assert_ne!(sentence(name, 1)[2..], sentence(name, 2)[2..], "{name}: one and many");
            assert!(!sentence(name, 2).contains(name), "{name}: plain words");
        }
    }

    #[test]
    fn every_reason_of_the_ledger_is_explained() {
        for name in [ledger::UNMATCHED_FREES, ledger::REPLACED, ledger::UNTRACKED, ledger::NO_STACK] {
            assert!(!sentence(name, 2).contains("does not know"), "{name}");
        }
    }

    #[test]
    fn the_worst_comes_first() {
        let counts =
            [("stack_broken", 9_u64), ("late_probes", 1), ("ring_full_alloc", 2), ("ring_full_free", 5)];
        let sentences = sentences(&counts.map(|(name, count)| (name.to_owned(), count)).into());
        let numbers: Vec<_> = sentences.iter().map(|sentence| &sentence[..1]).collect();
        assert_eq!(numbers, ["5", "2", "1", "9"]);
    }

    #[test]
    fn an_unknown_reason_is_shown_and_is_a_loss() {
        assert_eq!(reason("cosmic_rays").unwrap().effect, Effect::Lost);
        assert_eq!(
            sentence("cosmic_rays", 3),
            "3 × cosmic_rays, a reason that this version of leaktrace does not know"
        );
    }
}
