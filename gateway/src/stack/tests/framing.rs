//! Requests on the wire that are ambiguous, broken or slow.

use std::time::Duration;

use store::model::Outlier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{body, ok, problem, read_all, read_until, request, rig, rig_with, status};

#[tokio::test]
async fn ambiguous_framing_is_400_and_goes_nowhere() {
    let rig = rig(ok("")).await;
    let key = format!("X-API-Key: {}\r\n", rig.key);
    let cases = [
        // Both framings, in either order.
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nKEY\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\ncontent-length: 5\r\nKEY\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYContent-Length: 5, 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYContent-Length: +5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYContent-Length: -1\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding: gzip\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b/@c\r\nKEY\r\n",
        // Spellings that one reader takes for chunked and another does not.
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding:\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding:\tchunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        // Lengths that are no numbers, or too large for one.
        "POST / HTTP/1.1\r\nHost: a\r\nKEYContent-Length: 0x5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYContent-Length: 1 0\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYContent-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nKEYContent-Length: 99999999999999999999999\r\n\r\nhello",
        // Bytes that end a line elsewhere, other versions, another kind of proxy.
        "GET / HTTP/1.1\r\nHost: a\r\nKEYX-A: b\x00c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nKEYX-\rA: b\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\nKEY\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\nKEY\r\n",
        "GET /\r\nHost: a\r\nKEY\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\nKEY\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\nKEY\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nKEY\r\n",
        "GET /v3/%2e%2e%2fadmin HTTP/1.1\r\nHost: a\r\nKEY\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nKEYTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        // A folded line, a space before the colon, a bare CR, a missing colon.
        "GET / HTTP/1.1\r\nHost: a\r\nKEYX-Fold: one\r\n two\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nKEYContent-Length : 0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nKEYX-Bare: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nKEYnonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nKEY\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nKEY\r\n",
        "GET /../admin HTTP/1.1\r\nHost: a\r\nKEY\r\n",
        "GET /\x01 HTTP/1.1\r\nHost: a\r\nKEY\r\n",
        "GET /two spaces HTTP/1.1\r\nHost: a\r\nKEY\r\n",
        // Longer than any method is: rows keep it.
        "AMETHODOFMORETHANTHIRTYTWOLETTERS / HTTP/1.1\r\nHost: a\r\nKEY\r\n",
    ];
    for case in cases {
        let request = case.replace("KEY", &key);
        // What hyper itself refuses has no body; what the chain refuses is a problem. The connection may stay open.
        let request = request.replacen("Host: a\r\n", "Host: a\r\nConnection: close\r\n", 1);
        let mut stream = rig.connect().await;
        stream.write_all(request.as_bytes()).await.expect("write");
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(status(&answer), 400, "{case:?}: {answer}");
    }
    assert_eq!(rig.accepted(), 0, "an upstream was called");
    assert_eq!(rig.ledger.rows(), []);
}

#[tokio::test]
async fn both_framings_are_seen_on_a_connection_that_is_kept_and_in_pieces() {
    let rig = rig(ok("hi")).await;
    let mut stream = rig.connect().await;
    for _ in 0..3 {
        stream
            .write_all(request("POST", "/", &rig.key, "Content-Length: 5\r\n", "hello").as_bytes())
            .await
            .expect("write");
        assert_eq!(status(&read_until(&mut stream, "hi").await), 200);
    }
    let both = request("POST", "/", &rig.key, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n");
    for piece in both.as_bytes().chunks(7) {
        stream.write_all(piece).await.expect("write");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answer = read_all(&mut stream).await;
    assert_eq!(status(&answer), 400, "{answer}");
    assert_eq!(problem(&answer)["code"], "bad-request");
    assert_eq!(rig.ledger.rows().len(), 3);
}

#[tokio::test]
async fn chunked_body_may_speak_of_content_length_itself() {
    let mut rig = rig(ok("hi")).await;
    let mut stream = rig.connect().await;
    for _ in 0..3 {
        let part = "\r\nContent-Length: 5\r\n\r\nPOST / HTTP/1.1\r\n";
        let chunk = format!("{:x}\r\n{part}\r\n0\r\n\r\n", part.len());
        let request = request("POST", "/", &rig.key, "Transfer-Encoding: chunked\r\n", &chunk);
        stream.write_all(request.as_bytes()).await.expect("write");
        assert_eq!(status(&read_until(&mut stream, "hi").await), 200);
        assert_eq!(rig.got().await.body, part.as_bytes());
    }
}

#[tokio::test]
async fn broken_chunks_are_400_and_have_a_row() {
    let rig = rig(ok("")).await;
    for chunks in ["zz\r\nhello\r\n0\r\n\r\n", "5\r\nhelloworld\r\n0\r\n\r\n", "fffffffffffffffff\r\n"] {
        let headers = "Connection: close\r\nTransfer-Encoding: chunked\r\n";
        let answer = rig.send(&request("POST", "/", &rig.key, headers, chunks)).await;
        assert_eq!(status(&answer), 400, "{chunks:?}: {answer}");
    }
    assert!(rig.ledger.rows().iter().all(|row| row.status == 400));
    assert_eq!(rig.ledger.rows().len(), 3);
}

#[tokio::test]
async fn heads_that_are_too_large_are_431() {
    let rig = rig(ok("")).await;
    let answer = rig.get("/", &format!("X-Large: {}\r\n", "x".repeat(40_000))).await;
    assert_eq!(status(&answer), 431, "{answer}");
    let many: String = (0..120).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(status(&rig.get("/", &many).await), 431);
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed_but_not_busy_ones() {
    let rig = rig_with(
        vec![super::harness::Act::Wait(Duration::from_millis(3_500)), ok("late").remove(0)],
        |settings| {
            settings.timeouts.header_read = Duration::from_secs(1);
            settings.timeouts.keep_alive = Duration::from_secs(1);
        },
        |_, _| {},
    )
    .await;
    let mut slow = rig.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.expect("write");
    let mut idle = rig.connect().await;
    let mut busy = rig.connect().await;
    busy.write_all(request("GET", "/", &rig.key, "Connection: close\r\n", "").as_bytes()).await.expect("write");
    assert_eq!(read_all(&mut slow).await, "");
    assert_eq!(read_all(&mut idle).await, "");
    assert_eq!(body(&read_all(&mut busy).await), "late");
}

#[tokio::test]
async fn body_that_stalls_is_408_and_has_a_row() {
    let rig = rig_with(ok(""), |settings| settings.timeouts.body_read = Duration::from_millis(100), |_, _| {}).await;
    let answer = rig.send(&request("POST", "/", &rig.key, "Content-Length: 9\r\n", "four")).await;
    assert_eq!(status(&answer), 408, "{answer}");
    let row = rig.ledger.row().await;
    assert_eq!((row.status, row.bytes_in), (408, 4));
}

/// A body that never stops for long enough to be called silent held a connection, a call and a unit of concurrency for as long
/// as its client liked, whatever the route's total time; and a pause in it counted as the upstream's being late, so that
/// slow clients had healthy targets ejected.
#[tokio::test]
async fn a_body_that_trickles_ends_with_the_routes_total_time_and_is_not_the_targets_fault() {
    let rig = rig_with(
        ok("done"),
        |_| {},
        |route, upstream| {
            route.timeout_ms = Some(100);
            route.total_timeout_ms = Some(1_500);
            upstream.outlier = Some(Outlier { failures: 1, eject_ms: 600_000, max_percent: 100 });
        },
    )
    .await;
    let mut stream = rig.connect().await;
    let head = request("POST", "/", &rig.key, "Connection: close\r\nContent-Length: 1000000\r\n", "");
    stream.write_all(head.as_bytes()).await.expect("write");
    let (mut answer, mut write) = stream.split();
    let trickle = async {
        // Until the gateway has closed its side.
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let mut text = String::new();
    let read = answer.read_to_string(&mut text);
    tokio::select! {
        () = trickle => {}
        _ = tokio::time::timeout(Duration::from_secs(30), read) => {}
    }
    assert_eq!(status(&text), 408, "{text:?}");
    assert_eq!(problem(&text)["code"], "request-timeout");
    assert_eq!(rig.ledger.row().await.status, 408);
    // The upstream is as good as before.
    assert_eq!(body(&rig.get("/", "").await), "done");
}

#[tokio::test]
async fn a_clients_pause_is_not_the_upstreams_being_late() {
    let rig = rig_with(ok("done"), |_| {}, |route, _| route.timeout_ms = Some(1_000)).await;
    let mut stream = rig.connect().await;
    let head = request("POST", "/", &rig.key, "Connection: close\r\nContent-Length: 9\r\n", "four");
    stream.write_all(head.as_bytes()).await.expect("write");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    stream.write_all(b" more").await.expect("write");
    assert_eq!(body(&read_all(&mut stream).await), "done");
}

#[tokio::test]
async fn expectation_is_met_here_and_only_when_the_body_is_wanted() {
    let mut rig = rig(ok("done")).await;
    let mut stream = rig.connect().await;
    let headers = "Expect: 100-continue\r\nContent-Length: 5\r\n";
    stream.write_all(request("POST", "/", &rig.key, headers, "").as_bytes()).await.expect("write");
    assert_eq!(status(&read_until(&mut stream, "\r\n\r\n").await), 100);
    stream.write_all(b"hello").await.expect("write");
    assert_eq!(status(&read_until(&mut stream, "done").await), 200);
    let got = rig.got().await;
    assert_eq!((got.body.as_slice(), got.header("expect")), (b"hello".as_slice(), None));

    rig.ledger.deny(store::lease::Policy::Rate);
    let answer = rig.send(&request("POST", "/", &rig.key, headers, "")).await;
    assert_eq!(status(&answer), 429, "{answer}");
}
