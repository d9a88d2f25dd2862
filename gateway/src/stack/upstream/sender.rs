//! Sends requests on a connection, whichever protocol it speaks.

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};

use crate::stack::{Inbound, Upload};

/// A connection's sender.
#[derive(Debug)]
pub(crate) enum Sender<B: Inbound> {
    /// One request at a time.
    Http1(http1::SendRequest<Upload<B>>),
    /// Many, each on a stream.
    Http2(http2::SendRequest<Upload<B>>),
}

impl<B: Inbound> Sender<B> {
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// Can take a request now.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    /// Many requests use it at once.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Another one for the same connection, where it can have several.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Upload<B>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload<B>>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}
