//! The data plane's server: a thread a core, each with its own runtime, listener, chain and upstream connections.
//!
//! Nothing of a request crosses cores but the ledger. Measured before the design was fixed: 17 to 20 us of CPU a request,
//! where tasks that move between threads cost 22 to 33.

mod accept;
mod addresses;
mod connection;
mod listen;
mod registry;
mod watch;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hyper::body::Incoming;
use tokio::{sync::watch as signal, task::AbortHandle};

use super::{Ledger, Rejections, Settings, Stack, upstream::health};

/// How the server should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Serves on, and tells clients with their answers to connect elsewhere, all of them by then.
    Leaving(Instant),
    /// No new connections; those that are open end when what is in flight ends, at the latest then.
    Draining(Instant),
}

/// Starts data planes.
#[derive(Debug)]
pub struct Server;

/// Why a data plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken, or the address is not this machine's.
    #[error("listen on {addr} for API clients: {source} (choose another address with --data-addr)")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// No threads, or no runtime on one.
    #[error("start a thread of the data plane: {0}")]
    Thread(io::Error),
}

/// A running data plane.
#[derive(Debug)]
pub struct Handle {
    local_addr: SocketAddr,
    phase: signal::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens and serves until [`Handle::drain`]. Install the metrics recorder first.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start<L: Ledger>(settings: Settings, ledger: &Arc<L>) -> Result<Handle, StartError> {
        let listen = settings.listen;
        let cores = settings.cores.max(1);
        let listeners = listen::bind(listen, cores).map_err(|source| StartError::Listen { addr: listen, source })?;
        let local_addr = listeners[0].local_addr().map_err(|source| StartError::Listen { addr: listen, source })?;
        let (phase, draining) = signal::channel(Phase::Serving);
        let settings = Arc::new(settings);
        let rejections = Arc::new(Rejections::new());
        let open = Arc::new(AtomicUsize::new(0));
        let addresses = Arc::<addresses::Addresses>::default();
        let (inboxes, outboxes): (Vec<_>, Vec<_>) = (0..cores).map(|_| accept::mailbox()).unzip();
        let outboxes: Arc<[_]> = outboxes.into();
        let (ready, started) = mpsc::channel();
        let mut threads = Vec::with_capacity(cores);
        for (core, (listener, inbox)) in listeners.into_iter().zip(inboxes).enumerate() {
            let (ledger, settings, rejections) = (Arc::clone(ledger), settings.clone(), rejections.clone());
            let (draining, open, outboxes, ready) = (draining.clone(), open.clone(), outboxes.clone(), ready.clone());
            let addresses = addresses.clone();
            let serve = move || {
                let runtime = match tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .on_thread_park(store::view::Directory::rest_thread)
                    .build()
                {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let _ = ready.send(Ok(()));
                runtime.block_on(async {
                    // One core looks after the health of upstreams for all.
                    let _checks = (core == 0).then(|| {
                        let checks =
                            health::run(settings.health.clone(), ledger.clone(), settings.upstream_tls.clone());
                        AbortOnDrop(tokio::spawn(checks).abort_handle())
                    });
                    let stack = Arc::new(Stack::<L, Incoming>::new(ledger.clone(), settings, rejections.clone()));
                    let core = accept::Core { number: core, stack, open, addresses, outboxes, draining };
                    if let Err(error) = core.run(listener, inbox).await {
                        tracing::error!(%error, "data plane: a core cannot accept connections");
                    }
                });
                rejections.flush(&*ledger);
            };
            let thread = std::thread::Builder::new().name(format!("data-{core}")).spawn(serve);
            threads.push(thread.map_err(StartError::Thread)?);
        }
        for started in started.iter().take(cores) {
            started.map_err(StartError::Thread)?;
        }
        Ok(Handle { local_addr, phase, threads })
    }
}

/// A task that ends with this.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Handle {
    /// Where it listens; the port as the system chose it when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves on, and asks clients to go: HTTP/1 answers say `Connection: close`, HTTP/2 connections that carry a request get
    /// a GOAWAY. So a connection ends after an answer, never under a request that is on its way here. Each at a moment of its
    /// own within this time: who has not heard yet that this node goes comes back at once, and handshakes of all clients
    /// with each of their answers would be more work than the requests.
    pub fn leave(&self, within: Duration) {
        let _ = self.phase.send(Phase::Leaving(Instant::now() + within));
    }

    /// Stops accepting, lets what is in flight end, at most `deadline`, and returns when all threads have ended. Blocks.
    pub fn drain(self, deadline: Duration) {
        let _ = self.phase.send(Phase::Draining(Instant::now() + deadline));
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}
