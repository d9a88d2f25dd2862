//! The body of an upstream's answer. It holds the connection, gives it back at its end, and ends when the upstream is
//! silent for too long.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::pool::{Connection, Pool};
use crate::stack::Inbound;

/// The body.
#[derive(Debug)]
pub(crate) struct Reply<B: Inbound> {
    incoming: Incoming,
    /// Until the end.
    held: Option<Held<B>>,
    idle: Duration,
    /// The end of the route's total time.
    until: Option<Instant>,
    waiting: bool,
}

#[derive(Debug)]
struct Held<B: Inbound> {
    connection: Connection<B>,
    pool: Arc<Pool<B>>,
    target: usize,
    _slot: OwnedSemaphorePermit,
}

/// Why an answer did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplyError {
    /// The connection broke, or the framing did.
    #[error("the upstream broke off")]
    Broke,
    /// Silence for the upstream's idle timeout, or the end of the route's total time.
    #[error("the upstream was silent, or took altogether too long")]
    Stalled,
}

impl<B: Inbound> Reply<B> {
    pub(super) fn new(
        incoming: Incoming,
        connection: Connection<B>,
        pool: Arc<Pool<B>>,
        target: usize,
        slot: OwnedSemaphorePermit,
        idle: Duration,
        until: Option<Instant>,
    ) -> Self {
        let held = Some(Held { connection, pool, target, _slot: slot });
        Self { incoming, held, idle, until, waiting: false }
    }

    /// All of the answer was read: the connection may serve the next request.
    pub(crate) fn finish(&mut self) {
        if let Some(Held { connection, pool, target, .. }) = self.held.take() {
            pool.give_back(target, connection);
        }
    }
}

impl<B: Inbound> Body for Reply<B> {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        let this = &mut *self;
        if this.until.is_some_and(|until| Instant::now() >= until) {
            return Poll::Ready(Some(Err(ReplyError::Stalled)));
        }
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.waiting = false;
                Poll::Ready(frame.map(|frame| frame.map_err(|_| ReplyError::Broke)))
            }
            Poll::Pending => {
                let Some(held) = &mut this.held else { return Poll::Pending };
                let deadline = &mut held.connection.deadline;
                if !std::mem::replace(&mut this.waiting, true) {
                    let left = this.until.map(|until| until.saturating_duration_since(Instant::now()));
                    deadline.set(left.map_or(this.idle, |left| left.min(this.idle)));
                }
                deadline.poll(cx).map(|()| Some(Err(ReplyError::Stalled)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
