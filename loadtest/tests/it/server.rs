//! A small HTTP/1.1 server: threads and blocking sockets, so that nothing of it is the tool's own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) key: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// A server and what it has seen.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) connections: Arc<AtomicU64>,
}

/// Status and headers of an answer, and how long it takes.
pub(crate) type Answer = (u16, &'static str, Duration);

impl Server {
    /// Starts one that answers by the number of the request and the request.
    pub(crate) fn start(answer: impl Fn(u64, &Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = Self { url, seen: Arc::default(), connections: Arc::default() };
        let (shared, answer) = (server.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let (shared, answer) = (shared.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &shared, &*answer));
            }
        });
        server
    }

    /// One that answers 200 at once.
    pub(crate) fn instant() -> Self {
        Self::start(|_, _| (200, "", Duration::ZERO))
    }

    /// As if nothing had come yet.
    pub(crate) fn forget(&self) {
        self.seen.lock().expect("not poisoned").clear();
        self.connections.store(0, Ordering::Relaxed);
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

fn serve(stream: TcpStream, server: &Server, answer: &dyn Fn(u64, &Seen) -> Answer) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let mut seen =
            Seen { at: Instant::now(), method: words.next()?, path: words.next()?, key: None, body: Vec::new() };
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let Some((name, value)) = header.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().ok()?,
                "authorization" => seen.key = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        seen.body = vec![0; length];
        reader.read_exact(&mut seen.body).ok()?;
        let number = {
            let mut all = server.seen.lock().expect("not poisoned");
            all.push(seen.clone());
            all.len() as u64 - 1
        };
        let (status, headers, wait) = answer(number, &seen);
        std::thread::sleep(wait);
        let body = "{}";
        if headers.contains("x-close") {
            // Without a word before: the client finds it out by itself.
            let _ = write!(writer, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            return None;
        }
        write!(writer, "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).ok()?;
    }
}
