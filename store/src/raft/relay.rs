//! Who waits for a row, woken once a thread and batch instead of once a row.
//!
//! A task of a `current_thread` runtime (a core of the data plane) that is woken from another thread costs that thread a
//! system call each time: tokio writes to the runtime's eventfd whether or not it sleeps. So each such runtime has one task
//! that is handed a batch's waiters together and wakes them where they live.

use std::cell::RefCell;

use tokio::{
    runtime::{self, Handle, RuntimeFlavor},
    sync::{mpsc, oneshot},
};

/// Waiters on their way to their own thread. Bounded by the places in the batcher's queue: each row has one.
type Relay = mpsc::UnboundedSender<Vec<oneshot::Sender<bool>>>;

thread_local! {
    static HERE: RefCell<Option<(runtime::Id, Relay)>> = const { RefCell::new(None) };
}

/// Who waits for a row.
pub(super) struct Waiter {
    done: oneshot::Sender<bool>,
    relay: Option<Relay>,
}

impl Waiter {
    /// A waiter on this thread, and what it waits on.
    pub(super) fn new() -> (Self, oneshot::Receiver<bool>) {
        let (done, committed) = oneshot::channel();
        (Self { done, relay: here() }, committed)
    }

    /// Whether all that runs beside it shares its thread.
    pub(super) fn is_alone(&self) -> bool {
        self.relay.is_some()
    }

    /// Answers at once; whoever has gone away is not missed.
    pub(super) fn answer(self, committed: bool) {
        let _ = self.done.send(committed);
    }
}

/// Tells all that their rows are committed.
pub(super) fn release(waiters: impl Iterator<Item = Waiter>) {
    let mut threads: Vec<(Relay, Vec<oneshot::Sender<bool>>)> = Vec::new();
    for Waiter { done, relay } in waiters {
        let Some(relay) = relay else {
            let _ = done.send(true);
            continue;
        };
        // Few: as many as the data plane has cores.
        match threads.iter_mut().find(|(other, _)| other.same_channel(&relay)) {
            Some((_, waiting)) => waiting.push(done),
            None => threads.push((relay, vec![done])),
        }
    }
    for (relay, waiting) in threads {
        // That runtime is gone, and whoever waited on it.
        let _ = relay.send(waiting);
    }
}

/// The relay of the runtime that this is called on, if it has one thread.
fn here() -> Option<Relay> {
    let runtime =
        Handle::try_current().ok().filter(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread)?;
    HERE.with_borrow_mut(|here| {
        if let Some((of, relay)) = here
            && *of == runtime.id()
        {
            return Some(relay.clone());
        }
        let (relay, mut batches) = mpsc::unbounded_channel::<Vec<oneshot::Sender<bool>>>();
        // Ends with its runtime, or with the last row that knows it once another runtime has taken this thread.
        runtime.spawn(async move {
            while let Some(batch) = batches.recv().await {
                for done in batch {
                    let _ = done.send(true);
                }
            }
        });
        *here = Some((runtime.id(), relay.clone()));
        Some(relay)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_of_two_threads_are_told_and_one_whose_runtime_is_gone_is_not_missed() {
        let (sender, waiters) = std::sync::mpsc::channel();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
                    runtime.block_on(async {
                        let pairs: Vec<_> = (0..10).map(|_| Waiter::new()).collect();
                        let (waiters, told): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
                        assert!(waiters.iter().all(|waiter| waiter.relay.is_some()));
                        waiters.into_iter().for_each(|waiter| sender.send(waiter).expect("the test listens"));
                        for committed in told {
                            assert!(committed.await.expect("told"));
                        }
                    });
                })
            })
            .collect();
        let gone =
            runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async { Waiter::new().0 });
        let mut all: Vec<Waiter> = waiters.iter().take(20).collect();
        all.insert(7, gone);
        release(all.into_iter());
        threads.into_iter().for_each(|thread| thread.join().expect("all were told"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_waiter_of_a_runtime_of_threads_is_told_directly() {
        let (waiter, committed) = Waiter::new();
        assert!(waiter.relay.is_none());
        release(std::iter::once(waiter));
        assert!(committed.await.expect("told"));
    }
}
