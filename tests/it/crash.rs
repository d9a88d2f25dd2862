//! Processes end without a warning: what was answered is in the log, exactly once, and nobody is told that a key is bad.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Cluster, Load, PATIENCE, Report, Upstream, client, get, until};

/// How many 200s a node gives before it is killed: another moment each round.
fn moment(round: u64) -> u64 {
    20 + round * 37 % 150
}

/// Kills in each test: 20, or `KILL_ROUNDS` (the nightly run has 200).
fn rounds() -> usize {
    std::env::var("KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20)
}

#[test]
fn an_only_node_killed_twenty_times_under_load_keeps_every_answered_row_once() {
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(1);
    let node = &mut cluster.nodes[0];
    let key = node.admin().open_account(&upstream.url);
    let mut all = Report::default();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds() {
        // A body that is released after its row, and settled by a second record, every fourth time.
        let path = if round % 4 == 3 { "/bytes/100000" } else { "/" };
        let load = Load::start(&[node.url(path)], &key, 8);
        load.wait_more(0, moment(round as u64));
        node.kill();
        let report = load.stop();
        assert!(report.errors > 0, "the kill was in the middle of requests");
        all.add(report);
        let start = Instant::now();
        node.start();
        node.wait_ready();
        slowest = slowest.max(start.elapsed());
    }
    let rows = node.admin().rows("account=acme");
    all.check(&rows).unwrap();
    println!("answers {:?}, {} rows; restart until ready: at most {slowest:?}", all.counts(), rows.len());
}

#[test]
fn three_nodes_killed_in_turn_under_load_keep_every_answered_row_once() {
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(3);
    let key = cluster.nodes[0].admin().open_account(&upstream.url);
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    let load = Load::start(&urls, &key, 3);
    let mut kills = Vec::new();
    for round in 0..rounds() {
        let leader = cluster.leader(1);
        // Every other time the ledger's leader; in between each of the nodes.
        let victim = if round % 2 == 0 { leader } else { (round / 2) % 3 };
        load.wait_more(victim, moment(round as u64) / 4);
        let at = Instant::now();
        cluster.nodes[victim].kill();
        for other in (0..3).filter(|other| *other != victim) {
            load.wait_more(other, 10);
        }
        kills.push((at, Instant::now(), victim, victim == leader));
        cluster.nodes[victim].start();
        cluster.nodes[victim].wait_ready();
    }
    let report = load.stop();
    for node in &cluster.nodes {
        let rows = node.admin().rows("account=acme");
        report.check(&rows).unwrap_or_else(|error| panic!("{}: {error}", node.name));
    }
    for leaders in [true, false] {
        let mut gaps: Vec<Duration> = kills
            .iter()
            .filter(|kill| kill.3 == leaders)
            .map(|(from, until, victim, _)| {
                let others = (0..3).filter(|other| other != victim);
                others.map(|other| report.longest_gap(other, *from, *until)).max().unwrap_or_default()
            })
            .collect();
        gaps.sort_unstable();
        let who = if leaders { "the ledger's leader" } else { "another node" };
        println!("time without a 200 after {who} was killed: median {:?}, all {gaps:?}", gaps[gaps.len() / 2]);
        // An election takes at most 1 s and a second one if votes split; the rest is a busy machine's.
        assert!(gaps.iter().all(|gap| *gap < Duration::from_secs(10)), "{gaps:?}");
    }
    println!("{} answers: {:?}, {} without", report.received.len(), report.counts(), report.errors);
}

#[test]
fn sigterm_lets_requests_in_flight_finish_and_exits_with_0() {
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(1);
    let node = &mut cluster.nodes[0];
    let key = node.admin().open_account(&upstream.url);
    let url = node.url("/delay/1000");
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (url, key) = (url.clone(), key.clone());
            std::thread::spawn(move || get(&client(), &url, &key).expect("an answer"))
        })
        .collect();
    until("eight requests in flight", || (upstream.requests() == 8).then_some(()));
    let start = Instant::now();
    let status = node.stop();
    assert_eq!(status.code(), Some(0), "{}", node.log_tail());
    assert!(start.elapsed() < Duration::from_secs(10), "it waited for more than what was in flight");
    let ids: Vec<String> = clients
        .into_iter()
        .map(|client| {
            let answer = client.join().expect("a client does not panic");
            assert_eq!((answer.status, answer.text.as_str()), (200, "late"));
            answer.header("x-request-id").to_owned()
        })
        .collect();
    node.start();
    node.wait_ready();
    for id in ids {
        assert_eq!(node.admin().row(&id)["completion"], "complete");
    }
}

#[test]
fn sigterm_of_the_leader_under_load_hands_leadership_over() {
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(3);
    let key = cluster.nodes[0].admin().open_account(&upstream.url);
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    let load = Load::start(&urls, &key, 3);
    let leader = cluster.leader(1);
    let others: Vec<usize> = (0..3).filter(|other| *other != leader).collect();
    load.wait_more(leader, 50);
    let from = Instant::now();
    let status = cluster.nodes[leader].stop();
    let took = from.elapsed();
    assert_eq!(status.code(), Some(0), "{}", cluster.nodes[leader].log_tail());
    for other in &others {
        load.wait_more(*other, 50);
    }
    let until = Instant::now();
    let report = load.stop();
    for other in &others {
        let rows = cluster.nodes[*other].admin().rows("account=acme");
        report.check(&rows).unwrap();
        println!("time without a 200 after SIGTERM: {:?}", report.longest_gap(*other, from, until));
    }
    println!("SIGTERM to exit: {took:?}; answers {:?}, {} without", report.counts(), report.errors);
}

/// A limit that refills within two seconds lives in its leader's memory, and the next leader begins with it empty: that is no
/// reason to tell a client within its limits 429.
#[test]
fn the_loss_of_a_leader_is_never_a_429() {
    let upstream = Upstream::start();
    for count in [1, 3] {
        let mut cluster = Cluster::start(count);
        let admin = cluster.nodes[0].admin();
        let key = admin.open_account(&upstream.url);
        let limit = json!([{ "name": "fast", "per": ["key"], "rate": "20/s", "burst": 40 }]);
        admin.put_tier("open", &json!({ "limits": limit }));
        let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
        for _ in 0..3 {
            let victim = cluster.leader(1);
            cluster.nodes[victim].kill();
            if count == 1 {
                cluster.nodes[victim].start();
            }
            // Four at a time, each node that is there asked in turn: fewer in all than come back meanwhile.
            let asked = Instant::now();
            let (mut turn, mut served) = (0, 0);
            while served < 8 && asked.elapsed() < PATIENCE {
                turn += 1;
                let url = &urls[(victim + turn % count.max(2)) % count];
                let answers: Vec<_> = std::thread::scope(|scope| {
                    let ask = || scope.spawn(|| get(&client(), url, &key).ok());
                    let asking: Vec<_> = (0..4).map(|_| ask()).collect();
                    asking.into_iter().filter_map(|asking| asking.join().expect("joins")).collect()
                });
                for answer in &answers {
                    assert!(matches!(answer.status, 200 | 503), "{count} nodes: {}", answer.text);
                    served += usize::from(answer.status == 200);
                }
                std::thread::sleep(Duration::from_millis(if answers.is_empty() { 10 } else { 400 }));
            }
            assert!(served >= 8, "{count} nodes: {served} served");
            if count > 1 {
                cluster.nodes[victim].start();
            }
            cluster.nodes[victim].wait_ready();
        }
    }
}
