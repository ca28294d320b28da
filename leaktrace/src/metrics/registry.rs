//! Every metric that leaktrace exports: its name, type, unit, labels and help. The one place where they are written;
//! `docs/metrics.md` is generated from here, dashboards and rules are checked against it.
//!
//! Comes in: nothing. Goes out: [`ALL`]. Never: a value, or a label that grows with the traced system (pid, stack,
//! address): names of groups are capped, all other labels have fixed values.

use leaktrace_common::counters::Counter;

/// A metric's type, in Prometheus' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Only grows, and restarts at 0 with leaktrace.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// What a metric counts. Base units only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Things that the name says.
    Count,
    /// Always 1; the labels are the message.
    Info,
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// Type.
    pub kind: Type,
    /// Unit.
    pub unit: Unit,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $unit:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: Metric = Metric {
                name: $name,
                kind: Type::$kind,
                unit: Unit::$unit,
                labels: &[$($label),*],
                help: $help,
            };
        )+

        /// All of them, in the order of the documentation.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    BUILD_INFO = Gauge Info "leaktrace_build_info" ["version"]
        "Always 1; the version of leaktrace.";

    GROUP_PROCESSES = Gauge Count "leaktrace_group_processes" ["group"]
        "Traced processes of this name that are alive.";
    GROUP_RESIDENT_MEMORY_BYTES = Gauge Bytes "leaktrace_group_resident_memory_bytes" ["group"]
        "Resident memory of the group's processes; shared pages count once per process.";
    GROUP_LIVE_BYTES = Gauge Bytes "leaktrace_group_live_bytes" ["group", "kind"]
        "Bytes that the group's processes allocated while traced and have not freed.";
    GROUP_LIVE_ALLOCATIONS = Gauge Count "leaktrace_group_live_allocations" ["group", "kind"]
        "Blocks that the group's processes allocated while traced and have not freed.";
    GROUP_ALLOCATED_BYTES = Counter Bytes "leaktrace_group_allocated_bytes_total" ["group", "kind"]
        "Bytes allocated while traced, those of processes that ended included.";
    GROUP_ALLOCATIONS = Counter Count "leaktrace_group_allocations_total" ["group", "kind"]
        "Allocations while traced, those of processes that ended included.";
    GROUPS_LIMIT = Gauge Count "leaktrace_groups_limit" []
        "Groups that have a name of their own at most; further ones are counted in the group other.";
    GROUPS_CAPPED = Counter Count "leaktrace_groups_capped_total" []
        "Processes that were counted in the group other because the limit of groups was reached.";

    EVENTS = Counter Count "leaktrace_events_total" []
        "Records that were read from the event ring.";
    LOST = Counter Count "leaktrace_lost_total" ["reason"]
        "Records, or whole processes, that were not recorded.";
    STACKS = Counter Count "leaktrace_stacks_total" []
        "Stacks that were walked.";
    TRUNCATED_STACKS = Counter Count "leaktrace_truncated_stacks_total" ["reason"]
        "Stacks that end before their outermost frame.";
    UNMATCHED_FREES = Counter Count "leaktrace_unmatched_frees_total" []
        "Frees of blocks that are older than the tracing, or whose allocation was lost.";
    REPLACED_BLOCKS = Counter Count "leaktrace_replaced_blocks_total" []
        "Blocks whose address was handed out again before their free was seen.";

    PROBES_ATTACHED = Gauge Count "leaktrace_probes_attached" []
        "Probes that are in place.";
    PROBE_ATTACH_ERRORS = Counter Count "leaktrace_probe_attach_errors_total" []
        "Probes that could not be attached.";
    HOLDS = Counter Count "leaktrace_holds_total" []
        "Times that a process waited for its probes.";
    HOLD_SECONDS = Counter Seconds "leaktrace_hold_seconds_total" []
        "Time that processes waited for their probes.";
    UNHELD = Counter Count "leaktrace_unheld_total" []
        "Times that a process could not be made to wait for its probes; late ones are counted as lost.";
    TRACKED_BLOCKS = Gauge Count "leaktrace_tracked_blocks" []
        "Outstanding blocks in the ledger.";
    TRACKED_BLOCKS_LIMIT = Gauge Count "leaktrace_tracked_blocks_limit" []
        "Outstanding blocks that the ledger has room for.";
    LAST_SNAPSHOT = Gauge Seconds "leaktrace_last_snapshot_timestamp_seconds" []
        "When the numbers above were taken, since 1970.";

    PROCESS_CPU_SECONDS = Counter Seconds "process_cpu_seconds_total" []
        "CPU time that leaktrace used.";
    PROCESS_RESIDENT_MEMORY_BYTES = Gauge Bytes "process_resident_memory_bytes" []
        "Resident memory of leaktrace.";
    PROCESS_OPEN_FDS = Gauge Count "process_open_fds" []
        "File descriptors that leaktrace has open; each attached probe is one.";
}

/// Reason of [`LOST`]: the ledger had no room.
pub const UNTRACKED: &str = "untracked";

/// Reason of [`LOST`]: a process ran on before its probes were in place.
pub const LATE_PROBES: &str = "late_probes";

/// Reason of [`LOST`]: a record that this version does not know.
pub const UNDECODABLE: &str = "undecodable";

/// The metric that shows a counter of the kernel side; its label, if it has one, is the counter's name. A counter
/// without a metric does not compile.
pub const fn metric_of(counter: Counter) -> Metric {
    match counter {
        Counter::RingFullAlloc
        | Counter::RingFullFree
        | Counter::RingFullStack
        | Counter::RingFullLifecycle
        | Counter::ControlRingFull
        | Counter::InflightFull
        | Counter::ResultUnreadable
        | Counter::ProcessesFull => LOST,
        Counter::StackTooDeep | Counter::StackBroken | Counter::StackUnreadable => TRUNCATED_STACKS,
        Counter::Stacks => STACKS,
        Counter::Holds => HOLDS,
        Counter::HoldNanoseconds => HOLD_SECONDS,
        Counter::Unheld => UNHELD,
    }
}

/// The text of `docs/metrics.md`.
pub fn markdown() -> String {
    let reasons = Counter::ALL
        .iter()
        .map(|counter| (metric_of(*counter), counter.name()))
        .filter(|(metric, _)| metric.labels == ["reason"])
        .chain([(LOST, UNTRACKED), (LOST, UNDECODABLE), (LOST, LATE_PROBES)])
        .map(|(metric, reason)| format!("| `{}` | `{reason}` |", metric.name));
    [INTRODUCTION]
        .into_iter()
        .map(str::to_owned)
        .chain(ALL.iter().map(row))
        .chain([REASONS.to_owned()])
        .chain(reasons)
        .map(|line| line + "\n")
        .collect()
}

fn row(metric: &Metric) -> String {
    let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let kind = match metric.kind {
        Type::Counter => "counter",
        Type::Gauge => "gauge",
    };
    let unit = match metric.unit {
        Unit::Bytes => "bytes",
        Unit::Seconds => "seconds",
        Unit::Count | Unit::Info => "",
    };
    format!("| `{}` | {kind} | {unit} | {} | {} |", metric.name, labels.join(", "), metric.help)
}

const REASONS: &str = "
## Reasons

| metric | `reason` |
|---|---|";

const INTRODUCTION: &str = "\
<!-- Generated from leaktrace/src/metrics/registry.rs: LEAKTRACE_UPDATE_DOCS=1 cargo test -p leaktrace --lib docs -->
# Metrics

`leaktrace run --metrics 127.0.0.1:9755` serves:

- `/metrics`: Prometheus text format 0.0.4
- `/healthz`: 200 while leaktrace runs
- `/readyz`: 200 from the first snapshot on, 503 before

Numbers are taken every second. Processes are grouped by name (comm), never shown by pid; a group whose
processes have all ended keeps its counters and loses its gauges. Dashboards and alert rules: [dashboards](../dashboards/).

| metric | type | unit | labels | meaning |
|---|---|---|---|---|";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name is used twice");
        for Metric { name, kind, unit, labels, help } in ALL {
            assert!(name.starts_with("leaktrace_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Type::Counter, "{name}");
            let base = name.trim_end_matches("_total");
            assert_eq!(base.ends_with("_bytes"), *unit == Unit::Bytes, "{name}");
            assert_eq!(base.ends_with("_seconds"), *unit == Unit::Seconds, "{name}");
            assert_eq!(base.ends_with("_info"), *unit == Unit::Info, "{name}");
            assert!(help.ends_with('.') && help.len() > 20, "{name}");
            for label in *labels {
                assert!(["group", "kind", "reason", "version"].contains(label), "{name}: {label}");
            }
        }
    }

    #[test]
    fn a_counter_that_shares_its_metric_is_told_apart_by_a_label() {
        for counter in Counter::ALL {
            let metric = metric_of(*counter);
            let sharers = Counter::ALL.iter().filter(|other| metric_of(**other) == metric).count();
            assert_eq!(metric.labels == ["reason"], sharers > 1, "{}", counter.name());
        }
    }

    #[test]
    fn docs_are_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        if std::env::var_os("LEAKTRACE_UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, markdown()).unwrap();
        }
        let docs = std::fs::read_to_string(path).unwrap_or_default();
        assert!(docs == markdown(), "docs/metrics.md is out of date; its first line says how to update it");
    }
}
