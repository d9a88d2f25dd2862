//! A request's body on its way up: counted, bounded in size, and not waited for too long.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::{Inbound, deadline::Deadline, entry::micros, headers};
use crate::error::Fault;
use bytes::Bytes;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};

const RUNNING: u8 = 0;
const FINISHED: u8 = 1;
const TOO_LARGE: u8 = 2;
const BROKEN: u8 = 3;
const STALLED: u8 = 4;

/// What became of a body; read by whoever waits for the answer.
#[derive(Debug)]
pub(crate) struct Meter {
    bytes: AtomicU64,
    state: AtomicU8,
    limit: u64,
    began: Instant,
    /// When a part of it last came, or its end: microseconds after `began`.
    moved_us: AtomicU64,
    /// The upstream would take more, and the client has not sent it.
    awaits_client: AtomicBool,
}

impl Meter {
    /// Bytes so far that may go up; never more than the limit.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// All of it went up, or no more will.
    pub(crate) fn is_finished(&self) -> bool {
        self.state.load(Ordering::Acquire) != RUNNING
    }

    /// When a part of it last came, or its end.
    pub(crate) fn moved_at(&self) -> Instant {
        self.began + Duration::from_micros(self.moved_us.load(Ordering::Relaxed))
    }

    /// It is the client's turn: who waits for the upstream's answer waits for the client in truth.
    pub(crate) fn awaits_client(&self) -> bool {
        !self.is_finished() && self.awaits_client.load(Ordering::Relaxed)
    }

    fn moved(&self) {
        self.moved_us.store(micros(self.began), Ordering::Relaxed);
        self.awaits_client.store(false, Ordering::Relaxed);
    }

    /// What the client did wrong, if that is why the call ended.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self.state.load(Ordering::Acquire) {
            TOO_LARGE => Some(Fault::BodyTooLarge(self.limit)),
            BROKEN => Some(Fault::BodyBroken),
            STALLED => Some(Fault::BodyStalled),
            _ => None,
        }
    }
}

/// The body. Nothing is held here: a frame goes on as it came.
#[derive(Debug)]
pub(crate) struct Upload<B> {
    /// None for a request without a body: it costs nothing.
    running: Option<Running<B>>,
}

#[derive(Debug)]
struct Running<B> {
    inner: B,
    meter: Arc<Meter>,
    key_headers: Arc<[HeaderName]>,
    timeout: Duration,
    /// Made when the client first keeps us waiting.
    deadline: Option<Deadline>,
    waiting: bool,
}

/// Ends the upstream's request; the meter says why.
#[derive(Debug, thiserror::Error)]
#[error("the client's body ended early")]
pub(crate) struct UploadError;

impl<B: Inbound> Upload<B> {
    pub(crate) fn new(inner: B, limit: u64, timeout: Duration, key_headers: &Arc<[HeaderName]>) -> Self {
        if inner.is_end_stream() {
            return Self { running: None };
        }
        let meter = Arc::new(Meter {
            bytes: AtomicU64::new(0),
            state: AtomicU8::new(RUNNING),
            limit,
            began: Instant::now(),
            moved_us: AtomicU64::new(0),
            awaits_client: AtomicBool::new(false),
        });
        let key_headers = key_headers.clone();
        Self { running: Some(Running { inner, meter, key_headers, timeout, deadline: None, waiting: false }) }
    }

    /// A request without a body.
    pub(crate) fn empty() -> Self {
        Self { running: None }
    }

    pub(crate) fn meter(&self) -> Option<Arc<Meter>> {
        self.running.as_ref().map(|running| running.meter.clone())
    }
}

impl<B: Inbound> Running<B> {
    fn end(&self, state: u8) {
        self.meter.state.store(state, Ordering::Release);
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            self.meter.awaits_client.store(true, Ordering::Relaxed);
            ready!(self.poll_deadline(cx));
            self.end(STALLED);
            return Poll::Ready(Some(Err(UploadError)));
        };
        self.waiting = false;
        self.meter.moved();
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::trailers(trailers, &self.key_headers);
                }
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                // What is too much goes nowhere and is not counted: a quota was reserved up to the limit, and no further.
                if bytes > self.meter.limit - self.meter.bytes() {
                    self.end(TOO_LARGE);
                    return Poll::Ready(Some(Err(UploadError)));
                }
                self.meter.bytes.fetch_add(bytes, Ordering::Relaxed);
                if self.inner.is_end_stream() {
                    self.end(FINISHED);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(_)) => {
                self.end(BROKEN);
                Poll::Ready(Some(Err(UploadError)))
            }
            None => {
                self.end(FINISHED);
                Poll::Ready(None)
            }
        }
    }

    /// Ready when the client was silent for the timeout.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout = self.timeout;
        let deadline = self.deadline.get_or_insert_with(|| Deadline::after(timeout));
        if !std::mem::replace(&mut self.waiting, true) {
            deadline.set(timeout);
        }
        deadline.poll(cx)
    }
}

impl<B> Drop for Running<B> {
    fn drop(&mut self) {
        // Nobody will read on: what came is what there was.
        let _ = self.meter.state.compare_exchange(RUNNING, FINISHED, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl<B: Inbound> Body for Upload<B> {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match &mut self.running {
            Some(running) => running.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.running.as_ref().is_none_or(|running| running.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.running.as_ref().map_or_else(|| SizeHint::with_exact(0), |running| running.inner.size_hint())
    }
}
