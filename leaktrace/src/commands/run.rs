//! `leaktrace run`: traces, prints a report at every interval and a last one at the end.
//!
//! Comes in: a [`RunConfig`]. Goes out: reports on stdout or in a file, an exit code. Never: ends without its
//! last report, unless it could not start.

use std::future::pending;
use std::io::IsTerminal as _;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval_at, sleep};

use super::output;
use super::report::format;
use crate::agent::observe::Observer;
use crate::agent::session::{Session, Started};
use crate::capability::Capabilities;
use crate::cli::Exit;
use crate::cli::config::RunConfig;
use crate::metrics::{Latest, Port, Server};
use crate::report::{self, Options};

/// How often it is looked whether all targets are gone.
const LOOK_FOR_END: Duration = Duration::from_millis(50);
/// How often `/metrics` gets new numbers.
const PUBLISH: Duration = Duration::from_secs(1);

/// Runs the command.
pub fn run(config: &RunConfig, verbosity: u8) -> anyhow::Result<Exit> {
    Capabilities::probe()?.require_for_run()?;
    // Found out now, not when the report is lost.
    output::check(config.output.file.as_deref())?;
    let port = config.metrics.map(Port::open).transpose()?;
    if let Some(port) = &port {
        eprintln!("metrics: http://{}/metrics", port.address());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't make the event loop")?;
    // From here on a signal ends the run with its report, also while processes are being armed.
    let signals = runtime.block_on(async { Signals::new() }).context("can't handle signals")?;
    let Started { session, mut observer, child } = Session::start(config, log_level(verbosity))?;
    let outcome = runtime.block_on(trace(config, &session, &mut observer, child, signals, port));
    // The probes go first: the process need not wait for the report.
    session.end();
    print(config, &mut observer)?;
    outcome.map(|()| Exit::Done)
}

/// The signals that end a run.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits for the end, printing meanwhile.
async fn trace(
    config: &RunConfig,
    session: &Session,
    observer: &mut Observer,
    child: Option<Child>,
    mut signals: Signals,
    port: Option<Port>,
) -> anyhow::Result<()> {
    let latest = Arc::new(Latest::default());
    let server = port.map(|port| Server::start(port, Arc::clone(&latest))).transpose()?;
    if server.is_some() {
        observer.publish(&latest);
    }
    let child_gone = wait_for(child);
    let end = async {
        match config.duration {
            Some(duration) => sleep(duration).await,
            None => pending().await,
        }
    };
    tokio::pin!(child_gone, end);
    let mut look = every(LOOK_FOR_END);
    let mut report = every(config.interval);
    let mut sample = every(sampling(config.interval));
    let mut publish = every(PUBLISH);
    loop {
        tokio::select! {
            biased;
            () = signals.any() => break,
            () = &mut end => break,
            () = &mut child_gone => break,
            _ = look.tick() => if session.is_over() { break },
            _ = report.tick() => {
                observer.drain();
                // A full disk now is no reason to stop gathering; the last report fails for good.
                if let Err(error) = print(config, observer) {
                    eprintln!("warning: this report is skipped: {error:#}");
                }
            }
            // For the growth of sites; what it builds is kept as a history.
            _ = sample.tick() => drop(observer.report()),
            _ = publish.tick(), if server.is_some() => observer.publish(&latest),
        }
    }
    if let Some(server) = server {
        server.shutdown();
    }
    Ok(())
}

/// Between looks at the growth of sites.
fn sampling(interval: Duration) -> Duration {
    (interval / 5).clamp(Duration::from_secs(1), Duration::from_secs(30))
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval_at((Instant::now() + period).into(), period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Ends when the command has; never if there is none.
///
/// It waits for a pidfd, not for the child: while the child is paused for its probes, a `wait` would take the
/// stop that the pausing thread waits for.
async fn wait_for(child: Option<Child>) {
    let Some(mut child) = child else { return pending().await };
    let (gone, ended) = oneshot::channel();
    let watch = move || -> rustix::io::Result<()> {
        let pid = Pid::from_raw(child.id() as i32).ok_or(Errno::SRCH)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        while poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None) == Err(Errno::INTR) {}
        let _ = child.wait();
        let _ = gone.send(());
        Ok(())
    };
    // Without the thread, the ledger knows of the end too: `Session::is_over`.
    let watching = std::thread::Builder::new().name("wait".to_owned()).spawn(watch);
    if watching.is_err() || ended.await.is_err() {
        pending::<()>().await;
    }
}

fn print(config: &RunConfig, observer: &mut Observer) -> anyhow::Result<()> {
    let report = observer.report();
    let terminal = config.output.file.is_none() && std::io::stdout().is_terminal();
    let options = Options {
        top: config.top.map(std::num::NonZero::get),
        columns: terminal.then(super::report::columns).flatten(),
        ..Options::default()
    };
    output::write(config.output.file.as_deref(), |out| {
        report::write(&report, format(config.output.format), &options, out)
    })
}

/// The kernel side's log level: debug for `-v`, trace for more.
fn log_level(verbosity: u8) -> u8 {
    match verbosity {
        0 => 0,
        1 => 4,
        _ => 5,
    }
}
