//! P3 when nodes are slow, stopped or cut off: what was answered is in force, and who cannot know says 503.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Cluster, Options, Raw, Upstream, client, get, until};

/// The longest that a node may decide by what it knew: the lease on its view, and once more the look of a stream.
const LEASE: Duration = Duration::from_secs(3);

/// The time that an answer says its write took.
fn write_ms(answer: &tests::Answer) -> u64 {
    answer.header("tollgate-write-ms").parse().unwrap_or_else(|_| panic!("no time: {:?}", answer.headers))
}

#[test]
fn a_write_says_how_long_it_took_and_a_node_that_slept_through_it_admits_nothing_by_what_was() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    let leader = cluster.leader(0);
    let (asleep, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let admin = cluster.nodes[other].admin();
    admin.open_account(&upstream.url);
    // What predecessors of this leader may have granted is over.
    std::thread::sleep(LEASE + Duration::from_secs(1));
    let (id, key) = admin.create_key("acme", &json!({}));
    let (_, kept) = admin.create_key("acme", &json!({}));
    let made = admin.call("POST", "/v1/accounts/acme/keys", Some(&json!({})));
    assert!(write_ms(&made) < 1_000 && made.header("tollgate-waited-out").is_empty(), "{:?}", made.headers);
    for node in &cluster.nodes {
        assert_eq!(get(&client(), &node.url("/"), &key).expect("an answer").status, 200);
    }

    cluster.nodes[asleep].signal(libc::SIGSTOP);
    let started = Instant::now();
    let revoked = admin.call("DELETE", &format!("/v1/keys/{id}"), None);
    let took = started.elapsed();
    assert_eq!(revoked.status, 204, "{}", revoked.text);
    assert_eq!(revoked.header("tollgate-waited-out"), cluster.nodes[asleep].name);
    // It was admitting a moment before it fell asleep, so its lease was waited for.
    assert!(took > Duration::from_secs(2) && took < LEASE + Duration::from_secs(1), "{took:?}");
    assert!(write_ms(&revoked) <= took.as_millis() as u64 && write_ms(&revoked) > 2_000, "{:?}", revoked.headers);
    // The next one has no lease to wait for.
    let next = admin.call("POST", "/v1/accounts/acme/keys", Some(&json!({})));
    assert!(write_ms(&next) < 1_000, "{:?}", next.headers);
    assert_eq!(next.header("tollgate-waited-out"), cluster.nodes[asleep].name);

    cluster.nodes[asleep].signal(libc::SIGCONT);
    let agent = client();
    let mut seen = Vec::new();
    until("what it knows now", || {
        let answer = get(&agent, &cluster.nodes[asleep].url("/"), &key).expect("an answer");
        seen.push(answer.status);
        assert!(matches!(answer.status, 401 | 503), "{seen:?}: {}", answer.text);
        (answer.status == 401).then_some(())
    });
    assert_eq!(get(&agent, &cluster.nodes[asleep].url("/"), &kept).expect("an answer").status, 200);
    println!("revoked in {took:?}; the node that had slept said {seen:?}");
}

#[test]
fn a_node_that_is_cut_off_says_503_and_ends_its_streams() {
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(3);
    let key = cluster.nodes[0].admin().open_account(&upstream.url);
    for cut_off in [cluster.leader(0), (cluster.leader(0) + 1) % 3] {
        let node = &cluster.nodes[cut_off];
        let mut stream = Raw::request(&node.data_addr, "GET /sse/400/20", &key, "");
        assert_eq!(stream.head().expect("a head").status, 200);
        let others: Vec<usize> = (0..3).filter(|other| *other != cut_off).collect();
        for other in &others {
            cluster.nodes[*other].kill();
        }
        let alone = Instant::now();
        let ended = std::thread::spawn(move || {
            while stream.chunk().is_ok_and(|chunk| !chunk.is_empty()) {}
            alone.elapsed()
        });
        let (agent, url) = (client(), cluster.nodes[cut_off].url("/"));
        let unknown = crate::contract::unknown_key();
        let mut refused = 0;
        while alone.elapsed() < LEASE + Duration::from_secs(2) {
            for (key, known) in [(&key, true), (&unknown, false)] {
                let answer = get(&agent, &url, key).expect("an answer");
                // A known key may be let through until contact is lost, and then its row finds no quorum.
                let may = answer.status == 503 || !known && alone.elapsed() < LEASE && answer.status == 401;
                assert!(may, "after {:?}: {} {}", alone.elapsed(), answer.status, answer.text);
                refused += usize::from(answer.status == 503);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // P4: a read that must be linearizable has no answer, a stale one says how old it is, also on who had led.
        let admin = cluster.nodes[cut_off].admin();
        admin.call("GET", "/v1/accounts/acme", None).assert_problem(503, "temporary-reduced-capacity");
        let (before, stale) = (alone.elapsed(), admin.call("GET", "/v1/accounts/acme?consistency=stale", None));
        let age_ms: u64 = stale.header("tollgate-staleness-ms").parse().expect("an age");
        assert_eq!((stale.status, &stale.body["id"]), (200, &json!("acme")));
        let (least, most) = (before.as_millis() as u64, alone.elapsed().as_millis() as u64 + 2_000);
        assert!((least..most).contains(&age_ms), "{age_ms} ms of {least} to {most}");
        let ended = ended.join().expect("reads");
        println!("node {cut_off}: {refused} times 503, its stream ended after {ended:?}");
        assert!(ended < LEASE + Duration::from_secs(1), "{ended:?}");
        for other in others {
            cluster.nodes[other].start();
        }
        for node in &mut cluster.nodes {
            node.wait_ready();
        }
    }
}

/// Ready means that a request is decided now: neither refused nor kept waiting for a leader that does not grant yet.
#[test]
fn ready_means_that_a_request_is_decided_now() {
    let upstream = Upstream::start();
    for count in [1, 3] {
        let mut cluster = Cluster::new(count, &Options::default());
        cluster.start_all();
        let key = cluster.nodes[0].admin().open_account(&upstream.url);
        for round in 0..3 {
            for node in &mut cluster.nodes {
                node.stop();
            }
            for node in &mut cluster.nodes {
                node.start();
            }
            let started = Instant::now();
            let agent = client();
            for node in &mut cluster.nodes {
                node.wait_ready();
                let (ready, asked) = (started.elapsed(), Instant::now());
                let answer = get(&agent, &node.url("/"), &key).expect("an answer");
                let took = asked.elapsed();
                println!("{count} nodes, round {round}, {}: ready after {ready:?}, decided in {took:?}", node.name);
                assert_eq!(answer.status, 200, "{}", answer.text);
                assert!(took < Duration::from_millis(300), "{took:?} after it said that it was ready");
            }
        }
    }
}
