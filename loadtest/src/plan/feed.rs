//! Hands a schedule out to the generators' threads, ahead of its time.

use anyhow::Result;
use tokio::sync::mpsc;

use super::{Batch, Schedule, factor::mixed};

/// Arrivals handed over at once.
const BATCH: usize = 128;
/// As soon as their bodies have so many bytes: with the bound of the channels, that of what waits in them. A longer body is
/// handed over by itself.
const BATCH_BYTES: usize = 256 * 1024;
/// What has been held back is handed over after so much of the schedule's time, however little it is.
const HORIZON_NS: u64 = 50_000_000;

/// Runs through a schedule, on a thread of its own: its channels are full most of the time, which bounds its memory. Keeps
/// what belongs to `shard` of `shards`. Ends early, without an error, when the generators have ended.
///
/// # Errors
/// What ended the schedule: a line of the trace that cannot be used.
pub(crate) fn feed(schedule: Schedule, senders: &[mpsc::Sender<Batch>], shard: u64, shards: u64) -> Result<u64> {
    let mut batches: Vec<Batch> = senders.iter().map(|_| Vec::with_capacity(BATCH)).collect();
    let mut bytes = vec![0; senders.len()];
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
            bytes.fill(0);
            horizon = arrival.due_ns + HORIZON_NS;
        }
        turn = (turn + 1) % senders.len();
        bytes[turn] += arrival.spec.body.len();
        batches[turn].push(arrival);
        sent += 1;
        if batches[turn].len() >= BATCH || bytes[turn] >= BATCH_BYTES {
            bytes[turn] = 0;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        measure::Labels,
        plan::{Arrival, Keys, Spec},
    };

    /// 64 batches of 128 bodies, however long, waited in a channel.
    #[test]
    fn long_bodies_wait_in_small_batches() {
        let labels = Labels::default();
        let principal = Keys::new(Vec::new(), &labels).expect("no keys").stand_in("");
        let sizes = |body_bytes: usize| {
            let spec = Spec::new("POST", "/", [], vec![b'x'; body_bytes].into()).expect("a request");
            let arrival = Arrival { due_ns: 0, spec: Arc::new(spec), principal: principal.clone() };
            let (sender, mut receiver) = mpsc::channel(1_000);
            let schedule = Box::new((0..256).map(move |_| Ok(arrival.clone())));
            assert_eq!(feed(schedule, &[sender], 0, 1).expect("a schedule"), 256);
            std::iter::from_fn(|| receiver.blocking_recv()).map(|batch| batch.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(10), [128, 128]);
        assert_eq!(sizes(BATCH_BYTES / 2), [2; 128]);
        assert_eq!(sizes(BATCH_BYTES + 1), [1; 256]);
    }
}
