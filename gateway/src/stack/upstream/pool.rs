//! Connections to an upstream, of one core: kept while idle, bounded in number.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, StatusCode, Uri, header};
use metrics::counter;
use store::{
    model::{Name, Protocol},
    view::UpstreamView,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::{
    budget::Budget,
    connect::{self, Address},
    health::Health,
    sender::Sender,
    standing::Standing,
};
use crate::{
    error::Fault,
    stack::{Inbound, Settings, deadline::Deadline},
    telemetry::UPSTREAM_EJECTIONS,
    tls::Connector,
};

/// Time to connect where the upstream does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_000);
/// A connection that takes longer to make is not waited for alone: one that another request gives back serves as well. (A
/// packet that is lost on the way, as all are that a full listen queue drops, is sent again only after a second.) Not at once,
/// or a pool that is too small would begin handshakes and break them off.
const SLOW_CONNECT: Duration = Duration::from_millis(100);
/// How often one is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Silence in the middle of an answer where the upstream does not say.
const IDLE_TIMEOUT: Duration = Duration::from_millis(60_000);
/// Connections a node where the upstream does not say.
const MAX_CONNECTIONS: u32 = 1_024;
/// An idle connection is closed after this; below the keep-alive of most servers (node.js: 5 s).
const MAX_IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept a target and core; one more is closed.
const MAX_IDLE_CONNECTIONS: usize = 256;
/// A connection to a name, not an address, is used for so long: then the name is looked up again.
const MAX_AGE: Duration = Duration::from_secs(60);
/// An upstream that nobody has called for so many sweeps (seconds) is forgotten.
const FORGOTTEN_AFTER: u32 = 600;
/// Why there is no connection.
const NOT_IN_TIME: &str = "the upstream could not be connected to in time";
/// Turns of the round, at most: weights are scaled down to it.
const MAX_TURNS: u64 = 1_024;

/// All upstreams' pools of one core.
#[derive(Debug)]
pub(crate) struct Pools<B: Inbound> {
    cores: u32,
    tls: Option<Arc<Connector>>,
    health: Arc<Health>,
    pools: Mutex<HashMap<Name, Arc<Pool<B>>>>,
}

/// One upstream's.
#[derive(Debug)]
pub(crate) struct Pool<B: Inbound> {
    view: Arc<UpstreamView>,
    tls: Option<Arc<Connector>>,
    targets: Vec<Target<B>>,
    /// Indexes of targets, each as often as its weight, evenly mixed.
    turns: Vec<usize>,
    next: AtomicUsize,
    slots: Arc<Semaphore>,
    max_slots: usize,
    pub(super) budget: Budget,
    /// Sweeps since it was asked for last.
    unused_sweeps: AtomicU32,
    /// Standings decide: there are checks or ejections, or more than one target.
    judged: bool,
}

#[derive(Debug)]
struct Target<B: Inbound> {
    address: Address,
    idle: Mutex<VecDeque<Connection<B>>>,
    /// HTTP/2: the connection that all requests share, until it is closed or old.
    shared: Mutex<Option<(Sender<B>, Option<Instant>)>>,
    /// HTTP/2: one makes it, the others wait, and share its failure: when that was, and why.
    connecting: tokio::sync::Mutex<Option<(Instant, &'static str)>>,
    standing: Standing,
}

/// A connection, with the deadline that its requests use one after another.
#[derive(Debug)]
pub(crate) struct Connection<B: Inbound> {
    pub(super) sender: Sender<B>,
    pub(super) deadline: Deadline,
    idle_since: Instant,
    /// Not used any more afterwards.
    old_at: Option<Instant>,
}

impl<B: Inbound> Connection<B> {
    pub(super) fn idle_for(&self) -> Duration {
        self.idle_since.elapsed()
    }
}

impl<B: Inbound> Pools<B> {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            cores: u32::try_from(settings.cores).unwrap_or(u32::MAX).max(1),
            tls: settings.upstream_tls.clone(),
            health: settings.health.clone(),
            pools: Mutex::default(),
        }
    }

    /// The pool of an upstream as it is configured now.
    pub(super) fn pool(&self, view: &Arc<UpstreamView>) -> Arc<Pool<B>> {
        let mut pools = lock(&self.pools);
        if let Some(pool) = pools.get(&view.upstream.name)
            && (Arc::ptr_eq(&pool.view, view) || pool.view.upstream == view.upstream)
        {
            pool.unused_sweeps.store(0, Ordering::Relaxed);
            return pool.clone();
        }
        // New, or changed: requests under way keep the old pool until they end.
        let pool = Arc::new(Pool::new(view.clone(), self.cores, self.tls.clone(), &self.health));
        pools.insert(view.upstream.name.clone(), pool.clone());
        pool
    }

    /// Closes what was idle too long, and forgets upstreams that nobody has called for a while. Not at once: an upstream that
    /// fails has no connections, and what is known of its targets, and what its retries cost, must stay.
    pub(crate) fn sweep(&self) {
        lock(&self.pools).retain(|_, pool| {
            for target in &pool.targets {
                lock(&target.idle).retain(Connection::is_fit);
                let mut shared = lock(&target.shared);
                *shared = shared.take().filter(|(sender, old_at)| !sender.is_closed() && !is_over(*old_at));
            }
            let busy = pool.slots.available_permits() < pool.max_slots;
            busy || pool.unused_sweeps.fetch_add(1, Ordering::Relaxed) < FORGOTTEN_AFTER
        });
    }
}

impl<B: Inbound> Connection<B> {
    fn is_fit(&self) -> bool {
        !self.sender.is_closed() && self.idle_for() < MAX_IDLE && !is_over(self.old_at)
    }
}

impl<B: Inbound> Pool<B> {
    fn new(view: Arc<UpstreamView>, cores: u32, tls: Option<Arc<Connector>>, health: &Health) -> Self {
        let upstream = &view.upstream;
        let max_slots = upstream.max_connections.unwrap_or(MAX_CONNECTIONS).div_ceil(cores).max(1) as usize;
        let (mut targets, mut weights) = (Vec::new(), Vec::new());
        let verdict = |url: &str| match upstream.health_check {
            Some(_) => health.verdict(&upstream.name, url),
            None => Arc::default(),
        };
        for target in &upstream.targets {
            if let Some(address) = Address::parse(&target.url) {
                targets.push(Target {
                    address,
                    idle: Mutex::default(),
                    shared: Mutex::default(),
                    connecting: tokio::sync::Mutex::default(),
                    standing: Standing::new(verdict(&target.url)),
                });
                weights.push(u64::from(target.weight));
            }
        }
        let turns = turns(&weights);
        // Each core starts its round elsewhere.
        let next = AtomicUsize::new(getrandom::u32().unwrap_or_default() as usize);
        let slots = Arc::new(Semaphore::new(max_slots));
        let budget = Budget::new(upstream.retry_budget_percent);
        let judged = upstream.health_check.is_some() || upstream.outlier.is_some() || targets.len() > 1;
        Self { targets, turns, next, slots, max_slots, budget, unused_sweeps: AtomicU32::new(0), judged, tls, view }
    }

    /// A place among the upstream's connections; waits for one as long as a connection may take.
    pub(super) async fn slot(&self) -> Result<OwnedSemaphorePermit, Fault> {
        match self.slots.clone().try_acquire_owned() {
            Ok(slot) => return Ok(slot),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {}
        }
        let waiting = tokio::time::timeout(self.connect_timeout(), self.slots.clone().acquire_owned());
        match waiting.await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(Fault::Busy("the upstream has as many connections as it may have")),
        }
    }

    /// Whose turn it is.
    pub(super) fn pick(&self) -> Result<usize, Fault> {
        let turns = &self.turns;
        if turns.is_empty() {
            return Err(Fault::UpstreamUnreachable("the upstream has no target"));
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let first = turns[turn % turns.len()];
        if !self.judged || self.targets[first].standing.is_open() {
            return Ok(first);
        }
        let find = |fits: fn(&Standing) -> bool| {
            let later = (0..turns.len()).map(|more| turns[turn.wrapping_add(more) % turns.len()]);
            later.into_iter().find(|target| fits(&self.targets[*target].standing))
        };
        // One that could not be connected to a moment ago is still better than none.
        find(Standing::is_open).or_else(|| find(Standing::is_fit)).ok_or(Fault::UpstreamUnreachable(
            "no target of the upstream is healthy: all were left out for what they answered",
        ))
    }

    /// What a target answered.
    pub(super) fn answered(&self, target: usize, status: StatusCode) {
        if self.view.upstream.outlier.is_none() {
            return;
        }
        if status.is_server_error() { self.failed(target) } else { self.targets[target].standing.succeeded() }
    }

    /// A target did not answer, or with a failure.
    pub(super) fn failed(&self, target: usize) {
        let Some(outlier) = &self.view.upstream.outlier else { return };
        let standing = &self.targets[target].standing;
        if !standing.failed(outlier) || standing.is_ejected() {
            return;
        }
        let ejected = self.targets.iter().filter(|target| target.standing.is_ejected()).count() + 1;
        if ejected * 100 > self.targets.len() * usize::from(outlier.max_percent) {
            return;
        }
        standing.eject(outlier);
        let upstream = &self.view.upstream.name;
        counter!(UPSTREAM_EJECTIONS, "upstream" => upstream.to_string()).increment(1);
        let authority = &self.targets[target].address.authority;
        tracing::warn!(%upstream, target = ?authority, "target is left out for a while: it failed too often in a row");
    }

    /// The idle connection that was used last.
    pub(super) fn idle(&self, target: usize) -> Option<Connection<B>> {
        if self.is_http2() {
            let shared = lock(&self.targets[target].shared);
            let (sender, old_at) =
                shared.as_ref().filter(|(sender, old_at)| !sender.is_closed() && !is_over(*old_at))?;
            return Some(self.connection(sender.share()?, *old_at));
        }
        let mut idle = lock(&self.targets[target].idle);
        for place in (0..idle.len()).rev() {
            let (fit, ready) = (idle[place].is_fit(), idle[place].sender.is_ready());
            match (fit, ready) {
                (false, _) => drop(idle.remove(place)),
                (true, true) => return idle.remove(place),
                // Its last answer was read to the end a moment ago, and its task did not run since.
                (true, false) => {}
            }
        }
        None
    }

    /// A connection, and whether it is a new one. `takes_idle`: one that another request gives back meanwhile will do.
    pub(super) async fn connect(&self, target: usize, takes_idle: bool) -> Result<(Connection<B>, bool), Fault> {
        let place = &self.targets[target];
        if !self.is_http2() {
            let mut opening = pin!(self.open(target));
            let mut patience = SLOW_CONNECT;
            loop {
                match tokio::time::timeout(patience, &mut opening).await {
                    Ok(opened) => {
                        let sender = opened.map_err(Fault::UpstreamUnreachable)?;
                        return Ok((self.connection(sender, place.old_at()), true));
                    }
                    Err(_) => patience = LOOK_AGAIN,
                }
                if let Some(connection) = if takes_idle { self.idle(target) } else { None } {
                    return Ok((connection, false));
                }
            }
        }
        // The others find the one that was made.
        let asked = Instant::now();
        let waiting = tokio::time::timeout(self.connect_timeout(), place.connecting.lock());
        let mut failed = waiting.await.map_err(|_| Fault::UpstreamUnreachable(NOT_IN_TIME))?;
        if let Some(connection) = self.idle(target) {
            return Ok((connection, true));
        }
        if let Some((at, why)) = *failed
            && at >= asked
        {
            return Err(Fault::UpstreamUnreachable(why));
        }
        let opened = self.open(target).await;
        *failed = opened.as_ref().err().map(|why| (Instant::now(), *why));
        let (sender, old_at) = (opened.map_err(Fault::UpstreamUnreachable)?, place.old_at());
        *lock(&place.shared) = sender.share().map(|sender| (sender, old_at));
        Ok((self.connection(sender, old_at), true))
    }

    fn connection(&self, sender: Sender<B>, old_at: Option<Instant>) -> Connection<B> {
        let deadline = Deadline::after(self.connect_timeout());
        Connection { sender, deadline, idle_since: Instant::now(), old_at }
    }

    /// A new connection; why there is none.
    async fn open(&self, number: usize) -> Result<Sender<B>, &'static str> {
        let target = &self.targets[number];
        let connecting = async {
            let stream = target.address.connect(self.tls.as_ref(), self.is_http2()).await?;
            connect::handshake(stream, self.is_http2()).await.map_err(std::io::Error::other)
        };
        let why = match tokio::time::timeout(self.connect_timeout(), connecting).await {
            Ok(Ok(sender)) => {
                target.standing.connected();
                return Ok(sender);
            }
            Ok(Err(error)) => match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "the upstream refused the connection",
                // What rustls says of certificates.
                std::io::ErrorKind::InvalidData => "TLS with the upstream failed",
                std::io::ErrorKind::Other => "the upstream closed the connection",
                _ => "the upstream could not be connected to",
            },
            Err(_) => NOT_IN_TIME,
        };
        target.standing.refused();
        self.failed(number);
        Err(why)
    }

    fn is_http2(&self) -> bool {
        self.view.upstream.protocol == Some(Protocol::Http2)
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn give_back(&self, target: usize, mut connection: Connection<B>) {
        // One that is shared was never taken away.
        if connection.sender.is_closed() || connection.sender.is_shared() {
            return;
        }
        connection.idle_since = Instant::now();
        let mut idle = lock(&self.targets[target].idle);
        if idle.len() >= MAX_IDLE_CONNECTIONS {
            idle.pop_front();
        }
        idle.push_back(connection);
    }

    /// The request as this target is asked: `Host`, or for HTTP/2 the whole URI.
    pub(super) fn address<T>(&self, target: usize, request: &mut Request<T>) {
        let address = &self.targets[target].address;
        if !self.is_http2() {
            request.headers_mut().insert(header::HOST, address.authority.clone());
            return;
        }
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        if let Ok(uri) = address.absolute(path).parse::<Uri>() {
            *request.uri_mut() = uri;
        }
        let headers = request.headers_mut();
        // What HTTP/2 has elsewhere or not at all (RFC 9113 §8.2.2); `TE: trailers` stays, gRPC wants it.
        for name in [header::HOST, header::CONNECTION, header::UPGRADE, header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.view.upstream.idle_timeout_ms.map_or(IDLE_TIMEOUT, Duration::from_millis)
    }

    fn connect_timeout(&self) -> Duration {
        self.view.upstream.connect_timeout_ms.map_or(CONNECT_TIMEOUT, Duration::from_millis)
    }
}

impl<B: Inbound> Target<B> {
    /// When a connection that is made now is to be replaced.
    fn old_at(&self) -> Option<Instant> {
        self.address.is_name().then(|| Instant::now() + MAX_AGE)
    }
}

fn is_over(at: Option<Instant>) -> bool {
    at.is_some_and(|at| Instant::now() >= at)
}

/// Smooth weighted round-robin (nginx's), unrolled.
fn turns(weights: &[u64]) -> Vec<usize> {
    let sum: u64 = weights.iter().sum();
    let scale = sum.div_ceil(MAX_TURNS).max(1);
    let weights: Vec<i64> = weights.iter().map(|weight| i64::try_from(weight.div_ceil(scale)).unwrap_or(1)).collect();
    let sum: i64 = weights.iter().sum();
    let mut current = vec![0; weights.len()];
    let mut turns = Vec::new();
    for _ in 0..sum {
        for (value, weight) in current.iter_mut().zip(&weights) {
            *value += weight;
        }
        let most = current.iter().enumerate().max_by_key(|(place, value)| (**value, usize::MAX - place));
        let Some((target, _)) = most else { break };
        current[target] -= sum;
        turns.push(target);
    }
    turns
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::turns;

    #[test]
    fn turns_follow_the_weights_evenly() {
        assert_eq!(turns(&[1, 1]), [0, 1]);
        assert_eq!(turns(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns(&[0, 2]), [1, 1]);
        assert_eq!(turns(&[0, 0]), [0usize; 0]);
        let many = turns(&[60_000, 30_000]);
        assert!(many.len() <= 1_030, "{}", many.len());
        let first = many.iter().filter(|target| **target == 0).count();
        assert!((first as f64 / many.len() as f64 - 2.0 / 3.0).abs() < 0.01);
    }
}
