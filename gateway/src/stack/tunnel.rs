//! After a 101: bytes both ways until either end closes, then the record that settles the open row.

use std::{future::poll_fn, pin::pin, task::Poll};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use store::model::Completion;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Inbound, Ledger, body::Settling, entry::Entry, upstream::Reply};
use crate::error::SWITCHING_PROTOCOLS;

/// Bytes held a direction.
const BUFFER_BYTES: usize = 16 * 1024;

/// Joins client and upstream, on a task of its own.
pub(crate) fn spawn<L: Ledger, B: Inbound>(mut entry: Entry<L>, upstream: OnUpgrade, reply: Reply<B>) {
    let client = entry.upgrade.take();
    let mut settling = Settling::new(entry, SWITCHING_PROTOCOLS.as_u16());
    tokio::spawn(async move {
        // Keeps its place among the upstream's connections until the end.
        let _reply = reply;
        let Some(client) = client else { return };
        let (Ok(client), Ok(upstream)) = (client.await, upstream.await) else { return };
        let (up, down) = (split(client), split(upstream));
        let (mut bytes_out, mut completion) = (0, Completion::ClientAbort);
        {
            let mut upward = pin!(copy(up.0, down.1, None));
            let mut downward = pin!(copy(down.0, up.1, Some(&mut bytes_out)));
            let (mut upward_done, mut downward_done) = (None, None);
            poll_fn(|cx| {
                if settling.poll_revoked(cx).is_ready() {
                    return Poll::Ready(());
                }
                if upward_done.is_none()
                    && let Poll::Ready(done) = upward.as_mut().poll(cx)
                {
                    upward_done = Some(done);
                }
                if downward_done.is_none()
                    && let Poll::Ready(done) = downward.as_mut().poll(cx)
                {
                    downward_done = Some(done);
                }
                let aborted = [upward_done, downward_done].into_iter().flatten().find(|end| *end != Ended::Clean);
                completion = match (aborted, upward_done, downward_done) {
                    (Some(Ended::Read), Some(Ended::Read), _) | (Some(Ended::Write), _, Some(Ended::Write)) => {
                        Completion::ClientAbort
                    }
                    (Some(_), ..) => Completion::UpstreamAbort,
                    (None, Some(_), Some(_)) => Completion::Complete,
                    _ => return Poll::Pending,
                };
                Poll::Ready(())
            })
            .await;
        }
        settling.ended(completion, bytes_out);
    });
}

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Clean,
    Read,
    Write,
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut count: Option<&mut u64>,
) -> Ended {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) => return if to.shutdown().await.is_ok() { Ended::Clean } else { Ended::Write },
            Ok(read) => read,
            Err(_) => return Ended::Read,
        };
        if to.write_all(&buffer[..read]).await.is_err() || to.flush().await.is_err() {
            return Ended::Write;
        }
        if let Some(count) = &mut count {
            **count += read as u64;
        }
    }
}

fn split(
    upgraded: Upgraded,
) -> (tokio::io::ReadHalf<TokioIo<Upgraded>>, tokio::io::WriteHalf<TokioIo<Upgraded>>) {
    tokio::io::split(TokioIo::new(upgraded))
}
