//! Bodies of any length and pace both ways, and what the row says when one side breaks off.

use std::{
    io::Read,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::{Admin, Cluster, Node, Options, Raw, Upstream, client, get, until};
use ureq::SendBody;

/// A body that is far larger than what may be held of it.
const LARGE: u64 = 100 << 20;
/// What the node's memory may grow by while a large body passes.
const BOUND: u64 = 32 << 20;

/// The node's memory at its most while `act` runs, less what it was.
fn growth<T: Send>(node: &Node, act: impl FnOnce() -> T + Send) -> (u64, T) {
    let before = node.resident_bytes();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = before;
            while !done.load(Ordering::SeqCst) {
                most = most.max(node.resident_bytes());
                thread::sleep(Duration::from_millis(5));
            }
            most - before
        });
        let result = act();
        done.store(true, Ordering::SeqCst);
        (watch.join().expect("joins"), result)
    })
}

/// A row once it is not open any more.
fn settled(admin: &Admin, id: &str) -> Value {
    until("the end of the request's row", || Some(admin.row(id)).filter(|row| row["completion"] != "open"))
}

/// The only row of a path, once it is there and not open.
fn settled_of(admin: &Admin, path: &str) -> Value {
    until(&format!("the row of {path}"), || {
        let mut rows = admin.rows("account=acme");
        rows.retain(|row| row["path"] == path && row["completion"] != "open");
        rows.pop()
    })
}

fn start(options: &Options) -> (Upstream, Cluster, Admin, String) {
    let upstream = Upstream::start();
    let mut cluster = Cluster::new(1, options);
    cluster.start_all();
    let admin = cluster.nodes[0].admin();
    let key = admin.open_account(&upstream.url);
    get(&client(), &cluster.nodes[0].url("/bytes/200000"), &key).expect("an answer");
    (upstream, cluster, admin, key)
}

#[test]
fn a_hundred_megabytes_down_with_flat_memory() {
    let (_upstream, cluster, admin, key) = start(&Options::default());
    let node = &cluster.nodes[0];
    for path in [format!("/stream/{LARGE}"), format!("/bytes/{LARGE}")] {
        let (grown, id) = growth(node, || {
            let request = client().get(node.url(&path)).header("authorization", format!("Bearer {key}"));
            let mut response = request.call().expect("an answer");
            let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
            let mut body = response.body_mut().as_reader();
            let mut first = vec![0; 1 << 20];
            body.read_exact(&mut first).expect("the beginning");
            // A client that takes nothing for a while: what the upstream sends must wait there.
            thread::sleep(Duration::from_millis(500));
            let rest = std::io::copy(&mut body, &mut std::io::sink()).expect("the rest");
            assert_eq!(rest + (1 << 20), LARGE);
            id
        });
        println!("{path}: memory grew by {} KiB", grown >> 10);
        assert!(grown < BOUND, "{path}: {grown} bytes");
        let row = settled(&admin, &id);
        assert_eq!((&row["completion"], &row["bytes_out"]), (&"complete".into(), &LARGE.into()), "{row}");
    }
}

#[test]
fn a_hundred_megabytes_up_with_flat_memory() {
    let (_upstream, cluster, admin, key) = start(&Options::default());
    let node = &cluster.nodes[0];
    for length in [None, Some(LARGE)] {
        let (grown, id) = growth(node, || {
            let mut request = client().post(node.url("/count")).header("authorization", format!("Bearer {key}"));
            if let Some(length) = length {
                request = request.header("content-length", length.to_string());
            }
            let mut reader = std::io::repeat(b'x').take(LARGE);
            let mut response = request.send(SendBody::from_reader(&mut reader)).expect("an answer");
            assert_eq!(response.body_mut().read_to_string().expect("text"), LARGE.to_string());
            response.headers()["x-request-id"].to_str().expect("text").to_owned()
        });
        println!("declared {length:?}: memory grew by {} KiB", grown >> 10);
        assert!(grown < BOUND, "{length:?}: {grown} bytes");
        let row = admin.row(&id);
        assert_eq!((&row["status"], &row["bytes_in"]), (&200.into(), &LARGE.into()), "{row}");
    }
}

#[test]
fn events_arrive_one_by_one_and_the_row_is_open_meanwhile() {
    let (_upstream, cluster, admin, key) = start(&Options::default());
    let mut raw = Raw::request(&cluster.nodes[0].data_addr, "GET /sse/4/1000", &key, "");
    let head = raw.head().expect("a head");
    assert_eq!((head.status, head.header("content-type")), (200, "text/event-stream"));
    let id = head.header("x-request-id");
    assert_eq!(raw.chunk().expect("an event"), b"data: 0\n\n");
    let first = Instant::now();
    let row = admin.row(id);
    assert_eq!((&row["completion"], &row["status"]), (&"open".into(), &200.into()), "{row}");
    for n in 1..4 {
        assert_eq!(raw.chunk().expect("an event"), format!("data: {n}\n\n").into_bytes());
    }
    assert!(first.elapsed() > Duration::from_secs(2), "all came together: {:?}", first.elapsed());
    assert_eq!(raw.chunk().expect("the end"), b"");
    let row = settled(&admin, id);
    assert_eq!((&row["completion"], &row["bytes_out"]), (&"complete".into(), &36.into()), "{row}");
    assert!(row["duration_us"].as_u64().is_some_and(|us| us > 2_000_000), "{row}");
}

#[test]
fn a_client_that_hangs_up_is_in_the_row() {
    let (upstream, cluster, admin, key) = start(&Options::default());
    let addr = &cluster.nodes[0].data_addr;
    // In the middle of a streamed answer.
    let mut raw = Raw::request(addr, "GET /sse/100000/20", &key, "");
    let head = raw.head().expect("a head");
    raw.chunk().expect("an event");
    raw.close();
    let row = settled(&admin, head.header("x-request-id"));
    assert_eq!((&row["completion"], &row["status"]), (&"client-abort".into(), &200.into()), "{row}");
    assert!(row["bytes_out"].as_u64().is_some_and(|bytes| bytes > 0), "{row}");
    // Before any answer.
    let before = upstream.requests();
    let raw = Raw::request(addr, "GET /delay/20000", &key, "");
    until("the request at the upstream", || (upstream.requests() > before).then_some(()));
    raw.close();
    assert_eq!(settled_of(&admin, "/delay/20000")["completion"], "client-abort");
    // In the middle of its own body.
    let mut raw = Raw::request(addr, "POST /count", &key, "transfer-encoding: chunked\r\n");
    raw.send_chunk(b"half").expect("send");
    until("the request at the upstream", || (upstream.requests() > before + 1).then_some(()));
    raw.close();
    assert_eq!(settled_of(&admin, "/count")["completion"], "client-abort");
}

#[test]
fn an_upstream_that_dies_is_a_502_while_it_can_be() {
    let (_upstream, cluster, admin, key) = start(&Options::default());
    // Short: nothing was released yet.
    let answer = get(&client(), &cluster.nodes[0].url("/die/1000/50000"), &key).expect("an answer");
    answer.assert_problem(502, "upstream-unreachable");
    let row = admin.row(answer.header("x-request-id"));
    assert_eq!((&row["status"], &row["completion"]), (&502.into(), &"upstream-abort".into()), "{row}");
    // Long: the client has its head and sees that the body is cut.
    let mut raw = Raw::request(&cluster.nodes[0].data_addr, "GET /die/90000", &key, "");
    let head = raw.head().expect("a head");
    assert_eq!((head.status, head.header("content-length")), (200, "100000"));
    assert!(raw.rest().unwrap_or_default() <= 90_000);
    let row = settled(&admin, head.header("x-request-id"));
    assert_eq!((&row["status"], &row["completion"]), (&200.into(), &"upstream-abort".into()), "{row}");
}

#[test]
fn slow_bodies_pass_and_stalled_ones_do_not() {
    let args = ["--body-timeout-ms=1000", "--header-timeout-ms=1000"].map(str::to_owned);
    let (_upstream, cluster, admin, key) = start(&Options { args: args.into(), ..Options::default() });
    let addr = &cluster.nodes[0].data_addr;
    let mut raw = Raw::request(addr, "POST /count", &key, "content-length: 12\r\n");
    for _ in 0..12 {
        raw.send(b"x").expect("send");
        thread::sleep(Duration::from_millis(150));
    }
    let answer = raw.answer().expect("an answer");
    assert_eq!((answer.status, answer.text.as_str()), (200, "12"), "slower in all than the bound of one silence");
    let slow = get(&client(), &cluster.nodes[0].url("/slow/20/50"), &key).expect("an answer");
    assert_eq!((slow.status, slow.text.len()), (200, 20));

    let mut raw = Raw::request(addr, "POST /count", &key, "content-length: 12\r\n");
    raw.send(b"x").expect("send");
    let answer = raw.answer().expect("an answer");
    assert_eq!((answer.status, answer.body["status"].as_u64()), (408, Some(408)), "{}", answer.text);
    assert_eq!(admin.row(answer.header("x-request-id"))["status"], 408);
    let mut raw = Raw::connect(addr);
    raw.send(b"GET / HTTP/1.1\r\nhost: x\r\n").expect("send");
    let start = Instant::now();
    let _ = raw.rest();
    assert!(start.elapsed() < Duration::from_secs(10), "a head that does not end is cut off");
}
