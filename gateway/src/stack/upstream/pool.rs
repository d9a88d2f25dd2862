//! Connections to an upstream, of one core: kept while idle, bounded in number.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::HeaderValue;
use hyper::client::conn::http1::SendRequest;
use store::{Unavailable, model::Name, view::UpstreamView};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::connect::{self, Address};
use crate::{
    error::Fault,
    stack::{Inbound, Upload, deadline::Deadline},
    tls::Connector,
};

/// Time to connect where the upstream does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_000);
/// Silence in the middle of an answer where the upstream does not say.
const IDLE_TIMEOUT: Duration = Duration::from_millis(60_000);
/// Connections a node where the upstream does not say.
const MAX_CONNECTIONS: u32 = 1_024;
/// An idle connection is closed after this; below the keep-alive of most servers (node.js: 5 s).
const MAX_IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept a target and core; one more is closed.
const MAX_IDLE_CONNECTIONS: usize = 256;
/// A target that could not be connected to is passed over for this long, while another is there.
const PASSED_OVER_MS: u64 = 1_000;
/// Turns of the round, at most: weights are scaled down to it.
const MAX_TURNS: u64 = 1_024;

/// All upstreams' pools of one core.
#[derive(Debug)]
pub(crate) struct Pools<B: Inbound> {
    cores: u32,
    tls: Option<Arc<Connector>>,
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
    born: Instant,
}

#[derive(Debug)]
struct Target<B: Inbound> {
    address: Address,
    idle: Mutex<VecDeque<Connection<B>>>,
    /// Milliseconds after the pool's birth.
    passed_over_until: AtomicU64,
}

/// A connection, with the deadline that its requests use one after another.
#[derive(Debug)]
pub(crate) struct Connection<B: Inbound> {
    pub(super) sender: SendRequest<Upload<B>>,
    pub(super) deadline: Deadline,
    idle_since: Instant,
}

impl<B: Inbound> Connection<B> {
    pub(super) fn idle_for(&self) -> Duration {
        self.idle_since.elapsed()
    }
}

impl<B: Inbound> Pools<B> {
    pub(crate) fn new(cores: usize, tls: Option<Arc<Connector>>) -> Self {
        Self { cores: u32::try_from(cores).unwrap_or(u32::MAX).max(1), tls, pools: Mutex::default() }
    }

    /// The pool of an upstream as it is configured now.
    pub(super) fn pool(&self, view: &Arc<UpstreamView>) -> Arc<Pool<B>> {
        let mut pools = lock(&self.pools);
        if let Some(pool) = pools.get(&view.upstream.name)
            && (Arc::ptr_eq(&pool.view, view) || pool.view.upstream == view.upstream)
        {
            return pool.clone();
        }
        // New, or changed: requests under way keep the old pool until they end.
        let pool = Arc::new(Pool::new(view.clone(), self.cores, self.tls.clone()));
        pools.insert(view.upstream.name.clone(), pool.clone());
        pool
    }

    /// Closes what was idle too long, and forgets upstreams that nothing is connected to.
    pub(crate) fn sweep(&self) {
        lock(&self.pools).retain(|_, pool| {
            for target in &pool.targets {
                lock(&target.idle).retain(Connection::is_fit);
            }
            let idle = pool.targets.iter().any(|target| !lock(&target.idle).is_empty());
            idle || pool.slots.available_permits() < pool.max_slots
        });
    }
}

impl<B: Inbound> Connection<B> {
    fn is_fit(&self) -> bool {
        !self.sender.is_closed() && self.idle_for() < MAX_IDLE
    }
}

impl<B: Inbound> Pool<B> {
    fn new(view: Arc<UpstreamView>, cores: u32, tls: Option<Arc<Connector>>) -> Self {
        let upstream = &view.upstream;
        let max_slots = upstream.max_connections.unwrap_or(MAX_CONNECTIONS).div_ceil(cores).max(1) as usize;
        let (mut targets, mut weights) = (Vec::new(), Vec::new());
        for target in &upstream.targets {
            if let Some(address) = Address::parse(&target.url) {
                targets.push(Target { address, idle: Mutex::default(), passed_over_until: AtomicU64::new(0) });
                weights.push(u64::from(target.weight));
            }
        }
        let turns = turns(&weights);
        // Each core starts its round elsewhere.
        let next = AtomicUsize::new(getrandom::u32().unwrap_or_default() as usize);
        let slots = Arc::new(Semaphore::new(max_slots));
        Self { targets, turns, next, slots, max_slots, born: Instant::now(), tls, view }
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
            Ok(Err(_)) | Err(_) => Err(Fault::Unavailable(Unavailable {
                reason: "the upstream has as many connections as it may have".to_owned(),
                retry_after: Duration::from_secs(1),
            })),
        }
    }

    /// Whose turn it is.
    pub(super) fn pick(&self) -> Result<usize, Fault> {
        let turns = &self.turns;
        if turns.is_empty() {
            return Err(Fault::UpstreamUnreachable("the upstream has no target"));
        }
        let mut turn = self.next.fetch_add(1, Ordering::Relaxed);
        let first = turns[turn % turns.len()];
        if self.targets.len() == 1 || self.is_open(first) {
            return Ok(first);
        }
        for _ in 1..turns.len() {
            turn = turn.wrapping_add(1);
            let target = turns[turn % turns.len()];
            if self.is_open(target) {
                return Ok(target);
            }
        }
        Ok(first)
    }

    fn is_open(&self, target: usize) -> bool {
        let until = self.targets[target].passed_over_until.load(Ordering::Relaxed);
        until == 0 || until <= self.now_ms()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The idle connection that was used last.
    pub(super) fn idle(&self, target: usize) -> Option<Connection<B>> {
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

    pub(super) async fn connect(&self, target: usize) -> Result<Connection<B>, Fault> {
        let target = &self.targets[target];
        let connected = tokio::time::timeout(self.connect_timeout(), target.address.connect(self.tls.as_ref())).await;
        let why = match connected {
            Ok(Ok(stream)) => match connect::handshake(stream).await {
                Ok(sender) => {
                    target.passed_over_until.store(0, Ordering::Relaxed);
                    return Ok(Connection {
                        sender,
                        deadline: Deadline::after(self.connect_timeout()),
                        idle_since: Instant::now(),
                    });
                }
                Err(_) => "the upstream closed the connection",
            },
            Ok(Err(error)) => match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "the upstream refused the connection",
                // What rustls says of certificates.
                std::io::ErrorKind::InvalidData => "TLS with the upstream failed",
                _ => "the upstream could not be connected to",
            },
            Err(_) => "the upstream could not be connected to in time",
        };
        target.passed_over_until.store(self.now_ms() + PASSED_OVER_MS, Ordering::Relaxed);
        Err(Fault::UpstreamUnreachable(why))
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn give_back(&self, target: usize, mut connection: Connection<B>) {
        if connection.sender.is_closed() {
            return;
        }
        connection.idle_since = Instant::now();
        let mut idle = lock(&self.targets[target].idle);
        if idle.len() >= MAX_IDLE_CONNECTIONS {
            idle.pop_front();
        }
        idle.push_back(connection);
    }

    pub(super) fn authority(&self, target: usize) -> HeaderValue {
        self.targets[target].address.authority.clone()
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.view.upstream.idle_timeout_ms.map_or(IDLE_TIMEOUT, Duration::from_millis)
    }

    fn connect_timeout(&self) -> Duration {
        self.view.upstream.connect_timeout_ms.map_or(CONNECT_TIMEOUT, Duration::from_millis)
    }
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
