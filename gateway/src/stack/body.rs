//! A response's body on its way down: short ones whole; long and streamed ones frame by frame, with a second record at the
//! end that settles the first.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use store::model::{AccountState, Completion, KeyState, Outcome, Timestamp};

use super::{
    BoxError, Inbound, Ledger,
    deadline::Deadline,
    entry::{End, Entry},
    hold::Prefix,
    upstream::Reply,
};

/// A response's body.
#[derive(Debug)]
pub enum Download<L: Ledger, B: Inbound> {
    /// All of it is here, and its row is committed.
    Whole(Whole),
    /// The rest comes; its row is open.
    Stream(Box<Stream<L, B>>),
}

/// A body that is all here.
#[derive(Debug, Default)]
pub struct Whole {
    data: Option<Bytes>,
    trailers: Option<Box<HeaderMap>>,
}

/// A body that is still coming. Dropping it before its end is what a client that hangs up does.
#[derive(Debug)]
pub struct Stream<L: Ledger, B: Inbound> {
    settling: Settling<L>,
    prefix: Prefix,
    reply: Reply<B>,
}

/// The record that an open row still needs; handed in when dropped.
#[derive(Debug)]
pub(crate) struct Settling<L: Ledger> {
    entry: Entry<L>,
    end: End,
    recheck: Deadline,
    every: Duration,
}

impl Whole {
    pub(crate) fn new(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { data: (!data.is_empty()).then_some(data), trailers: trailers.map(Box::new) }
    }

    /// Bytes, trailers left out.
    pub(crate) fn bytes(&self) -> u64 {
        self.data.as_ref().map_or(0, |data| data.len() as u64)
    }
}

impl From<Bytes> for Whole {
    fn from(data: Bytes) -> Self {
        Self::new(data, None)
    }
}

impl<L: Ledger> Settling<L> {
    pub(crate) fn new(entry: Entry<L>, status: u16) -> Self {
        let every = entry.shared.settings.timeouts.recheck;
        let end = End {
            status,
            outcome: Outcome::Admitted,
            // Unless told otherwise before it is dropped.
            completion: Completion::ClientAbort,
            bytes_out: 0,
            settles: true,
        };
        let recheck = Deadline::after(entry.look_within(every));
        Self { entry, end, recheck, every }
    }

    /// How it ended, after so many bytes.
    pub(crate) fn ended(&mut self, completion: Completion, bytes_out: u64) {
        (self.end.completion, self.end.bytes_out) = (completion, bytes_out);
    }

    /// Ready when the key does not work any more, or this node cannot know whether it does (P3), or the unit of concurrency was
    /// lost. Looks again each [`super::Timeouts::recheck`].
    pub(crate) fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.recheck.poll(cx).is_ready() {
            if self.entry.has_lapsed() || !self.key_works() {
                return Poll::Ready(());
            }
            self.recheck.set(self.entry.look_within(self.every));
        }
        Poll::Pending
    }

    fn key_works(&self) -> bool {
        let Some(known) = &self.entry.known else { return false };
        let ledger = &self.entry.shared.ledger;
        let view = ledger.view();
        let works = ledger.key(&known.hash).is_some_and(|key| {
            key.state == KeyState::Active
                && key.account.state == AccountState::Active
                && key.expires_at.is_none_or(|at| at > Timestamp::now())
        });
        works && ledger.is_in_force(view)
    }
}

impl<L: Ledger> Drop for Settling<L> {
    fn drop(&mut self) {
        let end = self.end;
        if let Some(row) = self.entry.row(&end) {
            self.entry.shared.ledger.record(row, self.entry.group);
        }
    }
}

impl<L: Ledger, B: Inbound> Download<L, B> {
    pub(crate) fn stream(entry: Entry<L>, status: u16, prefix: Prefix, reply: Reply<B>) -> Self {
        Self::Stream(Box::new(Stream { settling: Settling::new(entry, status), prefix, reply }))
    }
}

impl<L: Ledger, B: Inbound> Stream<L, B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.settling.poll_revoked(cx).is_ready() {
            return Poll::Ready(Some(
                Err("the key does not work any more, or its unit of concurrency was lost".into()),
            ));
        }
        let frame = match self.prefix.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.reply).poll_frame(cx),
        };
        match frame {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                self.settling.end.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.is_end_stream() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.settling.end.completion = Completion::UpstreamAbort;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
        }
    }

    fn complete(&mut self) {
        self.settling.end.completion = Completion::Complete;
        self.reply.finish();
    }

    fn is_end_stream(&self) -> bool {
        self.prefix.is_empty() && self.reply.is_end_stream()
    }
}

impl<L: Ledger, B: Inbound> Body for Download<L, B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Whole(whole) => Poll::Ready(match whole.data.take() {
                Some(data) => Some(Ok(Frame::data(data))),
                None => whole.trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))),
            }),
            Self::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.data.is_none() && whole.trailers.is_none(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) if whole.trailers.is_none() => SizeHint::with_exact(whole.bytes()),
            Self::Whole(_) => SizeHint::default(),
            Self::Stream(stream) if stream.prefix.is_empty() => stream.reply.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
