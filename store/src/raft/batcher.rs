//! Rows on their way into one ledger group: gathered into blocks, proposed, released at commit.
//!
//! A row costs a push and a wake-up; encoding, proposing and waiting are paid once a batch. While one waits for its quorum,
//! what arrives makes the next, which goes when the other has landed, or beside it when it is large: so batches grow with
//! load. A small one may wait a moment for more ([`linger`]). (Two small batches at a time were measured to cost 1.5 times
//! the CPU a row of one.)
//! Each batch has a number within the node's incarnation: one whose fate is unknown is proposed again, byte for byte the
//! same, until it has landed, and the state takes it once.

mod linger;
mod queue;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::task::JoinSet;

use linger::Linger;

use super::{
    group::Group,
    relay::{self, Waiter},
    wait::Wait,
};
use crate::{
    model::{Command, NodeId, Row, RowBatch},
    state::block,
};

/// Batches that wait for their quorum at once.
const IN_FLIGHT: usize = 2;
/// A batch goes beside another one from so many rows on: fewer cost nearly as much, three flushes and a dozen wake-ups.
const NEXT_FLIGHT_ROWS: usize = 256;
/// How often the batcher lets others run before a batch, as long as that brings rows.
const STEPS_BACK: usize = 4;
/// Rows of one batch.
const BATCH_ROWS: usize = 1_024;
/// One attempt at a batch; attempts go on until it lands or the node stops.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A row in the queue.
struct Waiting {
    row: Row,
    /// None for a row that nobody waits for.
    done: Option<Waiter>,
    place: Place,
}

/// A place in the queues of a node; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes one of so many; none at the bound.
    pub(crate) fn take(waiting: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        if waiting.fetch_add(1, Ordering::Relaxed) < most {
            return Some(Self(Arc::clone(waiting)));
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// Takes one whatever the bound is.
    pub(crate) fn beyond(waiting: &Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(waiting))
    }
}

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
    queue: queue::Sender<Waiting>,
}

impl Batcher {
    /// Starts it, for this node and incarnation.
    pub(crate) fn start(group: Arc<Group>, (node, incarnation): (NodeId, u64), counters: Arc<Counters>) -> Self {
        let (queue, rows) = queue::queue();
        tokio::spawn(run(group, node, incarnation, rows, counters));
        Self { queue }
    }

    /// Hands a row in and waits: `true` when its batch is committed, `false` when it never will be.
    pub(crate) async fn push(&self, row: Row, place: Place) -> bool {
        let (done, committed) = Waiter::new();
        let is_alone = done.is_alone();
        // The batcher ends only with the process; then the receiver says so.
        let due = self.queue.push(Waiting { row, done: Some(done), place });
        match due {
            Some(due) if is_alone => due.at_end_of_turn().await,
            due => drop(due),
        }
        committed.await.unwrap_or(false)
    }

    /// Hands in a row that nobody waits for.
    pub(crate) fn push_unattended(&self, row: Row, place: Place) {
        drop(self.queue.push(Waiting { row, done: None, place }));
    }
}

async fn run(
    group: Arc<Group>,
    node: NodeId,
    incarnation: u64,
    queue: queue::Receiver<Waiting>,
    counters: Arc<Counters>,
) {
    let mut flights = JoinSet::new();
    let mut batch = 0;
    let mut linger = Linger::default();
    loop {
        let enough = match flights.len() {
            0 => linger.enough(),
            IN_FLIGHT.. => usize::MAX,
            _ => NEXT_FLIGHT_ROWS,
        };
        tokio::select! {
            biased;
            _ = flights.join_next(), if !flights.is_empty() => {}
            () = linger.over() => {}
            is_open = queue.reach(enough) => {
                if !is_open {
                    // Whoever waits still gets an answer.
                    return flights.detach_all();
                }
            }
        }
        if !departs(queue.len(), flights.len()) {
            continue;
        }
        gather(&queue).await;
        if linger.lets_go(queue.len()) {
            for taken in by_class(queue.take(BATCH_ROWS)) {
                batch += 1;
                let of = Batch { node, incarnation, batch };
                if let Some(flight) = of.prepare(taken, &counters) {
                    flights.spawn(flight.fly(Arc::clone(&group), Arc::clone(&counters)));
                }
            }
        }
    }
}

/// Rows of one retention class each, as a block goes to one file: nearly always all of them.
fn by_class(taken: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let first = taken.first().map(|waiting| waiting.row.retention_days);
    if taken.iter().all(|waiting| Some(waiting.row.retention_days) == first) {
        return vec![taken];
    }
    let mut classes: BTreeMap<u16, Vec<Waiting>> = BTreeMap::new();
    for waiting in taken {
        classes.entry(waiting.row.retention_days).or_default().push(waiting);
    }
    classes.into_values().collect()
}

/// Lets the writers that were woken a moment ago hand in theirs: they run while this task steps back.
async fn gather(queue: &queue::Receiver<Waiting>) {
    let mut before = queue.len();
    for _ in 0..STEPS_BACK {
        tokio::task::yield_now().await;
        let now = queue.len();
        if now == before || now >= BATCH_ROWS {
            return;
        }
        before = now;
    }
}

/// Whether so many rows go, with so many batches in flight.
fn departs(rows: usize, in_flight: usize) -> bool {
    match in_flight {
        0 => rows > 0,
        _ => in_flight < IN_FLIGHT && rows >= NEXT_FLIGHT_ROWS,
    }
}

/// A batch's name in the replicated state.
struct Batch {
    node: NodeId,
    incarnation: u64,
    batch: u64,
}

/// A batch as it is proposed, and who waits for it.
struct Flight {
    command: Bytes,
    batch: u64,
    rows: u32,
    waiters: Vec<Waiter>,
    _places: Vec<Place>,
}

impl Batch {
    fn prepare(self, taken: Vec<Waiting>, counters: &Counters) -> Option<Flight> {
        let Self { node, incarnation, batch } = self;
        let class = taken.first().map_or(0, |waiting| waiting.row.retention_days);
        let count = taken.len();
        let (mut rows, mut waiters) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut places = Vec::with_capacity(count);
        for Waiting { row, done, place } in taken {
            rows.push(row);
            waiters.extend(done);
            places.push(place);
        }
        let block = match block::encode(&rows) {
            Ok(block) => block,
            Err(error) => {
                // The gateway bounds every text, so this is a defect: say which, refuse the batch, go on.
                tracing::error!(%error, rows = rows.len(), "rows cannot be encoded");
                waiters.into_iter().for_each(|waiter| waiter.answer(false));
                return None;
            }
        };
        counters.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.block_bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let command =
            Command::Rows(RowBatch { node, incarnation, batch, rows: count, class, block: block.into() }).encode();
        Some(Flight { command, batch, rows: count, waiters, _places: places })
    }
}

impl Flight {
    /// Proposes until it has landed, then wakes who waits.
    async fn fly(self, group: Arc<Group>, counters: Arc<Counters>) {
        let Self { command, batch, rows, waiters, _places } = self;
        let started = std::time::Instant::now();
        while let Err(error) = group.propose(&command, Wait::Committed, true, ATTEMPT).await {
            tracing::warn!(%error, batch, rows, "rows wait for a quorum");
        }
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        counters.commit_ns.fetch_add(took, Ordering::Relaxed);
        relay::release(waiters.into_iter());
    }
}
