//! A gateway of one core with one route to an upstream that does as it is told, and a client on a bare socket.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use store::model::{Route, Target, Upstream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::double::Double;
use crate::stack::{Handle, Server, Settings};

/// A request as the upstream got it.
#[derive(Debug, Clone)]
pub(super) struct Got {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).take_while(|line| !line.is_empty()).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// What the upstream does with each request.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Writes these bytes and goes on.
    Write(Vec<u8>),
    /// Does nothing for a while.
    Wait(Duration),
    /// Waits until the test says so.
    Hold,
    /// Sends every byte back that comes from now on.
    Echo,
    /// Closes the connection.
    Close,
    /// Resets it.
    Reset,
}

pub(super) fn write(text: &str) -> Act {
    Act::Write(text.as_bytes().to_vec())
}

pub(super) fn ok(body: &str) -> Vec<Act> {
    vec![write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-from: upstream\r\n\r\n{body}", body.len()))]
}

/// The whole rig.
pub(super) struct Rig {
    pub(super) addr: SocketAddr,
    pub(super) ledger: Double,
    pub(super) key: String,
    pub(super) got: mpsc::UnboundedReceiver<Got>,
    pub(super) accepted: Arc<AtomicUsize>,
    pub(super) go_on: Arc<tokio::sync::Notify>,
    pub(super) upstream: Upstream,
    pub(super) handle: Option<Handle>,
}

pub(super) async fn rig(acts: Vec<Act>) -> Rig {
    rig_with(acts, |_| {}, |_, _| {}).await
}

pub(super) async fn rig_with(
    acts: Vec<Act>,
    settings: impl FnOnce(&mut Settings),
    routing: impl FnOnce(&mut Route, &mut Upstream),
) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream_addr = listener.local_addr().expect("bound");
    let (sender, got) = mpsc::unbounded_channel();
    let (accepted, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
    tokio::spawn(upstream(listener, acts, sender, accepted.clone(), go_on.clone()));

    let ledger = Double::default();
    let key = ledger.add_key(|_, _| {});
    let mut route = Route { name: "scan".into(), upstream: "scan".into(), ..Route::default() };
    let target = Target { url: format!("http://{upstream_addr}"), weight: 1 };
    let mut upstream = Upstream { name: "scan".into(), targets: vec![target], ..Upstream::default() };
    routing(&mut route, &mut upstream);
    ledger.add_route(route, upstream.clone());

    let mut wanted = Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        cores: 1,
        node: "n1".into(),
        region: "eu".into(),
        ..Settings::default()
    };
    settings(&mut wanted);
    let handle = Server::start(wanted, &Arc::new(ledger.clone())).expect("start");
    Rig { addr: handle.local_addr(), ledger, key, got, accepted, go_on, upstream, handle: Some(handle) }
}

impl Rig {
    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("connect")
    }

    /// One request on a connection of its own; the whole answer as text.
    pub(super) async fn send(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.expect("write");
        read_all(&mut stream).await
    }

    /// A GET with the rig's key, closing the connection.
    pub(super) async fn get(&self, path: &str, headers: &str) -> String {
        self.send(&request("GET", path, &self.key, &format!("Connection: close\r\n{headers}"), "")).await
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(super) async fn got(&mut self) -> Got {
        tokio::time::timeout(Duration::from_secs(5), self.got.recv()).await.expect("in time").expect("a request")
    }
}

pub(super) fn request(method: &str, path: &str, key: &str, headers: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: api.test:8080\r\nX-API-Key: {key}\r\n{headers}\r\n{body}")
}

pub(super) async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    // A reset after the answer is an end as well.
    let _ = read.expect("the answer ends in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until the text has come.
pub(super) async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if String::from_utf8_lossy(&answer).contains(text) {
            return String::from_utf8_lossy(&answer).into_owned();
        }
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("{text:?} in time, got {:?}", String::from_utf8_lossy(&answer)));
        match read.expect("read") {
            0 => panic!("{text:?} before the end, got {:?}", String::from_utf8_lossy(&answer)),
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
}

pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no status: {answer:?}"))
}

pub(super) fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

pub(super) fn problem(answer: &str) -> serde_json::Value {
    assert_eq!(header(answer, "content-type"), Some("application/problem+json"), "{answer}");
    serde_json::from_str(body(answer)).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

async fn upstream(
    listener: TcpListener,
    acts: Vec<Act>,
    sender: mpsc::UnboundedSender<Got>,
    accepted: Arc<AtomicUsize>,
    go_on: Arc<tokio::sync::Notify>,
) {
    loop {
        let (mut stream, _) = listener.accept().await.expect("accept");
        accepted.fetch_add(1, Ordering::SeqCst);
        let (acts, sender, go_on) = (acts.clone(), sender.clone(), go_on.clone());
        tokio::spawn(async move {
            let mut buffered = Vec::new();
            while let Some(got) = read_request(&mut stream, &mut buffered).await {
                let _ = sender.send(got);
                for act in &acts {
                    match act {
                        Act::Write(bytes) => {
                            if stream.write_all(bytes).await.is_err() {
                                return;
                            }
                        }
                        Act::Wait(time) => tokio::time::sleep(*time).await,
                        Act::Hold => go_on.notified().await,
                        Act::Echo => {
                            let (mut read, mut write) = stream.split();
                            let _ = tokio::io::copy(&mut read, &mut write).await;
                            return;
                        }
                        Act::Close => return,
                        Act::Reset => {
                            let socket = socket2::SockRef::from(&stream);
                            socket.set_linger(Some(Duration::ZERO)).expect("linger");
                            return;
                        }
                    }
                }
            }
        });
    }
}

/// Head and body, by length or by chunks.
async fn read_request(stream: &mut TcpStream, buffered: &mut Vec<u8>) -> Option<Got> {
    let end = loop {
        if let Some(place) = find(buffered, b"\r\n\r\n") {
            break place + 4;
        }
        fill(stream, buffered).await?;
    };
    let head = String::from_utf8_lossy(&buffered[..end]).into_owned();
    buffered.drain(..end);
    let mut body = Vec::new();
    if header(&head, "transfer-encoding") == Some("chunked") {
        loop {
            let line = loop {
                if let Some(place) = find(buffered, b"\r\n") {
                    break place;
                }
                fill(stream, buffered).await?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&buffered[..line]).ok()?, 16).ok()?;
            buffered.drain(..line + 2);
            while buffered.len() < size + 2 {
                fill(stream, buffered).await?;
            }
            body.extend(buffered.drain(..size));
            buffered.drain(..2);
            if size == 0 {
                break;
            }
        }
    } else {
        let length = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while buffered.len() < length {
            fill(stream, buffered).await?;
        }
        body.extend(buffered.drain(..length));
    }
    Some(Got { head, body })
}

async fn fill(stream: &mut TcpStream, buffered: &mut Vec<u8>) -> Option<()> {
    buffered.reserve(64 * 1024);
    let read = stream.read_buf(buffered).await.ok()?;
    (read > 0).then_some(())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
