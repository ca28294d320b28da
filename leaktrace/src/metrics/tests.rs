//! The text that Prometheus reads, and the server that serves it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use leaktrace_common::counters::Counter;

use super::*;
use crate::event::Kind;

/// Every number is another, so that one in the wrong place is seen.
fn snapshot() -> MetricsSnapshot {
    let kind =
        |n| KindTotals { live_bytes: n, live_allocations: n + 1, allocated_bytes: n + 2, allocations: n + 3 };
    MetricsSnapshot {
        taken: 1_700_000_000.5,
        totals: Totals {
            groups: vec![
                Group {
                    name: "redis-server".into(),
                    processes: 2,
                    resident_bytes: Some(123_456_789),
                    kinds: BTreeMap::from([(Kind::Heap, kind(1000)), (Kind::Mmap, kind(2000))]),
                },
                Group { name: "evil\"\\\n".into(), processes: 1, resident_bytes: None, ..Group::default() },
                Group {
                    name: "gone".into(),
                    kinds: BTreeMap::from([(Kind::Heap, kind(3000))]),
                    ..Group::default()
                },
            ],
            groups_limit: 200,
            groups_capped: 11,
            unmatched_frees: 12,
            replaced: 13,
            untracked: 14,
        },
        events: 99,
        kernel: std::array::from_fn(|slot| 100 + slot as u64),
        undecodable: 15,
        late_probes: 7,
        probes_attached: 16,
        probe_attach_errors: 17,
        tracked_blocks: 18,
        tracked_blocks_limit: 19,
    }
}

fn published(snapshot: Option<MetricsSnapshot>) -> Arc<Latest> {
    let latest = Arc::new(Latest::default());
    if let Some(snapshot) = snapshot {
        latest.publish(snapshot);
    }
    latest
}

fn render(snapshot: Option<MetricsSnapshot>) -> String {
    Exporter::new(published(snapshot)).unwrap().render().unwrap()
}

/// Names that have a sample.
fn exported(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .collect()
}

#[test]
fn text() {
    let text = render(Some(snapshot()));
    // The last three are leaktrace's own use of the machine.
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("process_")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn every_metric_of_the_registry_is_exported_and_no_other() {
    let text = render(Some(snapshot()));
    let registered: BTreeSet<_> = registry::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(exported(&text), registered);
}

#[test]
fn every_counter_of_the_kernel_side_is_exported() {
    let text = render(Some(snapshot()));
    for (slot, counter) in Counter::ALL.iter().enumerate() {
        let metric = registry::metric_of(*counter);
        let series = match metric.labels {
            [] => metric.name.to_owned(),
            _ => format!("{}{{reason=\"{}\"}}", metric.name, counter.name()),
        };
        let value = 100 + slot;
        let line = match counter {
            Counter::HoldNanoseconds => format!("{series} 0.000000{value}"),
            _ => format!("{series} {value}"),
        };
        assert!(text.lines().any(|l| l == line), "{line}");
    }
}

#[test]
fn before_the_first_snapshot_there_is_only_leaktrace_itself() {
    let names = [
        "leaktrace_build_info",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_resident_memory_bytes",
    ];
    assert_eq!(exported(&render(None)), BTreeSet::from(names));
}

/// Status line, headers and body.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn start(latest: Arc<Latest>) -> Server {
    Server::start(Port::open(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap(), latest).unwrap()
}

#[test]
fn serves_metrics_health_and_readiness() {
    let latest = published(None);
    let server = start(Arc::clone(&latest));
    let status = |path| get(server.address(), path).lines().next().unwrap().to_owned();
    assert_eq!(status("/healthz"), "HTTP/1.1 200 OK");
    assert_eq!(status("/readyz"), "HTTP/1.1 503 Service Unavailable");
    latest.publish(snapshot());
    assert_eq!(status("/readyz"), "HTTP/1.1 200 OK");
    assert_eq!(status("/nothing"), "HTTP/1.1 404 Not Found");
    let answer = get(server.address(), "/metrics");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\nleaktrace_tracked_blocks 18\n"), "{answer}");
}

#[test]
fn a_port_in_use_is_named() {
    let first = start(published(None));
    let error = Port::open(first.address()).unwrap_err();
    assert!(matches!(error, MetricsError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&first.address().to_string()), "{error}");
}

#[test]
fn an_address_of_another_machine_is_named() {
    // TEST-NET-1 of RFC 5737.
    let error = Port::open(SocketAddr::from(([192, 0, 2, 1], 0))).unwrap_err();
    assert!(matches!(error, MetricsError::NotLocal { .. }), "{error}");
}

#[test]
fn shutdown_frees_the_port_and_does_not_wait_for_idle_connections() {
    let server = start(published(None));
    let address = server.address();
    let _idle = TcpStream::connect(address).unwrap();
    server.shutdown();
    let again = Server::start(Port::open(address).unwrap(), published(None)).unwrap();
    assert_eq!(again.address(), address);
}
