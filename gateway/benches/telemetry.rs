//! What does telling cost a request: its metrics, its access event, its spans?
//!
//! Back of the envelope: a dozen counters and histograms (5 to 20 ns each, two of them found by their labels): 0.2 us. An event that
//! nobody wants: one look at a flag. An event as JSON: 2 to 3 us. A span: two clocks, a few copied names, a place in a queue:
//! 0.5 us, and its encoding and sending on another thread.
//!
//! One thread serves one request after the other over the whole chain of links, with a real store of one node: a key
//! that nobody knows, refused with 401. That path waits for nothing, so what telling adds is not lost in the noise of disks
//! and sockets; a request that is let through has two histograms more (commit, upstream), and a second span. Modes take turns, so that
//! a machine that grows slower does so for all; CPU time of the serving thread, median of the rounds.
//!
//! Run: `cargo bench -p tollgate-gateway --bench telemetry`

use std::{
    hint::black_box,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gateway::{
    otlp,
    stack::{Client, Rejections, Settings, Stack},
    tls::ClientFiles,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use metrics_exporter_prometheus::PrometheusBuilder;
use rustix::time::{ClockId, clock_gettime};
use store::{
    Store,
    model::{NodeInfo, Secret, SecretKind},
};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt};

type Chain = Stack<Store, Full<Bytes>>;

const ROUNDS: usize = 40;
/// A round's requests; fewer than the exporter's queue holds.
const REQUESTS: u64 = 4_000;
/// How often the exporter looks at its queue, and more.
const EXPORT: Duration = Duration::from_millis(250);

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let free = |_| TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let [peer, admin, data] = [0, 1, 2].map(free);
    let store = runtime.block_on(Store::open(store::Settings {
        data_dir: dir.path().to_owned(),
        node: NodeInfo {
            name: "bench".into(),
            peer_addr: peer.to_string(),
            admin_addr: admin.to_string(),
            data_addr: data.to_string(),
            region: "".into(),
        },
        peer_listen: peer,
        peer_tls: None,
        join: Vec::new(),
        voters: 1,
        ledger_groups: 1,
        commit_deadline: Duration::from_secs(2),
        max_waiting_rows: 1_000,
        log_retention_days: 1,
        first_token: None,
    }));
    let store = Arc::new(store.expect("open the store"));
    let key = Secret::generate(SecretKind::Live).expose().to_owned();
    let serve = |chain: &Chain| {
        runtime.block_on(async {
            let request = Request::get("/v3/scan").header("host", "bench").header("x-api-key", &key);
            let request = request.body(Full::default()).expect("a request");
            let answer: Response<_> = chain.serve(Client::default(), request).await;
            let status = answer.status();
            black_box(answer.into_body().collect().await).ok();
            status
        })
    };

    // Before there is a recorder: handles that do nothing, for good.
    let nothing = chain(&store, None);
    loop {
        match serve(&nothing) {
            StatusCode::UNAUTHORIZED => break,
            // Not elected yet.
            StatusCode::SERVICE_UNAVAILABLE => std::thread::sleep(Duration::from_millis(20)),
            other => panic!("an unknown key is told {other}"),
        }
    }
    let recorder = PrometheusBuilder::new().install_recorder().expect("the first recorder");
    let (collector, taken) = collector();
    let exported = |ratio| {
        let settings = otlp::Settings {
            endpoint: collector.clone(),
            headers: Vec::new(),
            sample_ratio: ratio,
            metrics_every: None,
            tls: ClientFiles::default(),
            node: "bench".into(),
            region: String::new(),
        };
        otlp::start(settings, String::new).expect("start the exporter")
    };
    let (none, some) = (exported(0.0), exported(1.0));
    let chains = [
        ("nothing", chain(&store, None), false),
        ("metrics", chain(&store, None), false),
        ("metrics, access event off: as a node is when nothing is set", chain(&store, None), false),
        ("and access event, JSON", chain(&store, None), true),
        ("and spans, none sampled", chain(&store, Some(none.0.clone())), false),
        ("and spans, all sampled", chain(&store, Some(some.0.clone())), false),
    ];
    let log = |access: bool| {
        let level: Targets = if access { "info" } else { "info,access=off" }.parse().expect("a level");
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::sink);
        tracing_subscriber::registry().with(level).with(lines)
    };
    let mut times = chains.each_ref().map(|_| Vec::new());
    let mut elsewhere = Vec::new();
    for round in 0..=ROUNDS {
        for (at, (_, chain, access)) in chains.iter().enumerate() {
            let chain = if at == 0 { &nothing } else { chain };
            let run = || {
                let before = cpu(ClockId::ThreadCPUTime);
                for _ in 0..REQUESTS {
                    assert_eq!(serve(chain), StatusCode::UNAUTHORIZED);
                }
                cpu(ClockId::ThreadCPUTime) - before
            };
            let before = cpu(ClockId::ProcessCPUTime);
            let took = if at < 2 { run() } else { tracing::subscriber::with_default(log(*access), run) };
            if at + 1 == chains.len() {
                // Its spans' way to the collector, and the collector's reading.
                while taken.load(Ordering::Relaxed) == 0 {
                    std::thread::sleep(EXPORT);
                }
                std::thread::sleep(EXPORT);
                taken.store(0, Ordering::Relaxed);
                elsewhere.push((cpu(ClockId::ProcessCPUTime) - before).saturating_sub(took) / REQUESTS);
            }
            // The first is for the caches.
            if round > 0 {
                times[at].push(took / REQUESTS);
            }
        }
        recorder.run_upkeep();
    }
    println!("{:62} {:>10} {:>10}", "CPU of a request, ns", "in all", "more");
    let mut last: [u64; 2] = [0; 2];
    for (at, ((name, ..), times)) in chains.iter().zip(&mut times).enumerate() {
        let time = median(times);
        // Events and spans each come on top of what a node does when nothing is set.
        let more = time.saturating_sub(if at > 2 { last[1] } else { last[0] });
        println!("{name:62} {time:>10} {:>10}", if at == 0 { String::new() } else { more.to_string() });
        last = [time, if at <= 2 { time } else { last[1] }];
    }
    println!("{:62} {:>10}", "on other threads, all sampled: encoding, sending, taking", median(&mut elsewhere));
}

fn chain(store: &Arc<Store>, tracer: Option<Arc<otlp::Tracer>>) -> Chain {
    let mut settings = Settings::default();
    settings.tracer = tracer;
    Stack::new(store.clone(), Arc::new(settings), Arc::new(Rejections::new()))
}

fn cpu(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

fn median(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Takes every message; its URL, and how many it has taken.
fn collector() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let taken = Arc::new(AtomicU64::new(0));
    let count = taken.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let count = count.clone();
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                loop {
                    let mut length = 0;
                    let mut line = String::new();
                    while !matches!(stream.read_line(&mut line), Ok(0 | 2) | Err(_)) {
                        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = text.trim().parse().unwrap_or(0);
                        }
                        line.clear();
                    }
                    let mut body = vec![0; length];
                    let answered = stream
                        .read_exact(&mut body)
                        .and_then(|()| stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
                    if length == 0 || answered.is_err() {
                        return;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    (url, taken)
}
