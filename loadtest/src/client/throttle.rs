//! A stream that is read slowly.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::secure::Stream;

/// A connection; with a rate, at most so many bytes a second are read from it.
#[derive(Debug)]
pub(crate) struct Throttle {
    stream: Stream,
    slow: Option<Slow>,
}

#[derive(Debug)]
struct Slow {
    bytes_per_second: u64,
    /// Not read before this.
    wait: Pin<Box<Sleep>>,
}

/// Bytes of one slow read.
const SIP_BYTES: usize = 256;

impl Throttle {
    /// Reads as fast as it can.
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, slow: None }
    }

    /// Reads at most so much.
    pub(crate) fn slow(stream: Stream, bytes_per_second: u64) -> Self {
        let wait = Box::pin(tokio::time::sleep(Duration::ZERO));
        Self { stream, slow: Some(Slow { bytes_per_second: bytes_per_second.max(1), wait }) }
    }
}

impl AsyncRead for Throttle {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(slow) = &mut this.slow else { return Pin::new(&mut this.stream).poll_read(cx, buffer) };
        ready!(slow.wait.as_mut().poll(cx));
        let mut sip = [0; SIP_BYTES];
        let mut part = ReadBuf::new(&mut sip[..SIP_BYTES.min(buffer.remaining())]);
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        let read = part.filled();
        buffer.put_slice(read);
        let pause = Duration::from_secs_f64(read.len() as f64 / slow.bytes_per_second as f64);
        slow.wait.as_mut().reset(Instant::now() + pause);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Throttle {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
