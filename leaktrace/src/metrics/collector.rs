//! Turns the newest snapshot into Prometheus text.
//!
//! Comes in: [`Latest`], and leaktrace's own use of the machine. Goes out: text format 0.0.4. Never: keeps a series;
//! what is not in the snapshot is not exported.

use std::collections::HashMap;
use std::sync::Arc;

use leaktrace_common::counters::Counter;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use prometheus::{Registry, TextEncoder};

use super::own;
use super::registry::{self, Metric, Type};
use super::snapshot::{Group, Latest, MetricsSnapshot};

/// Renders `/metrics`.
#[derive(Debug)]
pub struct Exporter {
    registry: Registry,
}

impl Exporter {
    /// An exporter of whatever is published in `latest`.
    ///
    /// # Errors
    /// If the registry of metrics contradicts itself, which a test rules out.
    pub fn new(latest: Arc<Latest>) -> prometheus::Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(SnapshotCollector::new(latest)?))?;
        Ok(Self { registry })
    }

    /// All metrics, as text.
    pub fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

struct SnapshotCollector {
    latest: Arc<Latest>,
    descriptions: Vec<Desc>,
}

impl SnapshotCollector {
    fn new(latest: Arc<Latest>) -> prometheus::Result<Self> {
        let descriptions = registry::ALL.iter().map(describe).collect::<Result<_, _>>()?;
        Ok(Self { latest, descriptions })
    }
}

fn describe(metric: &Metric) -> prometheus::Result<Desc> {
    let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
    Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, HashMap::new())
}

impl Collector for SnapshotCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        families.add(&registry::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
        if let Some(snapshot) = self.latest.get() {
            add_snapshot(&mut families, &snapshot);
        }
        if let Some(usage) = own::usage() {
            families.add(&registry::PROCESS_CPU_SECONDS, &[], usage.cpu_seconds);
            families.add(&registry::PROCESS_RESIDENT_MEMORY_BYTES, &[], usage.resident_bytes as f64);
            families.add(&registry::PROCESS_OPEN_FDS, &[], usage.open_fds as f64);
        }
        families.0
    }
}

fn add_snapshot(families: &mut Families, snapshot: &MetricsSnapshot) {
    let totals = &snapshot.totals;
    for group in &totals.groups {
        add_group(families, group);
    }
    families.add(&registry::EVENTS, &[], snapshot.events as f64);
    for (counter, count) in Counter::ALL.iter().zip(snapshot.kernel) {
        let metric = registry::metric_of(*counter);
        let labels = [counter.name()];
        let value = match counter {
            Counter::HoldNanoseconds => count as f64 / 1e9,
            _ => count as f64,
        };
        families.add(&metric, &labels[..metric.labels.len()], value);
    }
    families.add(&registry::LOST, &[registry::UNTRACKED], totals.untracked as f64);
    families.add(&registry::LOST, &[registry::UNDECODABLE], snapshot.undecodable as f64);
    families.add(&registry::LOST, &[registry::LATE_PROBES], snapshot.late_probes as f64);
    families.add(&registry::LAST_SNAPSHOT, &[], snapshot.taken);
    for (metric, value) in [
        (&registry::GROUPS_LIMIT, totals.groups_limit),
        (&registry::GROUPS_CAPPED, totals.groups_capped),
        (&registry::UNMATCHED_FREES, totals.unmatched_frees),
        (&registry::REPLACED_BLOCKS, totals.replaced),
        (&registry::PROBES_ATTACHED, snapshot.probes_attached),
        (&registry::PROBE_ATTACH_ERRORS, snapshot.probe_attach_errors),
        (&registry::TRACKED_BLOCKS, snapshot.tracked_blocks),
        (&registry::TRACKED_BLOCKS_LIMIT, snapshot.tracked_blocks_limit),
    ] {
        families.add(metric, &[], value as f64);
    }
}

fn add_group(families: &mut Families, group: &Group) {
    let name = group.name.as_str();
    families.add(&registry::GROUP_PROCESSES, &[name], group.processes as f64);
    if let Some(bytes) = group.resident_bytes {
        families.add(&registry::GROUP_RESIDENT_MEMORY_BYTES, &[name], bytes as f64);
    }
    for (kind, totals) in &group.kinds {
        let labels = [name, kind.name()];
        if group.processes > 0 {
            families.add(&registry::GROUP_LIVE_BYTES, &labels, totals.live_bytes as f64);
            families.add(&registry::GROUP_LIVE_ALLOCATIONS, &labels, totals.live_allocations as f64);
        }
        families.add(&registry::GROUP_ALLOCATED_BYTES, &labels, totals.allocated_bytes as f64);
        families.add(&registry::GROUP_ALLOCATIONS, &labels, totals.allocations as f64);
    }
}

/// Samples by metric.
#[derive(Default)]
struct Families(Vec<MetricFamily>);

impl Families {
    fn add(&mut self, metric: &Metric, labels: &[&str], value: f64) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        let mut sample = proto::Metric::from_label(
            metric.labels.iter().zip(labels).map(|(name, value)| label(name, value)).collect(),
        );
        match metric.kind {
            Type::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Type::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
        }
        let mut family = MetricFamily::default();
        family.set_name(metric.name.to_owned());
        family.set_help(metric.help.to_owned());
        family.set_field_type(match metric.kind {
            Type::Counter => MetricType::COUNTER,
            Type::Gauge => MetricType::GAUGE,
        });
        family.set_metric(vec![sample]);
        // The registry joins families of one name.
        self.0.push(family);
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
