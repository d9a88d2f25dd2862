//! Connections to an upstream that are slow to come.

use std::{net::SocketAddr, time::Duration};

use socket2::{Domain, Socket, Type};
use store::model::Target;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use super::harness::{read_until, request, rig_with, status};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Sockets of this network that have asked a port for a connection and were not answered (`SYN_SENT`).
fn asking(port: u16) -> usize {
    let text = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let words = |line: &str| line.split_whitespace().skip(2).take(2).map(str::to_owned).collect::<Vec<_>>();
    let wanted = [format!("0100007F:{port:04X}"), "02".to_owned()];
    text.lines().filter(|line| words(line) == wanted).count()
}

/// In a rolling restart two thousand requests waited for a new leader, and then all at once for connections: the upstream's
/// listen queue was full, the kernel asked again after a second, and some were answered 502 after two while hundreds of
/// connections were idle.
#[tokio::test]
async fn a_request_whose_connection_does_not_come_takes_one_that_is_given_back() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("nonblocking");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    // One connection waits for `accept`; to ask for another is not answered.
    socket.listen(0).expect("listens");
    let listener = TcpListener::from_std(socket.into()).expect("a listener");
    let addr = listener.local_addr().expect("bound");
    let rig = rig_with(
        Vec::new(),
        |_| {},
        |_, upstream| {
            upstream.targets = vec![Target { url: format!("http://{addr}"), weight: 1 }];
            upstream.connect_timeout_ms = Some(600_000);
        },
    )
    .await;
    let get = request("GET", "/", &rig.key, "", "");

    let mut first = rig.connect().await;
    first.write_all(get.as_bytes()).await.expect("write");
    let (mut upstream, _) = listener.accept().await.expect("accept");
    read_until(&mut upstream, "\r\n\r\n").await;
    let _queued = TcpStream::connect(addr).await.expect("the queue is empty");
    let mut second = rig.connect().await;
    second.write_all(get.as_bytes()).await.expect("write");
    let asked = async {
        while asking(addr.port()) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("it asks for a connection");

    upstream.write_all(ANSWER).await.expect("write");
    assert_eq!(status(&read_until(&mut first, "ok").await), 200);
    let again = tokio::time::timeout(Duration::from_secs(60), async {
        while upstream.readable().await.is_ok() {
            let mut bytes = [0; 4096];
            match upstream.try_read(&mut bytes) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(_) => {}
            }
        }
        false
    });
    assert!(again.await.expect("it takes the connection that the first one has given back"));
    upstream.write_all(ANSWER).await.expect("write");
    assert_eq!(status(&read_until(&mut second, "ok").await), 200);
}
