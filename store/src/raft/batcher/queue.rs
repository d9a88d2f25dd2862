//! A batcher's queue: many hand in, one takes, and is woken only when there is something to do for it.
//!
//! Waking a sleeping thread costs more than a row does, on both sides, and on a busy core the woken thread takes the place
//! of the one that was about to hand in more. So the taker says how many must wait before it wants to know (one when it is
//! idle, hundreds while a batch is under way), and who hands in the one that reaches it may finish its turn first ([`Due`]).

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;

/// Makes a queue. It has no bound of its own: each row has a [`super::Place`].
pub(super) fn queue<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { items: Vec::new(), wake_at: usize::MAX, is_closed: false, has_ended: false };
    let queue = Arc::new(Queue { state: Mutex::new(state), wake: Notify::new() });
    (Sender(queue.clone()), Receiver(queue))
}

struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

struct State<T> {
    items: Vec<T>,
    /// The taker is to be woken when so many wait.
    wake_at: usize,
    /// Nobody hands in any more.
    is_closed: bool,
    /// Nobody takes any more.
    has_ended: bool,
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("no holder panics")
    }
}

/// Where rows are handed in. The queue is closed when it is dropped.
pub(super) struct Sender<T>(Arc<Queue<T>>);

/// Where they are taken. What waits is dropped with it.
pub(super) struct Receiver<T>(Arc<Queue<T>>);

/// The taker is to be woken: when this is dropped.
pub(super) struct Due<T>(Arc<Queue<T>>);

impl<T> Drop for Due<T> {
    fn drop(&mut self) {
        self.0.wake.notify_one();
    }
}

impl<T> Due<T> {
    /// Wakes the taker when all tasks of this thread that are ready have run: they may hand in too. For a task on a runtime
    /// of one thread.
    pub(super) async fn at_end_of_turn(self) {
        tokio::task::yield_now().await;
    }
}

impl<T> Sender<T> {
    /// Hands one in. It is dropped when nobody takes any more.
    pub(super) fn push(&self, item: T) -> Option<Due<T>> {
        let mut state = self.0.lock();
        if state.has_ended {
            return None;
        }
        state.items.push(item);
        if state.items.len() < state.wake_at {
            return None;
        }
        state.wake_at = usize::MAX;
        Some(Due(self.0.clone()))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.wake.notify_one();
    }
}

impl<T> Receiver<T> {
    /// Ends when so many wait; or, with `false`, when none waits and none will.
    pub(super) async fn reach(&self, count: usize) -> bool {
        loop {
            {
                let mut state = self.0.lock();
                let is_over = state.is_closed && state.items.is_empty();
                if state.items.len() >= count || is_over {
                    state.wake_at = usize::MAX;
                    return !is_over;
                }
                state.wake_at = count;
            }
            self.0.wake.notified().await;
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.lock().items.len()
    }

    /// Takes the oldest, at most so many.
    pub(super) fn take(&self, most: usize) -> Vec<T> {
        let mut state = self.0.lock();
        let rest = if state.items.len() > most { state.items.split_off(most) } else { Vec::new() };
        mem::replace(&mut state.items, rest)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.has_ended = true;
        let items = mem::take(&mut state.items);
        drop(state);
        drop(items);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_taker_is_woken_when_as_many_wait_as_it_said_and_not_before() {
        let (sender, receiver) = queue();
        let mut reached = Box::pin(receiver.reach(3));
        assert_eq!(reached.as_mut().now_or_never(), None);
        for n in 0..2 {
            assert!(sender.push(n).is_none(), "too few to wake for");
        }
        let due = sender.push(2).expect("the third");
        assert!(sender.push(3).is_none(), "once is enough");
        assert_eq!(reached.as_mut().now_or_never(), None, "not yet");
        drop(due);
        assert_eq!(reached.as_mut().now_or_never(), Some(true));
        drop(reached);
        assert_eq!((receiver.take(3), receiver.len()), (vec![0, 1, 2], 1));
        assert_eq!(receiver.reach(1).now_or_never(), Some(true), "one waits already");
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_loses_nothing() {
        let (sender, receiver) = queue();
        assert_eq!(receiver.reach(1).now_or_never(), None);
        let due = sender.push(1);
        assert_eq!(receiver.take(1), [1], "taken for another reason");
        drop(due);
        let mut reached = Box::pin(receiver.reach(1));
        assert_eq!(reached.as_mut().now_or_never(), None, "an old wake-up is none for what comes next");
        drop(sender.push(2));
        assert_eq!(reached.now_or_never(), Some(true));
    }

    #[tokio::test]
    async fn the_other_tasks_of_a_turn_hand_in_before_the_taker_is_woken() {
        let (sender, receiver) = queue();
        let taker = tokio::spawn(async move {
            assert!(receiver.reach(1).await);
            receiver.take(10).len()
        });
        tokio::task::yield_now().await;
        let sender = Arc::new(sender);
        for n in 0..5 {
            let sender = sender.clone();
            tokio::spawn(async move {
                if let Some(due) = sender.push(n) {
                    due.at_end_of_turn().await;
                }
            });
        }
        assert_eq!(taker.await.expect("no panic"), 5);
    }

    #[tokio::test]
    async fn both_ends_learn_that_the_other_is_gone() {
        let (sender, receiver) = queue();
        assert!(sender.push(1).is_none(), "nobody said yet when to be woken");
        drop(sender);
        assert!(receiver.reach(1).await, "what waits is still taken");
        assert_eq!(receiver.take(10), [1]);
        assert!(!receiver.reach(usize::MAX).await);

        let (sender, receiver) = queue();
        let (alive, dropped) = (Arc::new(()), Arc::new(()));
        assert!(sender.push(dropped.clone()).is_none());
        drop(receiver);
        assert!(sender.push(alive.clone()).is_none());
        assert_eq!((Arc::strong_count(&alive), Arc::strong_count(&dropped)), (1, 1));
    }
}
