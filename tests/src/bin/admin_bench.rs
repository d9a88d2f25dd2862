//! How does the admin API do over very many accounts and keys: making them, listing, searching, declaring, exporting, and how
//! soon is a key's change in force on every node?
//!
//! Real nodes as processes on this machine, one disk, real `fdatasync`. Back of the envelope: a batch of 1,000 keys is one
//! entry of some 300 KB, encoded, flushed and applied on each node, and an audit line a key: some 20 us of CPU a key and
//! node, so 2,000 a second should leave most of a core idle. A change costs one commit and one message to each node that
//! holds a lease on its view: a millisecond or two.
//!
//! `cargo run --profile ci -p tests --bin admin-bench -- --accounts 100000 --keys 1000000 --nodes 3`

use std::{
    io::Read,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tests::{Admin, Cluster, Upstream, client, get};

/// The admin API over very many accounts and keys.
#[derive(Parser)]
struct Args {
    /// Accounts to make.
    #[arg(long, default_value_t = 100_000)]
    accounts: usize,
    /// Keys to make, spread over the accounts.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Accounts of the file that is applied.
    #[arg(long, default_value_t = 10_000)]
    applied: usize,
    /// Nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Changes of a key that are looked for on every node.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// Writers of batches at once.
    #[arg(long, default_value_t = 2)]
    writers: usize,
}

/// Operations of a batch.
const BATCH: usize = 1_000;

fn main() -> Result<()> {
    let args = Args::parse();
    let upstream = Upstream::start();
    let cluster = Cluster::start(args.nodes);
    let admin = cluster.nodes[0].admin();
    admin.put_route(&upstream.url);
    admin.put_tier("open", &json!({ "limits": [{ "name": "per-second", "rate": "100000/s", "burst": 100000 }] }));
    println!("{} nodes, {} accounts, {} keys", args.nodes, args.accounts, args.keys);
    let empty: Vec<u64> = cluster.nodes.iter().map(tests::Node::resident_bytes).collect();

    let took = batches(&admin, args.accounts, args.writers, |n| {
        let body = json!({ "id": account(n), "name": format!("{} {n}", NAMES[n % NAMES.len()]), "tier": "open" });
        json!({ "method": "POST", "path": "/v1/accounts", "body": body })
    });
    rate("accounts made in batches of 1,000", args.accounts, took);
    let took = batches(&admin, args.keys, args.writers, |n| {
        let path = format!("/v1/accounts/{}/keys", account(n % args.accounts));
        json!({ "method": "POST", "path": path, "body": { "name": "bench" } })
    });
    rate("keys made in batches of 1,000", args.keys, took);
    for (node, empty) in cluster.nodes.iter().zip(&empty) {
        let grown = node.resident_bytes().saturating_sub(*empty);
        println!("memory: {} MiB more, {} bytes a key", grown >> 20, grown / args.keys.max(1) as u64);
    }

    list(&admin, args.accounts)?;
    search(&admin)?;
    apply(&admin, args.applied)?;
    export(&admin)?;
    changes(&cluster, &admin, args.changes)
}

const NAMES: &[&str] = &["Acme", "Umbrella", "Globex", "Initech", "Hooli", "Vehement", "Massive", "Soylent"];

fn account(n: usize) -> String {
    format!("account-{n:07}")
}

fn rate(what: &str, count: usize, took: Duration) {
    println!("{what}: {:.0}/s ({:.1} s)", count as f64 / took.as_secs_f64(), took.as_secs_f64());
}

/// Sends operations in batches, some writers at once.
fn batches(admin: &Admin, count: usize, writers: usize, operation: impl Fn(usize) -> Value + Sync) -> Duration {
    let started = Instant::now();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..writers.max(1) {
            scope.spawn(|| {
                loop {
                    let from = BATCH * next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if from >= count {
                        return;
                    }
                    let operations: Vec<Value> = (from..count.min(from + BATCH)).map(&operation).collect();
                    admin.write("POST", "/v1/batch", &json!({ "operations": operations }));
                }
            });
        }
    });
    started.elapsed()
}

fn list(admin: &Admin, accounts: usize) -> Result<()> {
    let (mut times, mut cursor, mut seen, started) = (new(), String::new(), 0, Instant::now());
    loop {
        let asked = Instant::now();
        let page = admin.get(&format!("/v1/accounts?limit=1000{cursor}"));
        times.record(micros(asked))?;
        seen += page["data"].as_array().map_or(0, Vec::len);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    ensure!(seen == accounts, "listed {seen} of {accounts}");
    told("a page of 1,000 accounts", &times);
    println!("all accounts listed: {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn search(admin: &Admin) -> Result<()> {
    let (mut rare, mut common) = (new(), new());
    for n in 0..100 {
        let asked = Instant::now();
        let found = admin.get(&format!("/v1/accounts?name_prefix={}%20{n}", NAMES[n % NAMES.len()].to_lowercase()));
        rare.record(micros(asked))?;
        let first = found["data"][0]["name"].as_str().unwrap_or_default().to_owned();
        ensure!(first.starts_with(NAMES[n % NAMES.len()]), "found {first:?}");
        let asked = Instant::now();
        admin.get("/v1/accounts?name_prefix=u");
        common.record(micros(asked))?;
    }
    told("search by a name's beginning, some hundred or thousand match", &rare);
    told("search by one letter, an eighth of all match", &common);
    Ok(())
}

fn apply(admin: &Admin, accounts: usize) -> Result<()> {
    let document = |tier: &str| {
        let accounts: Vec<Value> = (0..accounts)
            .map(|n| json!({ "id": format!("declared-{n:06}"), "name": format!("Declared {n}"), "tier": tier }))
            .collect();
        json!({ "version": 1, "tiers": [{ "name": "declared" }, { "name": "other" }], "accounts": accounts })
    };
    for (what, body) in [
        ("made", document("declared")),
        ("unchanged", document("declared")),
        ("all of them changed", document("other")),
    ] {
        let asked = Instant::now();
        let applied = admin.write("POST", "/v1/apply", &body);
        let changes = applied["changes"].as_array().map_or(0, Vec::len);
        println!("apply of {accounts} accounts, {what}: {:.2} s, {changes} changes", asked.elapsed().as_secs_f64());
    }
    Ok(())
}

fn export(admin: &Admin) -> Result<()> {
    let (agent, asked) = (client(), Instant::now());
    let request = agent.get(admin.url("/v1/export")).header("authorization", format!("Bearer {}", admin.token()));
    let request = request.config().timeout_global(Some(Duration::from_secs(600))).build();
    let mut reader = request.call()?.into_body().into_reader();
    let (mut buffer, mut bytes) = (vec![0; 1 << 16], 0);
    loop {
        let read = reader.read(&mut buffer)?;
        bytes += read;
        if read == 0 {
            break;
        }
    }
    println!("export: {:.1} s, {} MiB", asked.elapsed().as_secs_f64(), bytes >> 20);
    Ok(())
}

/// Switches a key off and on, and asks every node with it as soon as the answer is there.
fn changes(cluster: &Cluster, admin: &Admin, changes: usize) -> Result<()> {
    let (id, secret) = admin.create_key(&account(0), &json!({}));
    let agents: Vec<_> = cluster.nodes.iter().map(|_| client()).collect();
    let (mut answered, mut visible) = (new(), new());
    for n in 0..changes {
        let (state, expected) = if n % 2 == 0 { ("disabled", 403) } else { ("active", 200) };
        let asked = Instant::now();
        admin.write("PATCH", &format!("/v1/keys/{id}"), &json!({ "state": state }));
        answered.record(micros(asked))?;
        let done = Instant::now();
        for (node, agent) in cluster.nodes.iter().zip(&agents) {
            let mut first = true;
            while get(agent, &node.url("/"), &secret)?.status != expected {
                first = false;
                ensure!(done.elapsed() < Duration::from_secs(5), "{} does not act on it", node.url("/"));
            }
            // What the first request after the answer met, was in force before it.
            visible.record(if first { 0 } else { micros(done) })?;
        }
    }
    told("a key's change, until it was answered", &answered);
    told("from the answer until every node acts on it (0: the first request met it)", &visible);
    Ok(())
}

fn new() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are possible")
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn told(what: &str, times: &Histogram<u64>) {
    let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1_000.0;
    println!("{what}: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", ms(0.5), ms(0.99), ms(1.0));
}
