//! Whole or open: a short answer is read whole before its row commits, so that the row is complete; a longer or streamed
//! one is released frame by frame after its open row.

use std::{collections::VecDeque, future::poll_fn, pin::Pin, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, Version, header, response::Parts};
use http_body::{Body, Frame};

use super::{
    Inbound, LAPSED, Ledger,
    body::Whole,
    deadline::Deadline,
    entry::Entry,
    upstream::{Reply, ReplyError},
};
use crate::error::{Fault, SWITCHING_PROTOCOLS};

/// Longest answer that is read whole, bytes (contract).
const MAX_WHOLE_BYTES: usize = 64 * 1024;
/// An answer of undeclared length that has not ended after this is taken for a stream.
const MAX_WAIT_FOR_END: Duration = Duration::from_millis(250);
/// The same for gRPC, whose calls all have undeclared lengths and whose streams are talks: a client may wait for each message,
/// or for the head alone, before it says more. The answer of a plain call is mostly one write, and is here at once or not yet.
const MAX_WAIT_FOR_GRPC: Duration = Duration::from_millis(10);

/// An answer, as far as it was read.
#[derive(Debug)]
pub(crate) enum Held<B: Inbound> {
    /// All of it.
    Whole(Parts, Whole),
    /// What was read of it, and the rest.
    Open(Parts, Prefix, Reply<B>),
}

/// What came first.
enum Next {
    Frame(Option<Result<Frame<Bytes>, ReplyError>>),
    Late,
    Lapsed,
}

/// Frames that were read before the answer proved long; at most [`MAX_WHOLE_BYTES`] and a frame.
pub(crate) type Prefix = VecDeque<Frame<Bytes>>;

/// Reads a short answer to its end.
///
/// Meanwhile the request's unit of concurrency may be lost, and be another's: then it ends.
pub(crate) async fn hold<L: Ledger, B: Inbound>(
    entry: &Entry<L>,
    response: Response<Reply<B>>,
) -> Result<Held<B>, Fault> {
    let (mut parts, mut reply) = response.into_parts();
    // The upstream's is of its own hop (RFC 9110 §2.5); what a client is spoken to is the client's connection's.
    parts.version = Version::HTTP_11;
    let declared = reply.size_hint().exact();
    let streamed = parts.status == SWITCHING_PROTOCOLS
        || declared.is_some_and(|bytes| bytes > MAX_WHOLE_BYTES as u64)
        || declared.is_none() && is_type(&parts.headers, b"text/event-stream");
    if streamed {
        return Ok(Held::Open(parts, Prefix::new(), reply));
    }
    if reply.is_end_stream() {
        reply.finish();
        return Ok(Held::Whole(parts, Whole::default()));
    }
    let mut read = Prefix::new();
    let mut bytes = 0;
    // Only an answer of unknown length needs the timer.
    let wait = if is_type(&parts.headers, b"application/grpc") { MAX_WAIT_FOR_GRPC } else { MAX_WAIT_FOR_END };
    let mut patience = declared.is_none().then(|| Box::pin(tokio::time::sleep(wait)));
    // Made when the answer first keeps us waiting: most are here whole.
    let mut recheck: Option<Deadline> = None;
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut reply).poll_frame(cx) {
                return Poll::Ready(Next::Frame(frame));
            }
            let wait = || entry.look_within(entry.shared.settings.timeouts.recheck);
            let recheck = recheck.get_or_insert_with(|| Deadline::after(wait()));
            while recheck.poll(cx).is_ready() {
                if entry.has_lapsed() {
                    return Poll::Ready(Next::Lapsed);
                }
                recheck.set(wait());
            }
            match &mut patience {
                Some(sleep) => sleep.as_mut().poll(cx).map(|()| Next::Late),
                None => Poll::Pending,
            }
        });
        match next.await {
            Next::Late => return Ok(Held::Open(parts, read, reply)),
            Next::Lapsed => return Err(Fault::Busy(LAPSED)),
            Next::Frame(Some(Ok(frame))) => {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                read.push_back(frame);
                if bytes > MAX_WHOLE_BYTES {
                    return Ok(Held::Open(parts, read, reply));
                }
                if !reply.is_end_stream() {
                    continue;
                }
            }
            Next::Frame(Some(Err(ReplyError::Broke))) => return Err(Fault::UpstreamBroke),
            Next::Frame(Some(Err(ReplyError::Stalled))) => return Err(Fault::UpstreamTimeout),
            Next::Frame(None) => {}
        }
        reply.finish();
        return Ok(Held::Whole(parts, join(read, bytes)));
    }
}

fn join(mut frames: Prefix, bytes: usize) -> Whole {
    if frames.len() == 1 && bytes > 0 {
        let frame = frames.pop_front().and_then(|frame| frame.into_data().ok());
        return Whole::from(frame.unwrap_or_default());
    }
    let mut data = BytesMut::with_capacity(bytes);
    let mut trailers = None;
    for frame in frames {
        match frame.into_data() {
            Ok(chunk) => data.extend_from_slice(&chunk),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Whole::new(data.freeze(), trailers)
}

/// Whether a content type begins so: parameters and gRPC's `+proto` may follow.
fn is_type(headers: &HeaderMap, name: &[u8]) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.as_bytes().get(..name.len()));
    value.is_some_and(|text| text.eq_ignore_ascii_case(name))
}
