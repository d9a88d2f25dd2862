//! Targets that fail: retries within a budget, ejection, health checks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use store::model::{HealthCheck, Outlier, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::harness::{Act, Rig, body, ok, request, rig_with, status, write};

/// Another target: how often it was called, and with what it answers.
struct Other {
    url: String,
    calls: Arc<AtomicUsize>,
    checks: Arc<AtomicUsize>,
    healthy: Arc<AtomicBool>,
}

/// Answers each request with `status`; `/health` by what `healthy` says.
async fn other(answer: &'static str) -> Other {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (calls, checks, healthy) =
        (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::new(AtomicBool::new(true)));
    let seen = (calls.clone(), checks.clone(), healthy.clone());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let (calls, checks, healthy) = seen.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let status = if head.starts_with(b"GET /health ") {
                    checks.fetch_add(1, Ordering::SeqCst);
                    if healthy.load(Ordering::SeqCst) { "200 OK" } else { "503 Down" }
                } else {
                    calls.fetch_add(1, Ordering::SeqCst);
                    answer
                };
                let text = format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\nconnection: close\r\n\r\nother");
                let _ = stream.write_all(text.as_bytes()).await;
            });
        }
    });
    Other { url, calls, checks, healthy }
}

fn also(upstream: &mut store::model::Upstream, other: &Other) {
    upstream.targets.push(Target { url: other.url.clone(), weight: 1 });
}

async fn post(rig: &Rig) -> u16 {
    status(&rig.send(&request("POST", "/", &rig.key, "Connection: close\r\nContent-Length: 2\r\n", "hi")).await)
}

#[tokio::test]
async fn requests_that_may_be_sent_twice_are_retried_elsewhere_and_others_are_not() {
    for act in [Act::Close, write("HTTP/1.1 503 Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")] {
        let good = other("200 OK").await;
        let rig = rig_with(
            vec![act],
            |_| {},
            |route, upstream| {
                also(upstream, &good);
                route.retries = 2;
                route.retry_statuses = Some(vec![503]);
            },
        )
        .await;
        for _ in 0..6 {
            let answer = rig.get("/", "").await;
            assert_eq!((status(&answer), body(&answer)), (200, "other"));
        }
        // A body was sent, or the method is not idempotent: what the upstream did with it is not known.
        let mut refused = 0;
        for _ in 0..6 {
            refused += usize::from(post(&rig).await != 200);
        }
        assert!(refused > 0, "the broken target is called in turn, and its failure is the client's to see");
        assert!(rig.ledger.rows().iter().filter(|row| row.method.as_str() == "GET").all(|row| row.status == 200));
        assert_eq!(rig.ledger.rows().len(), 12, "one row a request, however often it was sent");
    }
}

/// Answers `200` and keeps the connection; a request for `/crash` ends it, and is counted.
async fn crashing() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let crashes = Arc::<AtomicUsize>::default();
    let counted = crashes.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let crashes = counted.clone();
            tokio::spawn(async move {
                loop {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    if head.starts_with(b"GET /crash ") {
                        crashes.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    // So long that requests beside it need connections of their own.
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    (url, crashes)
}

#[tokio::test]
async fn a_request_is_sent_again_once_however_many_connections_are_idle() {
    let (url, crashes) = crashing().await;
    let rig = rig_with(ok("never"), |_| {}, |_, upstream| upstream.targets = vec![Target { url, weight: 1 }]).await;
    let answers = futures_util::future::join_all((0..6).map(|_| rig.get("/", ""))).await;
    assert!(answers.iter().all(|answer| status(answer) == 200), "{answers:?}");
    tokio::time::sleep(Duration::from_millis(800)).await;
    let answer = rig.get("/crash", "").await;
    assert_eq!((status(&answer), crashes.load(Ordering::SeqCst)), (502, 2), "{answer}");
}

#[tokio::test]
async fn retries_end_with_the_budget() {
    let rig = rig_with(
        vec![Act::Close],
        |_| {},
        |route, upstream| {
            route.retries = 1;
            upstream.retry_budget_percent = Some(10);
        },
    )
    .await;
    let requests = 100;
    for _ in 0..requests {
        assert_eq!(status(&rig.get("/", "").await), 502);
    }
    // Ten to begin with, and one for every ten requests.
    let sent = rig.accepted();
    assert!((requests + 10..=requests + 20).contains(&sent), "{sent} calls for {requests} requests");
}

#[tokio::test]
async fn target_that_fails_too_often_is_left_out_and_comes_back() {
    let bad = other("500 Bad").await;
    let rig = rig_with(
        ok("good"),
        |_| {},
        |_, upstream| {
            also(upstream, &bad);
            upstream.outlier = Some(Outlier { failures: 3, eject_ms: 600_000, max_percent: 50 });
        },
    )
    .await;
    let mut failed = 0;
    for _ in 0..40 {
        failed += usize::from(status(&rig.get("/", "").await) == 500);
    }
    assert_eq!(failed, 3, "after three failures in a row it gets no requests");
    assert_eq!(bad.calls.load(Ordering::SeqCst), 3);

    // Half of the targets are out, which is the most.
    let bad = other("500 Bad").await;
    let rig = rig_with(
        vec![write("HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n")],
        |_| {},
        |_, upstream| {
            also(upstream, &bad);
            upstream.outlier = Some(Outlier { failures: 2, eject_ms: 600_000, max_percent: 50 });
        },
    )
    .await;
    for _ in 0..20 {
        assert_eq!(status(&rig.get("/", "").await), 500, "the last one is never ejected");
    }
}

#[tokio::test]
async fn circuit_opens_when_all_targets_are_out_and_closes_again() {
    let bad = other("500 Bad").await;
    let rig = rig_with(
        ok("never"),
        |_| {},
        |_, upstream| {
            upstream.targets = vec![Target { url: bad.url.clone(), weight: 1 }];
            upstream.outlier = Some(Outlier { failures: 3, eject_ms: 500, max_percent: 100 });
        },
    )
    .await;
    for _ in 0..3 {
        assert_eq!(status(&rig.get("/", "").await), 500);
    }
    let answer = rig.get("/", "").await;
    assert_eq!(status(&answer), 502, "{answer}");
    assert!(answer.contains("left out for what they answered"), "{answer}");
    assert_eq!(bad.calls.load(Ordering::SeqCst), 3, "it was not called");
    assert!(rig.ledger.rows().last().is_some_and(|row| row.status == 502), "and there is a row");
    // After its time one request is let through, and its failure opens the circuit at once again.
    let begun = std::time::Instant::now();
    while status(&rig.get("/", "").await) != 500 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is tried again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status(&rig.get("/", "").await), 502);
}

#[tokio::test]
async fn target_whose_checks_fail_gets_no_requests_until_they_succeed() {
    let checked = other("200 OK").await;
    let rig = rig_with(
        ok("first"),
        |_| {},
        |_, upstream| {
            upstream.targets = vec![Target { url: checked.url.clone(), weight: 1 }];
            upstream.health_check = Some(HealthCheck { path: "/health".into(), interval_ms: 100, threshold: 2 });
        },
    )
    .await;
    let until = async |wanted: u16| {
        let begun = std::time::Instant::now();
        while status(&rig.get("/", "").await) != wanted {
            assert!(begun.elapsed() < Duration::from_secs(30), "{wanted} in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(200).await;
    checked.healthy.store(false, Ordering::SeqCst);
    until(502).await;
    let calls = checked.calls.load(Ordering::SeqCst);
    assert_eq!(status(&rig.get("/", "").await), 502);
    assert_eq!(checked.calls.load(Ordering::SeqCst), calls, "nothing but checks reaches it");
    assert!(checked.checks.load(Ordering::SeqCst) >= 2);
    checked.healthy.store(true, Ordering::SeqCst);
    until(200).await;
}
