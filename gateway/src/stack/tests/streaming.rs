//! Answers that are long or never end, both ways, with bounded memory.

use std::time::{Duration, Instant};

use store::model::{Completion, KeyState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::harness::{Act, ok, read_all, read_until, request, rig, rig_with, status, write};

#[tokio::test]
async fn answer_of_64_kib_is_one_row_and_one_byte_more_is_two() {
    for (bytes, rows) in [(65_536, 1), (65_537, 2)] {
        let rig = rig(ok(&"x".repeat(bytes))).await;
        let answer = rig.get("/", "").await;
        assert!(answer.len() > bytes);
        let found = rig.ledger.wait_for_rows(rows).await;
        assert_eq!(found.len(), rows);
        let last = &found[rows - 1];
        assert_eq!((last.bytes_out, last.completion), (bytes as u64, Completion::Complete));
        if rows == 2 {
            assert_eq!((found[0].completion, found[0].settles), (Completion::Open, false));
            assert_eq!((last.settles, last.request_id), (true, found[0].request_id));
            assert_eq!((found[0].charges.len(), last.charges.len()), (2, 0));
        }
    }
}

#[tokio::test]
async fn chunked_answer_that_ends_soon_is_whole() {
    let rig =
        rig(vec![write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")])
            .await;
    assert!(rig.get("/", "").await.ends_with("abcdef"));
    let row = rig.ledger.row().await;
    assert_eq!((row.bytes_out, row.completion), (6, Completion::Complete));
}

#[tokio::test]
async fn events_flow_at_once_and_end_with_a_settling_record() {
    // Held for its end it would take 250 ms each time; a busy machine is slow now and then.
    let mut tries = 0;
    let (rig, mut stream) = loop {
        let rig = rig(vec![
            write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"),
            write("9\r\ndata: 1\n\n\r\n"),
            Act::Hold,
            write("9\r\ndata: 2\n\n\r\n0\r\n\r\n"),
        ])
        .await;
        let mut stream = rig.connect().await;
        let start = Instant::now();
        let request = request("GET", "/", &rig.key, "Connection: close\r\n", "");
        stream.write_all(request.as_bytes()).await.expect("write");
        read_until(&mut stream, "data: 1").await;
        tries += 1;
        if start.elapsed() < Duration::from_millis(200) {
            break (rig, stream);
        }
        assert!(tries < 20, "{:?}", start.elapsed());
    };
    let row = rig.ledger.row().await;
    assert_eq!(row.completion, Completion::Open);
    rig.go_on.notify_one();
    assert!(read_all(&mut stream).await.contains("data: 2"));
    let rows = rig.ledger.wait_for_rows(2).await;
    assert_eq!((rows[1].completion, rows[1].bytes_out, rows[1].settles), (Completion::Complete, 18, true));
    assert!(rows[1].duration_us > rows[0].duration_us);
}

#[tokio::test]
async fn answer_of_unknown_length_that_pauses_is_streamed() {
    let rig = rig(vec![
        write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        Act::Hold,
        write("0\r\n\r\n"),
    ])
    .await;
    let mut stream = rig.connect().await;
    stream.write_all(request("GET", "/", &rig.key, "Connection: close\r\n", "").as_bytes()).await.expect("write");
    read_until(&mut stream, "abc").await;
    rig.go_on.notify_one();
    read_all(&mut stream).await;
    assert_eq!(rig.ledger.wait_for_rows(2).await[1].completion, Completion::Complete);
}

#[tokio::test]
async fn revoked_key_ends_its_stream() {
    let rig = rig_with(
        vec![
            write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n"),
            Act::Wait(Duration::from_secs(60)),
        ],
        |settings| settings.timeouts.recheck = Duration::from_millis(100),
        |_, _| {},
    )
    .await;
    let mut stream = rig.connect().await;
    stream.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
    read_until(&mut stream, "data: 1").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.ledger.rows().len(), 1);
    rig.ledger.set_state(&rig.key, KeyState::Revoked);
    read_all(&mut stream).await;
    assert_eq!(rig.ledger.wait_for_rows(2).await[1].completion, Completion::ClientAbort);
}

#[tokio::test]
async fn websocket_is_passed_through_and_settled_at_its_end() {
    let mut rig = rig(vec![
        write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Ws: 1\r\n\r\n"),
        Act::Echo,
    ])
    .await;
    let mut stream = rig.connect().await;
    let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    stream.write_all(request("GET", "/ws", &rig.key, headers, "").as_bytes()).await.expect("write");
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(status(&head), 101, "{head}");
    assert!(head.to_lowercase().contains("upgrade: websocket") && head.contains("x-ws: 1"), "{head}");
    let got = rig.got().await;
    assert_eq!((got.header("upgrade"), got.header("connection")), (Some("websocket"), Some("upgrade")));
    assert_eq!(rig.ledger.row().await.completion, Completion::Open);
    for word in ["hello", "again"] {
        stream.write_all(word.as_bytes()).await.expect("write");
        read_until(&mut stream, word).await;
    }
    stream.shutdown().await.expect("shut down");
    read_all(&mut stream).await;
    let rows = rig.ledger.wait_for_rows(2).await;
    assert_eq!((rows[1].status, rows[1].bytes_out, rows[1].completion), (101, 10, Completion::Complete));
    assert!(rows[1].settles);
}

#[tokio::test]
async fn no_other_protocol_gets_a_tunnel() {
    let changes =
        |to: &str| write(&format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\r\n"));
    for (asked, answered) in [
        ("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", "h2c"),
        ("Upgrade: h2c\r\n", "websocket"),
        ("Upgrade: foo/2, websocket\r\n", "foo/2"),
        ("Upgrade: websocket\r\nUpgrade: h2c\r\n", "h2c"),
        // Asked for what is let through, and answered with another.
        ("Upgrade: websocket\r\n", "h2c"),
    ] {
        let mut rig = rig(vec![changes(answered), Act::Echo]).await;
        let headers = format!("Connection: Upgrade, HTTP2-Settings\r\n{asked}");
        let answer = rig.send(&request("GET", "/", &rig.key, &format!("{headers}Connection: close\r\n"), "")).await;
        assert_eq!(status(&answer), 502, "{asked:?}: {answer}");
        let got = rig.got().await;
        let asks = got.header("upgrade").or(got.header("http2-settings"));
        assert_eq!(asks, (asked == "Upgrade: websocket\r\n").then_some("websocket"), "{asked:?}");
        let row = rig.ledger.row().await;
        assert_eq!((row.status, row.completion), (502, Completion::UpstreamAbort));
    }
}

/// Bytes of one direction in the test below.
const LARGE: usize = 100 * 1024 * 1024;

#[tokio::test]
async fn hundred_megabytes_go_both_ways_with_bounded_memory() {
    let rig = {
        // An upstream of its own, that reads all and then writes as much, without keeping either.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut buffer = vec![0; 64 * 1024];
            let mut left = LARGE;
            let mut head = Vec::new();
            while left > 0 {
                let read = stream.read(&mut buffer).await.expect("read");
                let mut body = read;
                if !head.ends_with(b"done") {
                    head.extend_from_slice(&buffer[..read]);
                    let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                    body = head.len() - end - 4;
                    head = b"done".to_vec();
                }
                left -= body;
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("write");
            for _ in 0..LARGE / buffer.len() {
                stream.write_all(&buffer).await.expect("write");
            }
        });
        rig_with(ok(""), |_| {}, |_, upstream| upstream.targets[0].url = format!("http://{addr}")).await
    };
    let (mut read, mut write) = rig.connect().await.into_split();
    let head = request("POST", "/", &rig.key, &format!("Connection: close\r\nContent-Length: {LARGE}\r\n"), "");
    let before = resident_bytes();
    let writer = tokio::spawn(async move {
        write.write_all(head.as_bytes()).await.expect("write");
        let chunk = vec![7; 64 * 1024];
        for _ in 0..LARGE / chunk.len() {
            write.write_all(&chunk).await.expect("write");
        }
        write
    });
    let (mut total, mut most) = (0, before);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match read.read(&mut buffer).await.expect("read") {
            0 => break,
            bytes => total += bytes,
        }
        // A client slower than its upstream: what is in between must not grow.
        if total % (8 * 1024 * 1024) < 64 * 1024 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            most = most.max(resident_bytes());
        }
    }
    drop(writer.await.expect("written"));
    assert!(total > LARGE);
    let rows = rig.ledger.wait_for_rows(2).await;
    assert_eq!((rows[0].bytes_in, rows[1].bytes_out), (LARGE as u64, LARGE as u64));
    assert_eq!(rows[1].completion, Completion::Complete);
    // Other tests run beside this one; the bound is far below the body all the same.
    assert!(most < before + 32 * 1024 * 1024, "{before} -> {most} bytes");
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    pages.split(' ').nth(1).and_then(|text| text.parse::<usize>().ok()).expect("a number") * 4096
}
