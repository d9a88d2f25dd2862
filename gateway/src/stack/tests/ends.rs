//! Requests that end badly still have their rows; a drain loses none.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use store::model::{Completion, Outcome};
use tokio::io::AsyncWriteExt;

use super::harness::{Act, body, header, ok, problem, read_all, read_until, request, rig, status, write};
use crate::stack::{Server, Settings, StartError};

#[tokio::test]
async fn client_that_hangs_up_before_the_answer_has_a_row() {
    let mut rig = rig(vec![Act::Hold]).await;
    let mut stream = rig.connect().await;
    stream.write_all(request("POST", "/", &rig.key, "Content-Length: 2\r\n", "hi").as_bytes()).await.expect("write");
    rig.got().await;
    drop(stream);
    let row = rig.ledger.row().await;
    assert_eq!((row.outcome, row.completion), (Outcome::Admitted, Completion::ClientAbort));
    assert_eq!((row.status, row.bytes_in, row.charges.len()), (499, 2, 2));
    assert_eq!(rig.ledger.0.in_use.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn client_that_hangs_up_in_the_middle_of_a_long_answer_is_settled() {
    let large = "x".repeat(1024 * 1024);
    let mut acts = vec![write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 * large.len()))];
    acts.extend(std::iter::repeat_n(write(&large), 64));
    let rig = rig(acts).await;
    let mut stream = rig.connect().await;
    stream.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
    read_until(&mut stream, "xxxx").await;
    drop(stream);
    let rows = rig.ledger.wait_for_rows(2).await;
    assert_eq!((rows[1].completion, rows[1].settles), (Completion::ClientAbort, true));
    assert!(rows[1].bytes_out > 0 && rows[1].bytes_out < 64 * large.len() as u64);
}

#[tokio::test]
async fn upstream_that_dies_in_a_short_answer_is_502() {
    for end in [Act::Close, Act::Reset] {
        let rig = rig(vec![write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"), end]).await;
        let answer = rig.get("/", "").await;
        assert_eq!(status(&answer), 502, "{answer}");
        assert_eq!(problem(&answer)["code"], "upstream-unreachable");
        let row = rig.ledger.row().await;
        assert_eq!((row.completion, row.status, row.cost), (Completion::UpstreamAbort, 502, 1));
        assert_eq!((row.charges.len(), rig.ledger.0.refunded.load(Ordering::SeqCst)), (2, 0));
    }
}

#[tokio::test]
async fn upstream_that_dies_in_a_long_answer_breaks_it_off_and_is_settled() {
    let half = "x".repeat(100_000);
    let rig = rig(vec![write("HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n"), write(&half), Act::Close]).await;
    let answer = rig.get("/", "").await;
    assert_eq!(status(&answer), 200);
    assert!(body(&answer).len() < 200_000);
    let rows = rig.ledger.wait_for_rows(2).await;
    assert_eq!((rows[1].completion, rows[1].settles), (Completion::UpstreamAbort, true));
    assert_eq!(rows[1].bytes_out, 100_000);
}

#[tokio::test]
async fn upstream_that_resets_before_its_answer_is_502_and_charged() {
    let rig = rig(vec![Act::Reset]).await;
    let answer = rig.send(&request("POST", "/", &rig.key, "Connection: close\r\nContent-Length: 2\r\n", "hi")).await;
    assert_eq!(status(&answer), 502, "{answer}");
    let row = rig.ledger.row().await;
    assert_eq!((row.outcome, row.completion), (Outcome::UpstreamUnreachable, Completion::UpstreamAbort));
    assert_eq!((row.bytes_in, row.charges.len()), (2, 2));
    assert_eq!(rig.accepted(), 1, "a request that may have been executed was sent again");
}

#[tokio::test]
async fn a_server_that_leaves_ends_connections_after_an_answer_and_takes_new_ones() {
    let rig = rig(ok("hi")).await;
    let mut kept = rig.connect().await;
    kept.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
    read_until(&mut kept, "hi").await;
    rig.handle.as_ref().expect("running").leave(Duration::ZERO);
    // Its cores hear of it a moment later; until then a connection serves on as before.
    let last_answer = async |stream: &mut tokio::net::TcpStream| {
        let told = async {
            loop {
                stream.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
                let answer = read_until(stream, "hi").await;
                assert_eq!(status(&answer), 200, "{answer}");
                if header(&answer, "connection") == Some("close") {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), told).await.expect("it is asked to go");
        assert_eq!(read_all(stream).await, "");
    };
    // The one that was kept is not cut off before it is used, and new ones are let in.
    last_answer(&mut kept).await;
    last_answer(&mut rig.connect().await).await;
}

/// All at once, 2,000 answers a second each asked for a new connection, and the handshakes took what the requests needed.
#[tokio::test]
async fn a_server_that_leaves_lets_its_connections_go_one_by_one() {
    let rig = rig(ok("hi")).await;
    rig.handle.as_ref().expect("running").leave(Duration::from_secs(30 * 86_400));
    let mut told = 0;
    // Its cores hear of it a moment later, so some answers each.
    for _ in 0..20 {
        // One after the other: a connection on which nothing is said for ten seconds is closed.
        let mut stream = rig.connect().await;
        for _ in 0..20 {
            stream.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
            let answer = read_until(&mut stream, "hi").await;
            assert_eq!(status(&answer), 200, "{answer}");
            if header(&answer, "connection") == Some("close") {
                told += 1;
                break;
            }
        }
    }
    // Of a month, this was a second or a minute.
    assert!(told <= 1, "{told} of 20");
    // And all are told in the end.
    rig.handle.as_ref().expect("running").leave(Duration::from_millis(50));
    let mut last = rig.connect().await;
    let gone = async {
        loop {
            last.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
            if header(&read_until(&mut last, "hi").await, "connection") == Some("close") {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("it is told to go");
}

#[tokio::test]
async fn an_http2_connection_of_a_server_that_leaves_ends_without_a_failed_request() {
    let rig = rig(ok("found")).await;
    let stream = rig.connect().await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("h2");
    let connection = tokio::spawn(connection);
    rig.handle.as_ref().expect("running").leave(Duration::ZERO);
    let until_it_ends = async {
        while sender.ready().await.is_ok() {
            let call = Request::get("http://api.test/").header("x-api-key", &rig.key);
            let call = call.body(Full::new(Bytes::new())).expect("a request");
            let answer = match sender.try_send_request(call).await {
                Ok(answer) => answer,
                Err(mut error) => {
                    // Only what was never sent, after the GOAWAY, can be sent elsewhere.
                    let unsent = error.take_message().is_some();
                    assert!(unsent, "a request that was sent has failed: {:?}", error.into_error());
                    break;
                }
            };
            assert_eq!(answer.status(), 200);
            answer.into_body().collect().await.expect("a body");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), until_it_ends).await.expect("it is told to go");
    connection.await.expect("no panic").expect("ended by a GOAWAY, not by an error");
}

/// Once, in a rolling restart under load, two of 2,100 requests were not answered: a client's handshake was done, its request
/// on its way, and the server closed what it took for an idle connection.
#[tokio::test]
async fn a_request_on_its_way_when_the_server_stops_listening_is_answered() {
    let mut rig = super::harness::rig_with(
        ok("hi"),
        |settings| settings.timeouts.last_requests = Duration::from_secs(600),
        |_, _| {},
    )
    .await;
    let mut kept = rig.connect().await;
    kept.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
    read_until(&mut kept, "hi").await;
    let mut fresh = rig.connect().await;
    let mut idle = rig.connect().await;
    let handle = rig.handle.take().expect("running");
    let drained = tokio::task::spawn_blocking(move || handle.drain(Duration::from_secs(600)));
    while tokio::net::TcpStream::connect(rig.addr).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for stream in [&mut kept, &mut fresh] {
        stream.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
        let answer = read_all(stream).await;
        assert_eq!((status(&answer), header(&answer, "connection")), (200, Some("close")), "{answer}");
    }
    // One that asks for nothing keeps nobody waiting once its client is gone.
    assert!(!drained.is_finished());
    idle.shutdown().await.expect("shut down");
    drop((idle, kept, fresh));
    tokio::time::timeout(Duration::from_secs(60), drained).await.expect("at once").expect("drained");
}

#[tokio::test]
async fn a_request_that_has_begun_to_come_is_answered_whatever_the_server_was_told() {
    let mut rig =
        super::harness::rig_with(ok("hi"), |settings| settings.timeouts.last_requests = Duration::ZERO, |_, _| {})
            .await;
    // Its second request: hyper would close under it, where it spares a first one.
    let mut slow = rig.connect().await;
    let text = request("GET", "/", &rig.key, "", "");
    let (first, rest) = text.split_at(20);
    slow.write_all(text.as_bytes()).await.expect("write");
    read_until(&mut slow, "hi").await;
    slow.write_all(first.as_bytes()).await.expect("write");
    let mut idle = rig.connect().await;
    let handle = rig.handle.take().expect("running");
    let drained = tokio::task::spawn_blocking(move || handle.drain(Duration::from_secs(600)));
    assert_eq!(read_all(&mut idle).await, "", "it had nothing to say");
    slow.write_all(rest.as_bytes()).await.expect("write");
    let answer = read_all(&mut slow).await;
    assert_eq!((status(&answer), header(&answer, "connection")), (200, Some("close")), "{answer}");
    drop(slow);
    drained.await.expect("drained");
}

/// A socket that is closed while its client sends is answered by a reset, which can destroy the answer on its way (RFC 9112 §9.6).
#[tokio::test]
async fn a_client_that_still_sends_when_it_was_answered_is_not_reset() {
    let rig = super::harness::rig_with(
        ok(""),
        |settings| settings.timeouts.linger = Duration::from_secs(600),
        |route, _| route.max_body_bytes = Some(10),
    )
    .await;
    let mut stream = rig.connect().await;
    let part = "x".repeat(1024);
    let text = request("POST", "/", &rig.key, "Content-Length: 1000000\r\n", &part);
    stream.write_all(text.as_bytes()).await.expect("write");
    let answer = read_all(&mut stream).await;
    assert_eq!(status(&answer), 413, "{answer}");
    for _ in 0..100 {
        stream.write_all(part.as_bytes()).await.expect("it is taken, if not wanted");
    }
}

#[tokio::test]
async fn drain_finishes_what_is_in_flight_and_refuses_the_rest() {
    let mut rig = rig(vec![Act::Hold, ok("late").remove(0)]).await;
    let mut idle = rig.connect().await;
    let mut busy = rig.connect().await;
    busy.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
    rig.got().await;
    let handle = rig.handle.take().expect("running");
    let drained = tokio::task::spawn_blocking(move || handle.drain(Duration::from_secs(10)));
    assert_eq!(read_all(&mut idle).await, "");
    assert!(tokio::net::TcpStream::connect(rig.addr).await.is_err());
    assert!(!drained.is_finished());
    rig.go_on.notify_one();
    let answer = read_all(&mut busy).await;
    assert_eq!((status(&answer), body(&answer)), (200, "late"));
    assert_eq!(header(&answer, "connection"), Some("close"));
    drained.await.expect("drained");
    assert_eq!(rig.ledger.rows().len(), 1);
}

#[tokio::test]
async fn drain_deadline_cuts_off_and_the_rows_are_there() {
    let mut rig = rig(vec![Act::Hold]).await;
    let mut busy = rig.connect().await;
    busy.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
    rig.got().await;
    let handle = rig.handle.take().expect("running");
    let start = Instant::now();
    let drained = tokio::task::spawn_blocking(move || handle.drain(Duration::from_millis(200)));
    drained.await.expect("drained");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(rig.ledger.row().await.completion, Completion::ClientAbort);
}

#[tokio::test]
async fn connections_beyond_the_bound_are_told_503() {
    let rig = super::harness::rig_with(ok("hi"), |settings| settings.max_connections = 1, |_, _| {}).await;
    let mut first = rig.connect().await;
    first.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
    read_until(&mut first, "hi").await;
    let mut second = rig.connect().await;
    let answer = read_all(&mut second).await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert_eq!(problem(&answer)["code"], "temporary-reduced-capacity");
    let length = header(&answer, "content-length").expect("a length");
    assert_eq!(body(&answer).len().to_string(), length);
}

#[tokio::test]
async fn one_address_has_not_all_connections_unless_it_is_a_proxys() {
    let bounded = |settings: &mut Settings| settings.max_connections_per_address = 1;
    let rig = super::harness::rig_with(ok("hi"), bounded, |_, _| {}).await;
    let mut first = rig.connect().await;
    first.write_all(request("GET", "/", &rig.key, "", "").as_bytes()).await.expect("write");
    read_until(&mut first, "hi").await;
    let answer = read_all(&mut rig.connect().await).await;
    assert_eq!((status(&answer), &problem(&answer)["code"]), (503, &"temporary-reduced-capacity".into()), "{answer}");
    assert_eq!(Some(body(&answer).len().to_string().as_str()), header(&answer, "content-length"));
    // Another address is let in, and so is this one when its first connection is over.
    let other = tokio::net::TcpSocket::new_v4().expect("a socket");
    other.bind(([127, 0, 0, 2], 0).into()).expect("an address of loopback");
    let mut other = other.connect(rig.addr).await.expect("connect");
    other.write_all(request("GET", "/", &rig.key, "Connection: close\r\n", "").as_bytes()).await.expect("write");
    assert_eq!(status(&read_all(&mut other).await), 200);
    drop(first);
    let again = async {
        while status(&rig.get("/", "").await) != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("its place is given back");

    let trusted = |settings: &mut Settings| {
        settings.max_connections_per_address = 1;
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    };
    let rig = super::harness::rig_with(ok("hi"), trusted, |_, _| {}).await;
    let _first = rig.connect().await;
    assert_eq!(status(&rig.get("/", "").await), 200);
}

#[tokio::test]
async fn port_in_use_is_an_error_that_names_the_address() {
    let rig = rig(ok("")).await;
    let settings = Settings { listen: rig.addr, cores: 1, ..Settings::default() };
    let error = Server::start(settings, &std::sync::Arc::new(rig.ledger.clone())).expect_err("in use");
    assert!(matches!(error, StartError::Listen { .. }));
    assert!(error.to_string().contains(&rig.addr.to_string()), "{error}");
}
