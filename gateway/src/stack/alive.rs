//! Peers that are gone without a word: the system asks after them and ends the connection.
//!
//! What waits in silence on purpose (WebSocket, server-sent events, a long poll) has no timeout of its own, and holds a unit
//! of its tier's concurrency.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

/// A silent peer is asked after so long, then so often, and is gone after so many questions.
const ASKED_AFTER: Duration = Duration::from_secs(60);
const ASKED_EVERY: Duration = Duration::from_secs(15);
const ASKED_TIMES: u32 = 4;
/// A peer that does not take what it was sent is gone after this.
const TAKEN_WITHIN: Duration = Duration::from_secs(120);

/// Ends a connection whose peer is gone, two minutes later at most. Connections inherit it from their listener.
pub(crate) fn ends_when_gone(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(ASKED_AFTER).with_interval(ASKED_EVERY).with_retries(ASKED_TIMES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(TAKEN_WITHIN))
}
