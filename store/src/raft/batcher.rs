//! Rows on their way into one ledger group: gathered into blocks, proposed, released at commit.
//!
//! A row costs a push and a wake-up; encoding, proposing and waiting are paid once a batch. At most [`IN_FLIGHT`] batches
//! wait for their quorum; what arrives meanwhile makes the next batch, so batches grow with load and no timer is needed.
//! Each batch has a number within the node's incarnation: one whose fate is unknown is proposed again, byte for byte the
//! same, until it has landed, and the state takes it once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{group::Group, wait::Wait};
use crate::{
    model::{Command, NodeId, Row, RowBatch},
    state::block,
};

/// Batches that wait for their quorum at once.
const IN_FLIGHT: u32 = 2;
/// Rows of one batch.
const BATCH_ROWS: usize = 1_024;
/// One attempt at a batch; attempts go on until it lands or the node stops.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A row in the queue.
struct Waiting {
    row: Row,
    /// None for a row that nobody waits for.
    done: Option<oneshot::Sender<bool>>,
    _place: Place,
}

/// A place in the queue; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counters for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rows: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) block_bytes: AtomicU64,
    pub(crate) commit_ns: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// The batcher of one group on this node.
pub(crate) struct Batcher {
    queue: mpsc::UnboundedSender<Waiting>,
    waiting: Arc<AtomicUsize>,
    max_waiting: usize,
    counters: Arc<Counters>,
}

impl Batcher {
    /// Starts it. `max_waiting`: rows that may be queued or in flight.
    pub(crate) fn start(group: Arc<Group>, node: NodeId, incarnation: u64, max_waiting: usize) -> Self {
        let (queue, rows) = mpsc::unbounded_channel();
        let counters = Arc::<Counters>::default();
        tokio::spawn(run(group, node, incarnation, rows, Arc::clone(&counters)));
        Self { queue, waiting: Arc::default(), max_waiting, counters }
    }

    /// Takes a place; none at the bound.
    pub(crate) fn place(&self) -> Option<Place> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.max_waiting {
            return Some(Place(Arc::clone(&self.waiting)));
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// Hands a row in; the answer comes when its batch is committed (`true`) or never will be (`false`).
    pub(crate) fn push(&self, row: Row, place: Place) -> oneshot::Receiver<bool> {
        let (done, committed) = oneshot::channel();
        // The batcher ends only with the process; then the receiver says so.
        let _ = self.queue.send(Waiting { row, done: Some(done), _place: place });
        committed
    }

    /// Hands in a row that nobody waits for; at the bound it is dropped and counted.
    pub(crate) fn push_unattended(&self, row: Row) {
        match self.place() {
            Some(place) => {
                let _ = self.queue.send(Waiting { row, done: None, _place: place });
            }
            None => {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Rows queued or in flight.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

async fn run(
    group: Arc<Group>,
    node: NodeId,
    incarnation: u64,
    mut queue: mpsc::UnboundedReceiver<Waiting>,
    counters: Arc<Counters>,
) {
    let flights = Arc::new(Semaphore::new(IN_FLIGHT as usize));
    let mut batch = 0;
    loop {
        let Ok(flight) = Arc::clone(&flights).acquire_owned().await else { return };
        let mut taken = Vec::new();
        if queue.recv_many(&mut taken, BATCH_ROWS).await == 0 {
            return;
        }
        batch += 1;
        let (mut rows, mut waiters) = (Vec::with_capacity(taken.len()), Vec::with_capacity(taken.len()));
        for Waiting { row, done, _place } in taken {
            rows.push(row);
            waiters.push((done, _place));
        }
        let block = match block::encode(&rows) {
            Ok(block) => block,
            Err(error) => {
                // The gateway bounds every text, so this is a defect: say which, refuse the batch, go on.
                tracing::error!(%error, rows = rows.len(), "rows cannot be encoded");
                for (done, _) in waiters {
                    let _ = done.map(|done| done.send(false));
                }
                continue;
            }
        };
        counters.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.block_bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let command = Command::Rows(RowBatch { node, incarnation, batch, rows: count, block: block.into() }).encode();
        let (group, counters) = (Arc::clone(&group), Arc::clone(&counters));
        tokio::spawn(async move {
            let _flight = flight;
            let started = std::time::Instant::now();
            while let Err(error) = group.propose(&command, Wait::Committed, true, ATTEMPT).await {
                tracing::warn!(%error, batch, rows = count, "rows wait for a quorum");
            }
            let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            counters.commit_ns.fetch_add(took, Ordering::Relaxed);
            for (done, _place) in waiters {
                let _ = done.map(|done| done.send(true));
            }
        });
    }
}
