//! Programs from the distribution: they behave as untraced, and what is reported of them can be true.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use leaktrace::report::model::{Process, Report};
use leaktrace_tests::environment;
use leaktrace_tests::leaktrace::Leaktrace;
use leaktrace_tests::truth::{self, disagreements};

use super::within;

/// Nothing was lost, and no number contradicts another.
fn assert_plausible(report: &Report) {
    let shown = truth::summary(report);
    assert_eq!(report.completeness.lost, 0, "{shown}");
    assert!(report.completeness.exact, "{shown}");
    assert!(!report.processes.is_empty(), "{shown}");
    for process in &report.processes {
        assert_eq!(disagreements(process), Vec::<String>::new(), "{shown}");
        for site in &process.sites {
            assert!(site.live_allocations > 0 || site.oldest_age_ns == 0, "{site:?}");
        }
    }
}

/// Outstanding bytes of a kind.
fn live(process: &Process, kind: &str) -> u64 {
    process.sites.iter().filter(|site| site.kind == kind).map(|site| site.live_bytes).sum()
}

/// Runs a command with a file as its input, alone and traced: both print the same.
fn assert_same_output(command: &[&OsStr], stdin: &Path) -> Report {
    let open = || File::open(stdin).expect("the input is there");
    let alone =
        Command::new(command[0]).args(&command[1..]).stdin(open()).output().expect("the command runs");
    let run = Leaktrace::run().stdin(open()).command(command).finish().succeeded();
    assert_eq!(run.text(), String::from_utf8_lossy(&alone.stdout));
    let report = run.report();
    assert_plausible(&report);
    report
}

#[test]
fn sqlite_in_memory() {
    if !environment::root() {
        return;
    }
    let Some(sqlite) = environment::tool("sqlite3") else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let script = directory.path().join("script.sql");
    std::fs::write(
        &script,
        "create table t (id integer primary key, body text);\n\
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)\n\
             insert into t select i, printf('row %d of many', i) from n;\n\
         create index by_body on t (body);\n\
         delete from t where id % 3 = 0;\n\
         select count(*), sum(length(body)), min(body), max(body) from t;\n\
         vacuum;\n\
         drop table t;\n",
    )
    .expect("a file can be written");
    let report = assert_same_output(&[sqlite.as_os_str(), ":memory:".as_ref()], &script);
    let [process] = &report.processes[..] else { panic!("{}", truth::summary(&report)) };
    assert_eq!(process.comm, "sqlite3");
    assert!(process.exited);
    // The rows alone are more than 300 KB; sqlite gives nearly everything back.
    assert!(process.allocated_bytes > 300_000, "{}", truth::summary(&report));
    assert!(live(process, "heap") < process.allocated_bytes / 4, "{}", truth::summary(&report));
}

#[test]
fn python_and_json() {
    // Not what a version manager has put first on the PATH: that is a shell script.
    let python = PathBuf::from("/usr/bin/python3");
    if !environment::root() || !(python.exists() || environment::missing("/usr/bin/python3 is not installed"))
    {
        return;
    }
    let script = "import json, sys\n\
        kept = []\n\
        for i in range(3000):\n\
        \x20   text = json.dumps({'id': i, 'list': list(range(20)), 'text': 'x' * (i % 600)})\n\
        \x20   if i % 100 == 0: kept.append(json.loads(text))\n\
        print(len(kept), sum(len(json.dumps(k)) for k in kept))\n";
    let command = [python.as_os_str(), "-c".as_ref(), script.as_ref()];
    let report = assert_same_output(&command, Path::new("/dev/null"));
    assert_eq!(report.processes.len(), 1, "{}", truth::summary(&report));
    assert!(report.processes[0].allocations > 1000, "{}", truth::summary(&report));
}

#[test]
fn redis_under_its_benchmark() {
    if !environment::root() {
        return;
    }
    let tools = ["redis-server", "redis-benchmark", "redis-cli"].map(environment::tool);
    let [Some(server), Some(benchmark), Some(client)] = tools else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("socket");
    let quiet = ["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--unixsocket"];
    let session = Leaktrace::run()
        .command([server.as_os_str()])
        .args(quiet)
        .args([socket.as_os_str(), "--dir".as_ref(), directory.path().as_os_str()])
        .start();
    assert!(within(Duration::from_mins(1), || socket.exists()), "redis listens");
    let load = Command::new(benchmark)
        .args(["-q", "-n", "20000", "-r", "5000", "-d", "200", "-t", "set,lpush,hset,lpop", "-s"])
        .arg(&socket)
        .stdout(Stdio::null())
        .status()
        .expect("redis-benchmark runs");
    assert!(load.success());
    let ask = |words: &[&str]| {
        let answer = Command::new(&client).arg("-s").arg(&socket).args(words).output();
        String::from_utf8_lossy(&answer.expect("redis-cli runs").stdout).into_owned()
    };
    let info = ask(&["info", "memory"]);
    let used =
        info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("redis counts its memory");
    let used: u64 = used.trim().parse().expect("a number");
    ask(&["shutdown", "nosave"]);

    let report = session.finish().report();
    assert_plausible(&report);
    let [process] = &report.processes[..] else { panic!("{}", truth::summary(&report)) };
    assert_eq!(process.comm, "redis-server");
    // Redis counts what the allocator gave, leaktrace what was asked for; libraries allocate past redis's count.
    let ratio = live(process, "heap") as f64 / used as f64;
    assert!((0.6..1.2).contains(&ratio), "redis counts {used} bytes\n{}", truth::summary(&report));
}
