//! A service of HTTP/2 that goes away, by its frames (RFC 9113 §4.1): what it says it has not processed is sent again.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::Value;

use crate::run;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM_AND_HEADERS: u8 = 5;
/// `:status: 200`, from the static table of HPACK.
const STATUS_200: &[u8] = &[0x88];
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
const PREFACE_BYTES: usize = 24;

/// What the service does with the requests of its first connection, by its number; on later ones it answers.
#[derive(Clone, Copy)]
enum First {
    /// Waits for so many, answers the first two and says by a GOAWAY that it did nothing of the others.
    GoesAfter(u64),
    /// Refuses each stream.
    Refuses,
}

/// Starts it; where, and how many requests it has answered.
fn start(first: First) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let answered = Arc::<AtomicU64>::default();
    let counted = answered.clone();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let (first, counted) = ((number == 0).then_some(first), counted.clone());
            std::thread::spawn(move || serve(stream, first, &counted));
        }
    });
    (url, answered)
}

fn serve(mut stream: TcpStream, first: Option<First>, answered: &AtomicU64) -> Option<()> {
    stream.read_exact(&mut [0; PREFACE_BYTES]).ok()?;
    send(&mut stream, SETTINGS, 0, 0, &[])?;
    let mut seen = 0;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        stream.read_exact(&mut vec![0; length as usize]).ok()?;
        if kind == SETTINGS && flags & ACK == 0 {
            send(&mut stream, SETTINGS, ACK, 0, &[])?;
        }
        if kind != HEADERS {
            continue;
        }
        seen += 1;
        match first {
            None => answer(&mut stream, id, answered)?,
            Some(First::Refuses) => send(&mut stream, RST_STREAM, 0, id, &REFUSED_STREAM)?,
            Some(First::GoesAfter(count)) if seen == count => {
                let last = 3u32.to_be_bytes();
                send(&mut stream, GOAWAY, 0, 0, &[&last[..], &[0; 4]].concat())?;
                answer(&mut stream, 1, answered)?;
                answer(&mut stream, 3, answered)?;
            }
            Some(First::GoesAfter(_)) => {}
        }
    }
}

fn answer(stream: &mut TcpStream, id: u32, answered: &AtomicU64) -> Option<()> {
    answered.fetch_add(1, Ordering::SeqCst);
    send(stream, HEADERS, END_STREAM_AND_HEADERS, id, STATUS_200)
}

fn send(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> Option<()> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &id.to_be_bytes()].concat();
    stream.write_all(&[&head, payload].concat()).ok()
}

/// A hundred requests: each is answered once, and what was sent again is told.
fn each_is_served_once(first: First, at_least: u64) {
    let (url, answered) = start(first);
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("result.json");
    let out_name = out.display().to_string();
    let words = ["run", &url, "--rate", "100/s", "--seconds", "1", "--quiet", "--http2", "--threads", "1"];
    let (_, text) = run(&[&words[..], &["--send-within", "60s", "--out", &out_name]].concat());
    let result = std::fs::read_to_string(&out).unwrap_or_else(|error| panic!("{error}: {text}"));
    let result: Value = serde_json::from_str(&result).expect("JSON");
    let outcomes = result["outcomes"].as_array().expect("outcomes");
    assert_eq!(
        (outcomes.len(), &outcomes[0]["outcome"], &outcomes[0]["count"]),
        (1, &"200".into(), &100.into()),
        "{text}"
    );
    let resent = result["counts"]["resent"].as_u64().expect("a count");
    assert!(resent >= at_least && text.contains("sent again"), "{resent}: {text}");
    assert_eq!(answered.load(Ordering::SeqCst), 100);
}

#[test]
fn streams_above_the_last_one_of_a_goaway_are_sent_again_and_counted() {
    each_is_served_once(First::GoesAfter(5), 3);
}

#[test]
fn refused_streams_are_sent_again_and_counted() {
    // Its only connection refuses for as long as it is used: such a client gives up after ten times.
    let (url, _) = start(First::Refuses);
    let (_, text) =
        run(&["run", &url, "--rate", "1/s", "--seconds", "1", "--quiet", "--http2", "--send-within", "60s"]);
    assert!(text.contains("10 sent again") && text.contains("connection-broken"), "{text}");
}
