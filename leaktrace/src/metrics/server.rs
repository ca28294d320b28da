//! Serves the metrics over HTTP, on a thread of its own.
//!
//! Comes in: an address and [`Latest`]. Goes out: `/metrics`, `/healthz`, `/readyz`. Never: waits for the tracing, or
//! makes it wait.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use super::collector::Exporter;
use super::snapshot::Latest;

/// How long a scrape that is under way may still take when leaktrace ends.
const GRACE: Duration = Duration::from_secs(1);

/// Why metrics can't be served.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text names its fields")]
pub enum MetricsError {
    /// Another process has the port.
    #[error(
        "can't serve metrics on {address}: the port is in use; \
         choose another with --metrics (ss -ltnp shows who has it)"
    )]
    InUse { address: SocketAddr },
    /// Ports below 1024 are root's.
    #[error(
        "can't serve metrics on {address}: not permitted; choose a port from 1024 on, or add CAP_NET_BIND_SERVICE"
    )]
    NotPermitted { address: SocketAddr },
    /// No interface has the address.
    #[error("can't serve metrics on {address}: this machine does not have the address (ip addr lists them)")]
    NotLocal { address: SocketAddr },
    /// Anything else that the system says.
    #[error("can't serve metrics on {address}")]
    Serve { address: SocketAddr, source: io::Error },
    /// The metrics contradict each other.
    #[error("can't describe the metrics; this is a mistake in leaktrace, please report it")]
    Registry(#[from] prometheus::Error),
}

impl MetricsError {
    fn of(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::AddrInUse => Self::InUse { address },
            ErrorKind::PermissionDenied => Self::NotPermitted { address },
            ErrorKind::AddrNotAvailable => Self::NotLocal { address },
            _ => Self::Serve { address, source },
        }
    }
}

/// A port that is ours; who connects waits for [`Server::start`].
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Listens on `address` from now on; port 0 takes a free one.
    pub fn open(address: SocketAddr) -> Result<Self, MetricsError> {
        let failed = |source| MetricsError::of(address, source);
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if !address.ip().is_loopback() {
            tracing::warn!("metrics on {address} can be read by everyone who can reach this machine");
        }
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves what is in `latest`.
    pub fn start(port: Port, latest: Arc<Latest>) -> Result<Self, MetricsError> {
        let Port { listener, address } = port;
        let failed = |source| MetricsError::of(address, source);
        let exporter = Exporter::new(Arc::clone(&latest))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (stop, stopped) = watch::channel(false);
        let routes = routes(exporter, latest);
        let thread = std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serve(listener, routes, stopped)) {
                    tracing::error!("metrics on {address} are no longer served: {error}");
                }
            })
            .map_err(failed)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening; a scrape that is under way has [`GRACE`] to end.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the metrics thread panicked");
        }
    }
}

async fn serve(listener: TcpListener, routes: Router, stopped: watch::Receiver<bool>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let graceful = axum::serve(listener, routes).with_graceful_shutdown(wait(stopped.clone()));
    tokio::select! {
        result = async { graceful.await } => result,
        () = async { wait(stopped).await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

async fn wait(mut stopped: watch::Receiver<bool>) {
    // An error means that the server's handle is gone, which is a stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn routes(exporter: Exporter, latest: Arc<Latest>) -> Router {
    Router::new()
        .route("/metrics", get(metrics).with_state(Arc::new(exporter)))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready).with_state(latest))
}

async fn metrics(State(exporter): State<Arc<Exporter>>) -> Response {
    match exporter.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!("can't render the metrics: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

async fn ready(State(latest): State<Arc<Latest>>) -> (StatusCode, &'static str) {
    match latest.get() {
        Some(_) => (StatusCode::OK, "ok\n"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no snapshot was taken yet\n"),
    }
}
