//! How long does a cluster of three give no answers when its leader goes, how long does a revocation take, and how near does
//! it come to its limits?
//!
//! Back of the envelope: an election begins 0.7 to 1 s after the last heartbeat, and units of a rate are lent again half a
//! second later; a cut leader is silent just like a dead one; a revocation is one commit and a word from each node, so a few milliseconds; at steady load units are on lease before
//! they are asked for. `cargo run --release -p tests --bin cluster-bench` (each process in a network namespace, as `rounds`).
//!
//! Clients send when the one before was answered: a gap is the longest time in which a node that was neither killed nor cut
//! gave no 200, the worse of the two.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use serde_json::json;
use tests::{
    Load, Net, client, get,
    rounds::{Random, World},
    until,
};

/// Clients' pause after an answer.
const PAUSE: Duration = Duration::from_millis(5);
/// Units a second, and at once, of the account whose limit is used up.
const SCARCE: u64 = 200;
/// Of the account that never uses its limit up.
const AMPLE: u64 = 2_000;

/// Failover, revocation and steady load of three nodes.
#[derive(Debug, Parser)]
struct Args {
    /// Kills of the leader.
    #[arg(long, default_value_t = 0)]
    kills: usize,
    /// Times that the leader is cut off.
    #[arg(long, default_value_t = 0)]
    cuts: usize,
    /// Revocations with all nodes healthy.
    #[arg(long, default_value_t = 0)]
    revokes: usize,
    /// Seconds at steady load.
    #[arg(long, default_value_t = 0)]
    steady: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match Net::enter() {
        Ok(Some(code)) => return code,
        Ok(None) => {}
        Err(why) => {
            eprintln!("cannot run: {why}");
            return ExitCode::FAILURE;
        }
    }
    let (mut world, open) = World::start();
    let limit = |units: u64| {
        let limit = json!({ "name": "all", "per": ["account"], "rate": format!("{units}/s"), "burst": units });
        json!({ "limits": [limit] })
    };
    let keys = [open, world.account("ample", &limit(AMPLE))];
    failovers(&mut world, &keys, args.kills, "leader killed", |world, leader| world.cluster.nodes[leader].kill());
    failovers(&mut world, &keys, args.cuts, "leader cut off", |world, leader| {
        world.net.cut_off(leader, true, true, true);
    });
    revocations(&world, args.revokes);
    if args.steady > 0 {
        let scarce = world.account("scarce", &limit(SCARCE));
        steady(&world, &keys[1], &scarce, Duration::from_secs(args.steady));
    }
    ExitCode::SUCCESS
}

/// The leader goes `count` times.
fn failovers(world: &mut World, keys: &[String; 2], count: usize, what: &str, go: impl Fn(&mut World, usize)) {
    let mut gaps = [const { Vec::new() }; 2];
    for number in 0..count {
        let leader = world.leader();
        let loads = keys.clone().map(|key| Load::paced(&world.urls("/"), &key, 1, PAUSE));
        for (load, target) in loads.iter().flat_map(|load| (0..3).map(move |target| (load, target))) {
            load.wait_more(target, 50);
        }
        let gone = Instant::now();
        go(world, leader);
        for (load, target) in loads.iter().flat_map(|load| (0..3).map(move |target| (load, target))) {
            if target != leader {
                load.wait_more(target, 50);
            }
        }
        let back = Instant::now();
        for (gaps, load) in gaps.iter_mut().zip(loads) {
            let report = load.stop();
            let others = (0..3).filter(|target| *target != leader);
            gaps.extend(others.map(|target| report.longest_gap(target, gone, back)).max());
        }
        println!("{what} {}: {:.0?} without limits, {:.0?} with", number + 1, gaps[0][number], gaps[1][number]);
        world.heal();
    }
    if count > 0 {
        println!("{what}, without a 200: no limits {}; a rate limit {}", quantiles(&gaps[0]), quantiles(&gaps[1]));
    }
}

/// Keys that every node has just let in are revoked through each node in turn.
fn revocations(world: &World, count: usize) {
    let agent = client();
    let mut times = Vec::new();
    // What predecessors of this leader may have granted is over.
    std::thread::sleep(Duration::from_secs(5));
    for number in 0..count {
        let (id, key) = world.key("acme");
        for url in world.urls("/") {
            until("a 200", || get(&agent, &url, &key).ok().filter(|answer| answer.status == 200));
        }
        let admin = world.cluster.nodes[number % 3].admin();
        // The connection is there.
        admin.get("/v1/accounts/acme?consistency=stale");
        let asked = Instant::now();
        let answer = admin.call("DELETE", &format!("/v1/keys/{id}"), None);
        times.push(asked.elapsed());
        assert_eq!(answer.status, 204, "{}", answer.text);
        for url in world.urls("/") {
            assert_eq!(get(&agent, &url, &key).expect("an answer").status, 401);
        }
    }
    if count > 0 {
        println!("a revocation is in force everywhere after {}", quantiles(&times));
    }
}

/// A limit that is used up by many clients, and one that is not.
fn steady(world: &World, ample: &str, scarce: &str, long: Duration) {
    let load = Load::paced(&world.urls("/"), scarce, 3, PAUSE);
    // The burst is gone.
    let mut random = Random::new(1);
    std::thread::sleep(Duration::from_secs(3) + random.millis(0..100));
    let from = Instant::now();
    std::thread::sleep(long);
    let to = Instant::now();
    let report = load.stop();
    let answered = |status: u16| {
        report.received.iter().filter(|one| one.status == status && (from..to).contains(&one.at)).count() as f64
    };
    let allowed = SCARCE as f64 * (to - from).as_secs_f64();
    println!(
        "{SCARCE}/s on three nodes, {:.0} requests/s: {:.0} of {allowed:.0} admitted, {:.2} % too few",
        (answered(200) + answered(429)) / (to - from).as_secs_f64(),
        answered(200),
        (1.0 - answered(200) / allowed) * 100.0
    );
    let load = Load::paced(&world.urls("/"), ample, 3, PAUSE);
    std::thread::sleep(Duration::from_secs(2));
    let before = waits(world);
    std::thread::sleep(long);
    let after = waits(world);
    drop(load.stop());
    for (node, (before, after)) in before.iter().zip(&after).enumerate() {
        let (granted, waited) = (after.0 - before.0, after.1 - before.1);
        println!(
            "node {} (leads: {}): {granted} let through, {waited} waited: {:.2} % from memory",
            node + 1,
            world.leader() == node,
            (1.0 - waited / granted.max(1.0)) * 100.0
        );
    }
}

/// Of each node: requests let through, and those that waited for a word from elsewhere.
fn waits(world: &World) -> Vec<(f64, f64)> {
    let agent = client();
    let of = |admin_addr: &str| {
        let text = get(&agent, &format!("http://{admin_addr}/metrics"), "").expect("metrics").text;
        let value = |name: &str| {
            let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(f64::NAN)
        };
        (value("tollgate_lease_granted_total"), value("tollgate_lease_waited_total"))
    };
    world.cluster.nodes.iter().map(|node| of(&node.admin_addr)).collect()
}

fn quantiles(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |part: f64| times[((times.len() as f64 * part).ceil() as usize).clamp(1, times.len()) - 1];
    format!("p50 {:.1?}, p99 {:.1?}, max {:.1?} of {}", at(0.5), at(0.99), at(1.0), times.len())
}
