//! A core's loop: accept, share out evenly, look after the connections each second, drain.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::body::Incoming;
use store::model::is_within;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use super::{Phase, addresses::Addresses, connection, registry::Registry};
use crate::{
    error::{TOO_MANY_CONNECTIONS, TOO_MANY_CONNECTIONS_OF_ONE},
    stack::{Ledger, Stack},
};

/// Pause after `accept` failed for want of descriptors or memory, so that the loop does not spin.
const BACK_OFF: Duration = Duration::from_millis(50);
/// How often connections are looked after.
const TICK: Duration = Duration::from_secs(1);
/// A core hands a connection to another when it has so many more.
const UNEVEN_BY: usize = 2;
/// Connections on their way to another core; one more stays where it is.
const MAILBOX: usize = 256;

/// How long clients of a node that was just started wait for it; an election takes a tenth of that.
const START: Duration = Duration::from_secs(5);
/// How long the rows of requests that a drain cut off may take; the default commit deadline.
const LATE_ROWS: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);

/// Connections that other cores hand over.
pub(super) type Inbox = mpsc::Receiver<(StdStream, SocketAddr)>;

/// How other cores hand a connection over, and how many connections this core has.
#[derive(Debug)]
pub(super) struct Outbox {
    sender: mpsc::Sender<(StdStream, SocketAddr)>,
    connections: Arc<AtomicUsize>,
}

pub(super) fn mailbox() -> (Inbox, Outbox) {
    let (sender, inbox) = mpsc::channel(MAILBOX);
    (inbox, Outbox { sender, connections: Arc::default() })
}

/// A core of the data plane.
pub(super) struct Core<L: Ledger> {
    pub(super) number: usize,
    pub(super) stack: Arc<Stack<L, Incoming>>,
    /// Connections of the whole node.
    pub(super) open: Arc<AtomicUsize>,
    pub(super) addresses: Arc<Addresses>,
    pub(super) outboxes: Arc<[Outbox]>,
    pub(super) draining: watch::Receiver<Phase>,
}

impl<L: Ledger> Core<L> {
    /// Serves until drained.
    pub(super) async fn run(mut self, listener: StdListener, mut inbox: Inbox) -> io::Result<()> {
        let registry = Arc::new(Registry::new(self.stack.settings().timeouts));
        let listener = TcpListener::from_std(listener)?;
        self.wait_until_it_may_decide().await;
        let mut tick = tokio::time::interval(TICK);
        let until = loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.accepted(stream, peer, &registry),
                    Err(error) => self.accept_failed(&error).await,
                },
                Some((stream, peer)) = inbox.recv() => {
                    if let Ok(stream) = TcpStream::from_std(stream) {
                        self.serve(stream, peer, &registry);
                    }
                }
                _ = tick.tick() => {
                    registry.tick();
                    self.stack.sweep();
                }
                _ = self.draining.changed() => match *self.draining.borrow() {
                    Phase::Draining(until) => break until,
                    Phase::Leaving(until) => registry.leave(until),
                    Phase::Serving => {}
                },
            }
        };
        registry.say_goodbye();
        self.accept_the_last(listener, &registry)?;
        // Ends when no core is about to hand a connection over any more.
        inbox.close();
        while let Some((stream, peer)) = inbox.recv().await {
            if let Ok(stream) = TcpStream::from_std(stream) {
                self.serve(stream, peer, &registry);
            }
        }
        let ended = tokio::time::timeout_at(until.into(), async {
            let mut last_requests = pin!(tokio::time::sleep(self.stack.settings().timeouts.last_requests));
            let mut serving = true;
            while !registry.is_empty() {
                tokio::select! {
                    () = registry.changed() => {}
                    _ = tick.tick() => registry.tick(),
                    () = &mut last_requests, if serving => {
                        serving = false;
                        registry.drain();
                    }
                }
            }
        });
        if ended.await.is_err() {
            tracing::warn!(connections = registry.len(), "data plane: drain deadline passed, closing connections");
            registry.kill();
        }
        // What was cut off has rows as well. Tunnels end with the runtime, and hand theirs in without waiting.
        let _ = tokio::time::timeout(LATE_ROWS, async {
            let mut look = tokio::time::interval(LOOK);
            while self.stack.late_rows() > 0 || !registry.is_empty() {
                look.tick().await;
            }
        })
        .await;
        Ok(())
    }

    /// Connections that the kernel has made before the listener closes: their clients believe to be served, and are.
    fn accept_the_last(&self, listener: TcpListener, registry: &Arc<Registry>) -> io::Result<()> {
        let listener = listener.into_std()?;
        // It does not block: the end is an error.
        while let Ok((stream, peer)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.accepted(stream, peer, registry);
            }
        }
        Ok(())
    }

    /// After a start, clients wait in the listener's queue until the node may decide: what would be answered 503 is answered
    /// a moment later. A node that finds no quorum says so in the end.
    async fn wait_until_it_may_decide(&self) {
        let may = || self.stack.may_decide();
        let stays = || matches!(*self.draining.borrow(), Phase::Serving);
        let waited = async {
            while !may() && stays() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(START, waited).await;
    }

    fn accepted(&self, stream: TcpStream, peer: SocketAddr, registry: &Arc<Registry>) {
        if self.open.load(Ordering::Relaxed) >= self.stack.settings().max_connections {
            return self.refuse(stream, TOO_MANY_CONNECTIONS);
        }
        // The kernel shares connections out by a hash of the addresses, unevenly when they are few.
        let count = |outbox: &Outbox| outbox.connections.load(Ordering::Relaxed);
        let here = count(&self.outboxes[self.number]);
        match self.outboxes.iter().min_by_key(|outbox| count(outbox)) {
            Some(least) if count(least) + UNEVEN_BY <= here => match (least.sender.try_reserve(), stream.into_std()) {
                (Ok(place), Ok(stream)) => {
                    place.send((stream, peer));
                }
                (Err(_), Ok(stream)) => {
                    if let Ok(stream) = TcpStream::from_std(stream) {
                        self.serve(stream, peer, registry);
                    }
                }
                (_, Err(error)) => tracing::debug!(%error, "data plane: hand a connection over"),
            },
            _ => self.serve(stream, peer, registry),
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, registry: &Arc<Registry>) {
        let settings = self.stack.settings();
        let bound = settings.max_connections_per_address;
        // A proxy's connections are those of all whom it speaks for.
        let is_bounded = bound > 0 && !is_within(&settings.trusted_proxies, peer.ip().to_canonical());
        let place = if is_bounded { self.addresses.place(peer.ip(), bound) } else { None };
        if is_bounded && place.is_none() {
            return self.refuse(stream, TOO_MANY_CONNECTIONS_OF_ONE);
        }
        let mine = &self.outboxes[self.number].connections;
        let counted = connection::Counted::new([self.open.clone(), mine.clone()], place, self.stack.telemetry());
        connection::spawn(self.stack.clone(), stream, peer, registry, counted);
    }

    /// Says 503 in one write that does not wait, and closes.
    fn refuse(&self, stream: TcpStream, answer: &[u8]) {
        self.stack.telemetry().connections_refused.increment(1);
        // Over TLS it could not read a word before its handshake: it is closed.
        if self.stack.settings().tls.is_none()
            && let Ok(mut stream) = stream.into_std()
        {
            let _ = stream.write(answer);
        }
    }

    async fn accept_failed(&self, error: &io::Error) {
        self.stack.telemetry().accept_errors.increment(1);
        // A connection that was gone before it was accepted is that client's affair.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        tracing::warn!(%error, "data plane: accept");
        tokio::time::sleep(BACK_OFF).await;
    }
}
