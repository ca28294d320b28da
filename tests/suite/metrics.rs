//! What Prometheus scrapes from a live run is what the program says of itself.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use leaktrace_tests::compile::Recipe;
use leaktrace_tests::leaktrace::{Leaktrace, Session};
use leaktrace_tests::program::Program;

use super::{fixture, within};

/// Numbers are taken every second; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A run that serves metrics, and where.
fn serving(pid: u32) -> (Session, String) {
    let mut session = Leaktrace::run().args(["--metrics", "127.0.0.1:0"]).pid(pid).start();
    let line = session.says(|line| line.starts_with("metrics: ")).expect("it says where");
    let address = line.trim_start_matches("metrics: http://").trim_end_matches("/metrics").to_owned();
    (session.ready(), address)
}

/// Status line and body.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// Series and their values.
fn scrape(address: &str) -> BTreeMap<String, f64> {
    let (status, body) = get(address, "/metrics");
    assert!(status.ends_with("200 OK"), "{status}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample is a series and a value");
            (series.to_owned(), value.parse().expect("a value is a number"))
        })
        .collect()
}

/// The name of a program as the kernel has it.
fn comm(path: &Path) -> String {
    let name = path.file_name().expect("a program has a name").to_string_lossy();
    name.chars().take(15).collect()
}

#[test]
fn a_live_run_serves_what_its_group_has_allocated_and_lost() {
    let Some(path) = fixture(&Recipe::new("stacks.c")) else { return };
    let group = comm(&path);
    let mut program = Program::start(&path);
    let (session, address) = serving(program.pid());
    let truths = program.go();
    let [live_bytes, live, bytes, blocks] = truths[0].totals().map(|n| n.expect("it is fixed") as f64);
    let of = |name: &str| format!("leaktrace_group_{name}{{group=\"{group}\",kind=\"heap\"}}");
    let expected = [
        (of("live_bytes"), live_bytes),
        (of("live_allocations"), live),
        (of("allocated_bytes_total"), bytes),
        (of("allocations_total"), blocks),
        (format!("leaktrace_group_processes{{group=\"{group}\"}}"), 1.0),
        ("leaktrace_tracked_blocks".to_owned(), live),
        ("leaktrace_unmatched_frees_total".to_owned(), 0.0),
    ];
    let differs = |scraped: &BTreeMap<String, f64>| -> Vec<String> {
        let differing = expected.iter().filter(|(series, value)| scraped.get(series) != Some(value));
        differing.map(|(series, value)| format!("{series}: {value}, not {:?}", scraped.get(series))).collect()
    };
    let mut scraped = BTreeMap::new();
    within(PATIENCE, || {
        scraped = scrape(&address);
        differs(&scraped).is_empty()
    });
    assert_eq!(differs(&scraped), Vec::<String>::new());
    let lost: Vec<_> =
        scraped.iter().filter(|(series, _)| series.starts_with("leaktrace_lost_total")).collect();
    assert!(!lost.is_empty(), "each reason is there from the start");
    assert!(lost.iter().all(|(_, value)| **value == 0.0), "{lost:?}");
    assert!(scraped["leaktrace_probes_attached"] > 0.0);
    assert!(scraped[&format!("leaktrace_group_resident_memory_bytes{{group=\"{group}\"}}")] >= live_bytes);
    session.stop().report();
    assert!(program.end().success());
}

#[test]
fn health_and_readiness() {
    let Some(path) = fixture(&Recipe::new("short.c")) else { return };
    let mut program = Program::start(&path);
    let (session, address) = serving(program.pid());
    assert!(get(&address, "/healthz").0.ends_with("200 OK"));
    assert!(within(PATIENCE, || get(&address, "/readyz").0.ends_with("200 OK")));
    session.stop().report();
    assert!(TcpStream::connect(&address).is_err(), "nobody listens any more");
    program.go();
    assert_eq!(program.end().code(), Some(7));
}

#[test]
fn a_port_in_use_harms_nobody() {
    let Some(path) = fixture(&Recipe::new("short.c")) else { return };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it has an address").to_string();
    let mut program = Program::start(&path);
    let run = Leaktrace::run().args(["--metrics", &address]).pid(program.pid()).start().finish();
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains(&address) && run.stderr.contains("in use"), "{}", run.stderr);
    assert!(!run.stderr.contains("tracing "), "it is found out before anyone is traced:\n{}", run.stderr);
    program.go();
    assert_eq!(program.end().code(), Some(7));
}
