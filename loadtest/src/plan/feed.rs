//! Hands a schedule out to the generators' threads, ahead of its time.

use anyhow::Result;
use tokio::sync::mpsc;

use super::{Batch, Schedule, factor::mixed};

/// Arrivals handed over at once.
const BATCH: usize = 128;
/// What has been held back is handed over after so much of the schedule's time, however little it is.
const HORIZON_NS: u64 = 50_000_000;

/// Runs through a schedule, on a thread of its own: its channels are full most of the time, which bounds its memory. Keeps
/// what belongs to `shard` of `shards`. Ends early, without an error, when the generators have ended.
///
/// # Errors
/// What ended the schedule: a line of the trace that cannot be used.
pub(crate) fn feed(schedule: Schedule, senders: &[mpsc::Sender<Batch>], shard: u64, shards: u64) -> Result<u64> {
    let mut batches: Vec<Batch> = senders.iter().map(|_| Vec::with_capacity(BATCH)).collect();
    let (mut sent, mut turn, mut horizon) = (0, 0, HORIZON_NS);
    let mut ended = Ok(());
    for arrival in schedule {
        let arrival = match arrival {
            Ok(arrival) => arrival,
            Err(error) => {
                // What is due before is still sent.
                ended = Err(error);
                break;
            }
        };
        if shards > 1 && mixed(arrival.principal.shard) % shards != shard {
            continue;
        }
        if arrival.due_ns >= horizon {
            for (batch, sender) in batches.iter_mut().zip(senders) {
                if !batch.is_empty() && sender.blocking_send(std::mem::take(batch)).is_err() {
                    return Ok(sent);
                }
            }
            horizon = arrival.due_ns + HORIZON_NS;
        }
        turn = (turn + 1) % senders.len();
        batches[turn].push(arrival);
        sent += 1;
        if batches[turn].len() >= BATCH {
            let batch = std::mem::replace(&mut batches[turn], Vec::with_capacity(BATCH));
            if senders[turn].blocking_send(batch).is_err() {
                return Ok(sent);
            }
        }
    }
    for (batch, sender) in batches.into_iter().zip(senders) {
        if !batch.is_empty() && sender.blocking_send(batch).is_err() {
            return Ok(sent);
        }
    }
    ended.map(|()| sent)
}
