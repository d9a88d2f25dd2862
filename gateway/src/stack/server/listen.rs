//! Listeners: one a core on the same address, between which the kernel shares out connections (SO_REUSEPORT).

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::stack::alive;

/// Connections that wait to be accepted, a listener.
const BACKLOG: i32 = 1_024;
/// Ports that are tried where any will do.
const ATTEMPTS: usize = 16;

/// Binds `count` listeners to one address.
///
/// # Errors
/// The system's, `AddrInUse` also when another process of ours has the port: sharing it would be silent otherwise.
pub(super) fn bind(addr: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut left = ATTEMPTS;
    loop {
        // Without SO_REUSEPORT the kernel refuses a port that is taken, whoever has it and however.
        let probe = socket(addr, false)?;
        let found = match addr.port() {
            0 => probe.local_addr()?.as_socket().unwrap_or(addr),
            _ => addr,
        };
        drop(probe);
        let bound: io::Result<Vec<_>> = (0..count).map(|_| socket(found, true).map(TcpListener::from)).collect();
        left -= 1;
        match bound {
            // Somebody took it in between; any other port is as good.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && addr.port() == 0 && left > 0 => {}
            bound => return bound,
        }
    }
}

fn socket(addr: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    alive::ends_when_gone(&(&socket).into())?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_inherit_that_gone_peers_are_asked_after() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).expect("a free port").remove(0);
        let _client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        listener.set_nonblocking(false).expect("waits");
        let (stream, _) = listener.accept().expect("accepts");
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().expect("reads"));
        assert_eq!(socket.tcp_keepalive_time().expect("reads").as_secs(), 60);
        assert_eq!(socket.tcp_user_timeout().expect("reads").map(|timeout| timeout.as_secs()), Some(120));
    }

    #[test]
    fn port_in_use_is_refused_although_ports_are_shared() {
        let listeners = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 2).expect("a free port");
        let addr = listeners[0].local_addr().expect("bound");
        assert_eq!(listeners[1].local_addr().expect("bound"), addr);
        assert_eq!(bind(addr, 2).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        bind(addr, 1).expect("free again");
    }
}
