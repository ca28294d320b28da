//! leaktrace at work: a small program that leaks, and a Redis server under load, traced by pid.
//!
//! Comes in: how long. Goes out: leaktrace's report on stdout. Never: leaves a process or a file behind, or
//! traces one that it did not start.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::{self, Running, step};
use crate::{bootstrap, workspace};

/// Options of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Seconds to trace.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// Builds, starts, traces, ends.
pub fn run(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("tracing needs root: run `cargo xtask demo` as root");
    }
    bootstrap::run(bootstrap::Scope::Demo)?;
    step("building leaktrace");
    let leaktrace = workspace::build_leaktrace()?;
    step("starting a program that leaks, and Redis under load");
    let directory = tempfile::tempdir()?;
    let orders = start_orders(directory.path())?;
    let (redis, _load) = start_redis(directory.path())?;
    step("tracing both");
    let mut trace = Command::new(leaktrace);
    trace.args(["run", "--pid", &format!("{},{}", orders.pid(), redis.pid())]);
    trace.args(["--duration", &format!("{}s", options.seconds), "--interval", "1h"]);
    command::run(trace.args(["--min-age", "1s", "--top", "5"]))
}

fn start_orders(directory: &Path) -> Result<Running> {
    let program = directory.join("orders");
    workspace::compile_c("xtask/demo/orders.c", &program)?;
    let mut orders = Running::start(Command::new(program).stdout(Stdio::piped()))?;
    let output = orders.child().stdout.as_mut().context("stdout is piped")?;
    output.read_exact(&mut [0; 4]).context("the program ended before its first order")?;
    Ok(orders)
}

/// The server, and the clients that write to it.
fn start_redis(directory: &Path) -> Result<(Running, Running)> {
    let socket = directory.join("redis.sock");
    let mut server = Command::new("redis-server");
    server.env("PATH", workspace::path()?).stdout(Stdio::null()).current_dir(directory);
    server.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
    let server = Running::start(&mut server)?;
    wait_for(&socket)?;
    let mut load = Command::new("redis-benchmark");
    load.arg("-s").arg(&socket).args(["-t", "set,lpush", "-c", "4", "-d", "64", "-r", "1000000", "-l", "-q"]);
    let load = Running::start(load.stdout(Stdio::null()).stderr(Stdio::null()))?;
    Ok((server, load))
}

fn wait_for(socket: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        if Instant::now() > deadline {
            bail!("redis-server did not open {} within 10 s", socket.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
