//! How many rows a second does the ledger make durable on a quorum, and how long does a row wait?
//!
//! Three processes on this machine, loopback TCP between them, one disk, real `fdatasync`; blocks compressed, applied and
//! checkpointed as in production. Writers wait in a closed loop, each for its own row, in the leader's process, so the rate
//! is what so many waiting requests get. Back of the envelope: up to 64 writers a batch is one flush (0.06-0.2 ms) and some
//! 60 us of hops; at 512 and above it is CPU, 3-4 us a row for three replicas.
//!
//! `cargo run --release -p tests --bin store-bench -- --writers 64,512 --seconds 60`
//! `--rate 8000` adds a point at a fixed offered load, timed from the intended start.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use store::{
    Readiness, Settings, Store,
    model::{AccountId, Charge, Completion, Name, NodeInfo, Outcome, RequestId, Row, Timestamp},
};
use tokio::time::Instant;

/// Histograms that the writers share.
const HISTOGRAMS: usize = 16;

/// Rows a second that the ledger makes durable on a quorum, and how long a row waits.
#[derive(Parser)]
struct Args {
    /// Closed loops of so many writers, one point each.
    #[arg(long, value_delimiter = ',', default_value = "64,512")]
    writers: Vec<usize>,
    /// Open loops of so many rows a second, one point each.
    #[arg(long, value_delimiter = ',')]
    rate: Vec<u64>,
    /// Length of a point.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Replicas: 1 or 3.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Where the nodes keep their data; a temporary directory when not given.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Give rows a random trace id (16 bytes that no code can compress).
    #[arg(long)]
    trace_ids: bool,
    /// Threads of each node's runtime.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Used by the bench itself: be a node.
    #[arg(long, hide = true)]
    node: Option<String>,
    #[arg(long, hide = true, value_delimiter = ',')]
    join: Vec<String>,
}

#[derive(Serialize, Deserialize)]
enum Order {
    Run { writers: usize, rate: u64, seconds: u64, trace_ids: bool },
    Stats,
    Stop,
}

#[derive(Serialize, Deserialize)]
struct Figures {
    rows: u64,
    failed: u64,
    seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    /// How long after the end of the load everything committed was applied.
    lag_ms: f64,
}

#[derive(Serialize, Deserialize, Default, Clone)]
struct Stats {
    wal_bytes: f64,
    block_bytes: f64,
    file_bytes: f64,
    rows: f64,
    batches: f64,
    syncs: f64,
    cpu_seconds: f64,
    leader: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    match &args.node {
        Some(addr) => node(&args, addr),
        None => bench(&args),
    }
}

struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn ask<T: for<'d> Deserialize<'d>>(&mut self, order: &Order) -> Result<T> {
        writeln!(self.orders, "{}", serde_json::to_string(order)?).context("give a node an order")?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context("hear from a node")?;
        serde_json::from_str(&line).with_context(|| format!("a node answered {line:?}"))
    }
}

fn bench(args: &Args) -> Result<()> {
    let temporary = tempfile::tempdir().context("make a temporary directory")?;
    let dir = args.dir.as_deref().unwrap_or(temporary.path());
    let addrs: Vec<String> = (0..args.nodes)
        .map(|_| Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string()))
        .collect::<Result<_>>()
        .context("find free ports")?;
    let mut nodes = Vec::new();
    for (n, addr) in addrs.iter().enumerate() {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("--node")
            .arg(addr)
            .arg("--workers")
            .arg(args.workers.to_string())
            .arg("--dir")
            .arg(dir.join(n.to_string()));
        if args.nodes > 1 {
            command.arg("--join").arg(addrs.join(","));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start a node")?;
        let orders = child.stdin.take().context("a node's stdin")?;
        let answers = BufReader::new(child.stdout.take().context("a node's stdout")?);
        nodes.push(Process { child, orders, answers });
    }
    for node in &mut nodes {
        let mut line = String::new();
        node.answers.read_line(&mut line).context("wait for a node")?;
        if line.trim() != "ready" {
            bail!("a node did not start: {line:?}");
        }
    }
    println!(
        "| load | rows/s | p50 ms | p99 ms | p99.9 ms | rows a batch | CPU-us a row, all nodes | apply lag ms | WAL B a row | state B a row | failed |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let points = args.writers.iter().map(|writers| (*writers, 0)).chain(args.rate.iter().map(|rate| (4_096, *rate)));
    for (writers, rate) in points {
        let before = stats(&mut nodes)?;
        let leader = before.iter().position(|stats| stats.leader).context("no leader")?;
        let order = Order::Run { writers, rate, seconds: args.seconds, trace_ids: args.trace_ids };
        let figures: Figures = nodes[leader].ask(&order)?;
        let after = stats(&mut nodes)?;
        let cpu: f64 = after.iter().zip(&before).map(|(a, b)| a.cpu_seconds - b.cpu_seconds).sum();
        let rows = figures.rows as f64;
        let (a, b) = (&after[leader], &before[leader]);
        let load = if rate == 0 { format!("{writers} writers") } else { format!("{rate}/s") };
        println!(
            "| {load} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {:.2} | {:.0} | {:.1} | {:.1} | {} |",
            rows / figures.seconds,
            figures.p50_ms,
            figures.p99_ms,
            figures.p999_ms,
            (a.rows - b.rows) / (a.batches - b.batches).max(1.0),
            cpu * 1e6 / rows.max(1.0),
            figures.lag_ms,
            (a.wal_bytes - b.wal_bytes) / rows.max(1.0),
            (a.block_bytes - b.block_bytes) / rows.max(1.0),
            figures.failed,
        );
    }
    for node in &mut nodes {
        let _ = writeln!(node.orders, "{}", serde_json::to_string(&Order::Stop)?);
    }
    for mut node in nodes {
        node.child.wait().context("wait for a node's end")?;
    }
    Ok(())
}

fn stats(nodes: &mut [Process]) -> Result<Vec<Stats>> {
    nodes.iter_mut().map(|node| node.ask(&Order::Stats)).collect()
}

fn node(args: &Args, addr: &str) -> Result<()> {
    let workers = args.workers;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let dir = args.dir.clone().context("--dir")?;
    let store = runtime.block_on(open(&dir, addr, &args.join))?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Order::Stop => break,
            Order::Stats => serde_json::to_string(&own_stats(&store)?)?,
            Order::Run { writers, rate, seconds, trace_ids } => {
                let figures = runtime.block_on(run(&store, writers, rate, seconds, trace_ids))?;
                serde_json::to_string(&figures)?
            }
        };
        println!("{answer}");
    }
    runtime.block_on(store.shutdown());
    Ok(())
}

async fn open(dir: &Path, addr: &str, join: &[String]) -> Result<Store> {
    let store = Store::open(Settings {
        data_dir: dir.to_owned(),
        node: NodeInfo { name: Name::from(addr), peer_addr: addr.to_owned(), ..NodeInfo::default() },
        peer_listen: addr.parse()?,
        peer_tls: None,
        join: join.to_vec(),
        voters: 3,
        ledger_groups: 1,
        commit_deadline: Duration::from_secs(2),
        max_waiting_rows: 65_536,
        log_retention_days: 30,
        first_token: None,
    })
    .await?;
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match store.readiness() {
            Readiness::Ready => return Ok(store),
            Readiness::NotReady(reason) if Instant::now() > until => bail!("not ready: {reason}"),
            Readiness::NotReady(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn own_stats(store: &Store) -> Result<Stats> {
    let all = store.stats();
    let get = |name: &str| all.iter().find(|(n, _, _)| *n == name).map_or(0.0, |(_, _, value)| *value);
    let usage = std::fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    let ticks: f64 =
        usage.rsplit(')').next().unwrap_or("").split_whitespace().skip(11).take(2).flat_map(str::parse::<f64>).sum();
    Ok(Stats {
        wal_bytes: get("tollgate_wal_written_bytes_total"),
        block_bytes: get("tollgate_ledger_block_bytes"),
        file_bytes: get("tollgate_ledger_file_bytes"),
        rows: get("tollgate_rows_total"),
        batches: get("tollgate_row_batches_total"),
        syncs: get("tollgate_wal_syncs_total"),
        // USER_HZ is 100 on every Linux that matters.
        cpu_seconds: ticks / 100.0,
        leader: get("tollgate_ledger_is_leader") > 0.0,
    })
}

async fn run(store: &Store, writers: usize, rate: u64, seconds: u64, trace_ids: bool) -> Result<Figures> {
    let (failed, next, stop) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    // A few for all: one of each writer's own would be a gigabyte to fill, and the first rows would wait for it.
    let times: Arc<[Mutex<Histogram<u64>>]> = (0..HISTOGRAMS)
        .map(|_| Ok(Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3)?)))
        .collect::<Result<_>>()?;
    // The writers are there before the first row is due.
    let start = Instant::now() + Duration::from_millis(200);
    let interval = (rate > 0).then(|| Duration::from_secs(1).div_f64(rate as f64));
    let accounts: Arc<[(AccountId, store::model::KeyId)]> =
        (0..1_000).map(|n| (format!("acct_01J{n:023}").into(), format!("key_01J{n:023}").into())).collect();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let accounts = Arc::clone(&accounts);
            let (store, failed, next, stop, times) =
                (store.clone(), Arc::clone(&failed), Arc::clone(&next), Arc::clone(&stop), Arc::clone(&times));
            tokio::spawn(async move {
                let mut rows = Rows::new(writer as u64, trace_ids, accounts);
                tokio::time::sleep_until(start).await;
                while !stop.load(Ordering::Relaxed) {
                    let mut due = Instant::now();
                    if let Some(interval) = interval {
                        due = start + interval.mul_f64(next.fetch_add(1, Ordering::Relaxed) as f64);
                        if due >= start + Duration::from_secs(seconds) {
                            break;
                        }
                        tokio::time::sleep_until(due).await;
                    }
                    let row = rows.next();
                    let committed = match store.permit(&row.account, store.view()) {
                        Ok(permit) => permit.commit(row).await.is_ok(),
                        Err(_) => false,
                    };
                    if committed {
                        let us = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
                        times[writer % HISTOGRAMS].lock().expect("no holder of this lock panics").saturating_record(us);
                    } else {
                        failed.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep_until(start + Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await?;
    }
    let took = start.elapsed().as_secs_f64();
    let ended = Instant::now();
    loop {
        let groups = store.groups();
        if groups.iter().all(|group| group.applied_index >= group.committed_index) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut sum = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    for part in times.iter() {
        sum.add(&*part.lock().expect("no holder of this lock panics"))?;
    }
    let ms = |q: f64| sum.value_at_quantile(q) as f64 / 1_000.0;
    Ok(Figures {
        rows: sum.len(),
        failed: failed.load(Ordering::Relaxed),
        seconds: took,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        lag_ms: ended.elapsed().as_secs_f64() * 1e3,
    })
}

/// Rows as a scan service has them: a thousand accounts of which few are busy, two routes, one quota.
struct Rows {
    seed: u64,
    trace_ids: bool,
    /// Shared by all writers, as the texts of a gateway's view are.
    accounts: Arc<[(AccountId, store::model::KeyId)]>,
    tiers: [Name; 2],
    routes: [Name; 2],
    paths: [Name; 2],
    method: Name,
    node: Name,
    region: Name,
    quota: Name,
}

impl Rows {
    fn new(seed: u64, trace_ids: bool, accounts: Arc<[(AccountId, store::model::KeyId)]>) -> Self {
        Self {
            seed: (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            trace_ids,
            accounts,
            tiers: ["free".into(), "enterprise".into()],
            routes: ["scan".into(), "scan-file".into()],
            paths: ["/v3/scan".into(), "/v3/scan/file".into()],
            method: "POST".into(),
            node: "node-1".into(),
            region: Name::default(),
            quota: "daily".into(),
        }
    }

    /// xorshift64*: cheap, and good enough for shapes.
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn next(&mut self) -> Row {
        let (a, b, c) = (self.random(), self.random(), self.random());
        // The product of two uniform numbers: some accounts are far busier than most.
        let busy = ((a & 0xFFFF_FFFF) * (a >> 32)) >> 32;
        let (account, key_id) = self.accounts[((busy * 1_000) >> 32) as usize].clone();
        let kind = usize::from(b % 10 == 0);
        let ts = Timestamp::now();
        let unix_ms = (ts.0 / 1_000) as u128;
        let random = u128::from(b) << 64 | u128::from(c);
        let upstream_us = 1_500 + (b >> 32) % 3_000 + if c % 50 == 0 { c >> 44 } else { 0 };
        Row {
            request_id: RequestId(
                unix_ms << 80 | 7 << 76 | (random >> 52) & 0xFFF << 64 | 2 << 62 | random & ((1 << 62) - 1),
            ),
            ts,
            account,
            key_id,
            tier: self.tiers[usize::from(busy < 1 << 30)].clone(),
            route: self.routes[kind].clone(),
            method: self.method.clone(),
            path: self.paths[kind].clone(),
            status: 200,
            outcome: Outcome::Admitted,
            cost: 1,
            bytes_in: 200 + b % 2_000,
            bytes_out: 120 + c % 300,
            upstream_us,
            duration_us: upstream_us + 300 + c % 200,
            client_ip: Some(std::net::Ipv4Addr::new(10, 0, (busy >> 24) as u8, busy as u8).into()),
            client_request_id: None,
            trace_id: if self.trace_ids { random ^ 0x5555 } else { 0 },
            node: self.node.clone(),
            region: self.region.clone(),
            completion: Completion::Complete,
            count: 1,
            settles: false,
            decided_by: Default::default(),
            retention_days: 0,
            charges: vec![Charge {
                quota: self.quota.clone(),
                period_start: ts.unix_seconds() / 86_400 * 86_400,
                units: 1,
            }],
        }
    }
}
