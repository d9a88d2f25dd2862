//! A connection: HTTP/1.1, driven by whoever uses it, or HTTP/2, which all requests of a thread to a target share.
//!
//! For HTTP/1.1 hyper's connection future is polled in the task of the request: an answer wakes one task. An idle connection is not
//! polled at all; that its peer has closed it is seen at the next use, before anything is sent.

use std::{
    error::Error as _,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, Uri, header, uri};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{
        http1::{self, SendRequest},
        http2,
    },
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    answer::{self, Answer},
    settings::Target,
    throttle::Throttle,
};
use crate::secure::{Stream, Tls};

/// Requests that share a connection; one more opens another. Fewer than what servers commonly allow (RFC 9113 §6.5.2 asks for
/// 100 at least), so that none waits inside a connection that may be about to end.
const MAX_STREAMS: usize = 100;

type Driver = http1::Connection<TokioIo<Throttle>, Full<Bytes>>;

/// An open connection.
pub(crate) enum Connection {
    /// HTTP/1.1.
    Alone {
        sender: SendRequest<Full<Bytes>>,
        /// Dropped as soon as it is over: what still waits in it then comes back as not sent, and nobody waits for it for ever.
        driver: Option<Pin<Box<Driver>>>,
    },
    /// HTTP/2, the scheme and authority that its requests name, and who uses it.
    Shared { sender: http2::SendRequest<Full<Bytes>>, origin: (uri::Scheme, uri::Authority), users: Rc<()> },
}

/// Tasks of one thread, where connections live as well.
#[derive(Debug, Clone, Copy)]
struct Here;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Why there is no answer.
pub(crate) enum Failure {
    /// Nothing was sent; here is the request again.
    NotSent(Box<Request<Full<Bytes>>>),
    /// The peer has said that it did nothing of it (RFC 9113 §6.8, §8.7): a stream above the last one of its GOAWAY, or one
    /// that it refused.
    Unprocessed,
    /// It was sent, or a part of it.
    Broken(&'static str),
}

/// Why a connection could not be made: nothing was sent over it.
pub(crate) const NOT_CONNECTED: [&str; 5] =
    ["connection-refused", "no-local-port", OUT_OF_FILES, "connect-failed", "tls-failed"];
/// The generator's own limit, which says nothing about the target.
pub(crate) const OUT_OF_FILES: &str = "too-many-open-files";

impl Connection {
    /// Connects; `slow` reads at most so many bytes a second.
    pub(crate) async fn open(
        target: &Target,
        tls: Option<&Tls>,
        http2: bool,
        slow: Option<u64>,
    ) -> Result<Self, &'static str> {
        let stream = TcpStream::connect(target.addr).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection-refused",
            std::io::ErrorKind::AddrNotAvailable => "no-local-port",
            _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => OUT_OF_FILES,
            _ => "connect-failed",
        })?;
        let _ = stream.set_nodelay(true);
        let stream = match (&target.secure, tls) {
            (Some(name), Some(tls)) => tls.connect(name.clone(), stream).await.map_err(|_| "tls-failed")?,
            _ => Stream::Plain(stream),
        };
        let stream = match slow {
            Some(rate) => Throttle::slow(stream, rate),
            None => Throttle::new(stream),
        };
        if http2 {
            let scheme = if target.secure.is_some() { uri::Scheme::HTTPS } else { uri::Scheme::HTTP };
            let authority = target.authority.parse().map_err(|_| "connect-failed")?;
            let (sender, driver) = http2::handshake(Here, TokioIo::new(stream)).await.map_err(|_| "connect-failed")?;
            tokio::task::spawn_local(async move {
                // Its end shows at the requests on it.
                let _ = driver.await;
            });
            return Ok(Self::Shared { sender, origin: (scheme, authority), users: Rc::default() });
        }
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| "connect-failed")?;
        Ok(Self::Alone { sender, driver: Some(Box::pin(driver)) })
    }

    /// The same connection for another request, where it can be shared.
    pub(crate) fn share(&self) -> Option<Self> {
        match self {
            Self::Alone { .. } => None,
            Self::Shared { sender, origin, users } => {
                Some(Self::Shared { sender: sender.clone(), origin: origin.clone(), users: users.clone() })
            }
        }
    }

    /// Whether as many requests share it as may, the pool's own hold on it left out.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Shared { users, .. } if Rc::strong_count(users) > MAX_STREAMS)
    }

    /// Sends a request and reads its answer's head.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let (sender, driver) = match self {
            Self::Alone { sender, driver } => (sender, driver),
            Self::Shared { sender, origin, .. } => return send_shared(sender, origin, request).await,
        };
        if drive(driver, sender.ready()).await.is_err() {
            return Err(Failure::NotSent(Box::new(request)));
        }
        let sent = sender.try_send_request(request);
        drive(driver, sent).await.map_err(|mut error| match error.take_message() {
            Some(request) => Failure::NotSent(Box::new(request)),
            None => Failure::Broken("connection-broken"),
        })
    }

    /// Reads an answer's body to its end.
    pub(crate) async fn read(&mut self, response: Response<Incoming>) -> Result<Answer, Failure> {
        let (head, mut body) = response.into_parts();
        let mut answer = Answer::of(head.status.as_u16(), &head.headers);
        let is_problem = answer::is_problem(answer.status, &head.headers);
        let mut text = Vec::new();
        let mut none = None;
        let driver = match self {
            Self::Alone { driver, .. } => driver,
            Self::Shared { .. } => &mut none,
        };
        while let Some(frame) = drive(driver, body.frame()).await {
            let frame = frame.map_err(|_| Failure::Broken("answer-broken"))?;
            if let Some(part) = frame.data_ref().filter(|_| is_problem) {
                answer::collect(&mut text, part);
            }
        }
        if is_problem {
            answer.read_code(&text);
        }
        Ok(answer)
    }

    /// Whether it can be used again.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Alone { sender, driver } => driver.is_some() && !sender.is_closed(),
            Self::Shared { sender, .. } => !sender.is_closed(),
        }
    }
}

/// A request of HTTP/2 names where it goes in its target (RFC 9113 §8.3.1) and has no fields of a connection.
async fn send_shared(
    sender: &mut http2::SendRequest<Full<Bytes>>,
    (scheme, authority): &(uri::Scheme, uri::Authority),
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Failure> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    (parts.scheme, parts.authority) = (Some(scheme.clone()), Some(authority.clone()));
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::CONNECTION);
    if sender.ready().await.is_err() {
        return Err(Failure::NotSent(Box::new(request)));
    }
    sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
        Some(request) => Failure::NotSent(Box::new(request)),
        None if is_unprocessed(error.error()) => Failure::Unprocessed,
        None => Failure::Broken("connection-broken"),
    })
}

/// Whether the peer has said that it did nothing of a request. `h2` gives the error of a GOAWAY to the streams above its last
/// one; the others go on, and break with the connection when they do.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else { return false };
    error.is_remote() && (error.is_go_away() || error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Waits for something while the connection works.
async fn drive<F: Future>(driver: &mut Option<Pin<Box<Driver>>>, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| {
        advance(driver, cx);
        match future.as_mut().poll(cx) {
            // What the future asked for is done by the connection: once more, without waiting for a wake-up.
            Poll::Pending if driver.is_some() => {
                advance(driver, cx);
                future.as_mut().poll(cx)
            }
            polled => polled,
        }
    })
    .await
}

fn advance(driver: &mut Option<Pin<Box<Driver>>>, cx: &mut Context<'_>) {
    if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
        *driver = None;
    }
}
