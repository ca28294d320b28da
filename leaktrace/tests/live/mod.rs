//! A real Prometheus scrapes our server, and is asked what the dashboard would ask.
//!
//! Comes in: made-up snapshots of a leak. Goes out: nothing. Never: a port that is not ours, on loopback only.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leaktrace::event::{Kind, Pid, ProcessKey};
use leaktrace::metrics::groups::DEFAULT_LIMIT;
use leaktrace::metrics::{GroupTotals, KindTotals, Latest, MetricsSnapshot, Port, ProcessTotals, Server};
use serde_json::Value;

use super::{dashboard, directory, expressions, panels, title};

/// Long enough for any machine; a fast one needs ten seconds.
const DEADLINE: Duration = Duration::from_mins(1);

/// A running Prometheus; ends with the test.
struct Prometheus {
    process: Child,
    address: SocketAddr,
    _storage: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let storage = tempfile::tempdir().unwrap();
        let rules = directory().canonicalize().unwrap().join("alerts.yaml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs: [{{job_name: leaktrace, static_configs: [{{targets: ['{target}']}}]}}]\n",
            rules.display()
        );
        let config_file = storage.path().join("prometheus.yml");
        std::fs::write(&config_file, config).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!("--storage.tsdb.path={}", storage.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs prometheus in PATH (Debian: apt install prometheus)");
        Self { process, address, _storage: storage }
    }

    /// `None` until it answers.
    fn get(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Number of series of an instant query; panics if the query is wrong.
    fn series(&self, query: &str) -> usize {
        let encoded: Vec<_> = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let Some(answer) = self.get(&format!("/api/v1/query?query={}", encoded.concat())) else { return 0 };
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().len()
    }
}

/// A server that leaks, one that does not, and a job that ended; second by second.
fn snapshot(groups: &mut GroupTotals, tick: u64) -> MetricsSnapshot {
    let process = |pid, comm: &str, live: u64| ProcessTotals {
        key: ProcessKey { pid: Pid(pid), start_ns: 0 },
        comm: comm.to_owned(),
        exited: comm == "job" && tick > 2,
        resident_bytes: (comm != "job" || tick <= 2).then_some((50 << 20) + live),
        kinds: [(Kind::Heap, live), (Kind::Mmap, 1 << 20)]
            .map(|(kind, live)| {
                let totals = KindTotals {
                    live_bytes: live,
                    live_allocations: live / 100,
                    allocated_bytes: live + tick * 100_000,
                    allocations: live / 100 + tick * 1000,
                };
                (kind, totals)
            })
            .into(),
        unmatched_frees: tick,
        replaced: tick / 2,
        untracked: 0,
    };
    groups.update([
        process(1, "leaky", (1 << 20) + tick * 50_000),
        process(2, "steady", 8 << 20),
        process(3, "job", 1 << 20),
    ]);
    MetricsSnapshot {
        taken: std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64(),
        totals: groups.totals(),
        kernel: std::array::from_fn(|slot| tick * (slot as u64 + 1)),
        undecodable: 0,
        late_probes: 1,
        events: 5_000,
        probes_attached: 12,
        probe_attach_errors: 0,
        tracked_blocks: 1000 + tick,
        tracked_blocks_limit: 1_000_000,
    }
}

/// A panel's expression with the variables as a user would have set them.
fn substituted(expression: &str) -> String {
    let variables = BTreeMap::from([
        ("$__rate_interval", "6s"),
        ("$window", "6s"),
        ("$job", "leaktrace"),
        ("$instance", ".*"),
        ("$group", ".*"),
    ]);
    variables.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// Retries until `missing` is empty.
fn wait_for(what: &str, mut missing: impl FnMut() -> Vec<String>) {
    let start = Instant::now();
    loop {
        let rest = missing();
        if rest.is_empty() {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{what}:\n{}", rest.join("\n"));
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
#[ignore = "needs prometheus in PATH and ten seconds"]
fn prometheus_has_an_answer_for_every_panel() {
    let latest = Arc::new(Latest::default());
    let server =
        Server::start(Port::open(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap(), Arc::clone(&latest))
            .unwrap();
    let prometheus = Prometheus::start(server.address());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut groups = GroupTotals::new(DEFAULT_LIMIT);
            for tick in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                latest.publish(snapshot(&mut groups, tick));
                thread::sleep(Duration::from_millis(500));
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&prometheus)));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

fn check(prometheus: &Prometheus) {
    wait_for("no answer for", || {
        let mut empty = Vec::new();
        for panel in panels() {
            for expression in expressions(&panel) {
                if prometheus.series(&substituted(expression)) == 0 {
                    empty.push(format!("{}: {expression}", title(&panel)));
                }
            }
        }
        empty
    });
    wait_for("no values for variables", || {
        let dashboard = dashboard();
        let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
        variables
            .filter(|variable| variable["type"] == "query")
            .filter_map(|variable| {
                let query = variable["query"]["query"].as_str().unwrap();
                let inner = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
                let (selector, label) = inner.rsplit_once(", ").unwrap();
                let query = format!("count by ({label}) ({})", substituted(selector));
                (prometheus.series(&query) == 0).then_some(query)
            })
            .collect()
    });
    wait_for("rules that are not evaluated", || {
        let Some(answer) = prometheus.get("/api/v1/rules") else { return vec!["no answer".to_owned()] };
        let groups = answer["data"]["groups"].as_array().unwrap().iter();
        let rules: Vec<_> = groups.flat_map(|group| group["rules"].as_array().unwrap()).collect();
        assert!(!rules.is_empty());
        rules.iter().filter(|rule| rule["health"] != "ok").map(|rule| rule["name"].to_string()).collect()
    });
}
