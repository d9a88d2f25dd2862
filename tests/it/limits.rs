//! Rate limits and concurrency: exact counts, truthful headers, and one limit over all nodes (P2).

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Admin, Answer, Cluster, Load, Upstream, client, get, until};

/// An account of a tier; its key. Waits until its policies are whole: a leader that is new admits less for a while.
fn account(admin: &Admin, upstream: &Upstream, tier: &Value) -> String {
    admin.put_route(&upstream.url);
    admin.put_tier("limited", tier);
    admin.create_account("acme", "limited");
    let key = admin.create_key("acme", &json!({})).1;
    until("whole limits", || {
        let limits = admin.get("/v1/accounts/acme/limits");
        let whole = |limit: &Value| limit["remaining"] == limit["limit"];
        limits["data"].as_array().expect("a list").iter().all(whole).then_some(())
    });
    key
}

/// A parameter of a policy in `RateLimit` or `RateLimit-Policy`.
fn parameter(answer: &Answer, header: &str, policy: &str, name: &str) -> Option<u64> {
    let items = answer.header(header).split(", ").find(|item| item.starts_with(&format!("\"{policy}\"")))?;
    items.split(';').find_map(|part| part.strip_prefix(&format!("{name}=")))?.parse().ok()
}

#[test]
fn a_burst_is_exact_and_retry_after_is_true() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    // One in three seconds.
    let tier = json!({ "limits": [{ "name": "per-key", "per": ["key"], "rate": "20/m", "burst": 5 }] });
    let key = account(&admin, &upstream, &tier);
    let agent = client();
    let ask = || get(&agent, &cluster.nodes[0].url("/"), &key).expect("an answer");
    let start = Instant::now();
    let (mut admitted, mut last) = (0, None);
    let refused = loop {
        let answer = ask();
        assert_eq!(parameter(&answer, "ratelimit-policy", "per-key", "q"), Some(20), "{:?}", answer.headers);
        assert_eq!(parameter(&answer, "ratelimit-policy", "per-key", "w"), Some(60), "{:?}", answer.headers);
        let remaining = parameter(&answer, "ratelimit", "per-key", "r").expect("r");
        assert!(remaining < 5, "{:?}", answer.headers);
        assert!(parameter(&answer, "ratelimit", "per-key", "t").is_some(), "{:?}", answer.headers);
        if answer.status != 200 {
            assert_eq!(remaining, 0);
            break answer;
        }
        admitted += 1;
        if start.elapsed() < Duration::from_secs(2) {
            assert!(last.is_none_or(|last| last == remaining + 1), "{last:?} then {remaining}");
        }
        last = Some(remaining);
    };
    refused.assert_problem(429, "rate-limited");
    let most = 5 + start.elapsed().as_secs() / 3 + u64::from(start.elapsed().as_secs() >= 3);
    assert!((5..=most).contains(&admitted), "{admitted} admitted in {:?}", start.elapsed());
    assert!(refused.retry_after() <= Duration::from_secs(3), "{:?}", refused.retry_after());
    for _ in 0..2 {
        // What the answer says to wait, and no more.
        let refused = ask();
        refused.assert_problem(429, "rate-limited");
        thread::sleep(refused.retry_after());
        assert_eq!(ask().status, 200);
    }
}

#[test]
fn keys_and_routes_count_apart_when_the_limit_says_so() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    let limits = json!([
        { "name": "each", "per": ["key", "route"], "rate": "1/h", "burst": 2 },
        { "name": "all", "per": ["account"], "rate": "1/h", "burst": 5 },
    ]);
    let first = account(&admin, &upstream, &json!({ "limits": limits }));
    admin.write("PUT", "/v1/routes/other", &json!({ "match": { "path_prefix": "/other" }, "upstream": "scan" }));
    let (_, second) = admin.create_key("acme", &json!({}));
    let agent = client();
    let mut refusals = Vec::new();
    let mut ask = |key: &str, path: &str| {
        let answer = get(&agent, &cluster.nodes[0].url(path), key).expect("an answer");
        refusals.push(answer.body["violated-policies"].clone());
        answer.status
    };
    let statuses = [
        ask(&first, "/"),
        ask(&first, "/"),
        ask(&first, "/"),
        ask(&first, "/other"),
        ask(&second, "/"),
        // The refused one took nothing of `all`.
        ask(&second, "/other"),
        ask(&second, "/other"),
    ];
    assert_eq!(statuses, [200, 200, 429, 200, 200, 200, 429]);
    assert_eq!((&refusals[2], &refusals[6]), (&json!(["each"]), &json!(["all"])));
}

#[test]
fn concurrency_is_exact_on_one_node_and_on_three() {
    for nodes in [1, 3] {
        let upstream = Upstream::start();
        let cluster = Cluster::start(nodes);
        let admin = cluster.nodes[0].admin();
        let key = account(&admin, &upstream, &json!({ "concurrency": 3 }));
        let barrier = Barrier::new(12);
        let statuses: Vec<(u16, Duration)> = thread::scope(|scope| {
            let client = |n: usize| {
                let (cluster, key, barrier) = (&cluster, &key, &barrier);
                scope.spawn(move || {
                    let agent = client();
                    barrier.wait();
                    let start = Instant::now();
                    let answer = get(&agent, &cluster.nodes[n % nodes].url("/delay/4000"), key).expect("an answer");
                    if answer.status != 200 {
                        answer.assert_problem(429, "concurrency-exceeded");
                    }
                    (answer.status, start.elapsed())
                })
            };
            let clients: Vec<_> = (0..12).map(client).collect();
            clients.into_iter().map(|client| client.join().expect("joins")).collect()
        });
        // All others were refused while these ran.
        assert!(
            statuses.iter().all(|(status, took)| *status == 200 || *took < Duration::from_secs(4)),
            "{nodes} nodes: {statuses:?}"
        );
        let admitted = statuses.iter().filter(|(status, _)| *status == 200).count();
        assert_eq!(admitted, 3, "{nodes} nodes: {statuses:?}");
        assert_eq!(upstream.requests(), 3);
        // The units are free again at once.
        let free = until("free units", || {
            let answer = get(&client(), &cluster.nodes[nodes - 1].url("/"), &key).ok()?;
            (answer.status == 200).then_some(answer)
        });
        assert!(free.header("ratelimit").contains("\"concurrency\";r="), "{:?}", free.headers);
    }
}

#[test]
fn a_flood_over_three_nodes_stays_within_the_one_limit() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    let admin = cluster.nodes[0].admin();
    let tier = json!({ "limits": [{ "name": "all", "per": ["account"], "rate": "40/s", "burst": 20 }] });
    let key = account(&admin, &upstream, &tier);
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    let start = Instant::now();
    let load = Load::start(&urls, &key, 3);
    until("120 admitted", || (upstream.requests() >= 120).then_some(()));
    let report = load.stop();
    let elapsed = start.elapsed();
    let admitted = report.received.iter().filter(|answer| answer.status == 200).count();
    println!("{admitted} admitted in {elapsed:?}: {:?}", report.counts());
    let most = 20.0 + 40.0 * elapsed.as_secs_f64();
    assert!(upstream.requests() as f64 <= most, "{} admitted, at most {most}", upstream.requests());
    assert!(report.received.iter().all(|answer| matches!(answer.status, 200 | 429)), "{:?}", report.counts());
    assert_eq!(report.errors, 0);
    assert_eq!(admin.rows("account=acme&status=200").len(), admitted);
}

#[test]
fn a_flood_stays_within_the_limit_when_the_leader_dies() {
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(3);
    let tier = json!({ "limits": [{ "name": "all", "per": ["account"], "rate": "40/s", "burst": 80 }] });
    let key = account(&cluster.nodes[0].admin(), &upstream, &tier);
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    let leader = cluster.leader(1);
    let start = Instant::now();
    let within = |when: &str| {
        let admitted = upstream.requests();
        let most = 80.0 + 40.0 * start.elapsed().as_secs_f64();
        assert!(admitted as f64 <= most, "{when}: {admitted} admitted, at most {most}");
        admitted
    };
    let load = Load::start(&urls, &key, 3);
    until("the burst and more", || (within("before") >= 100).then_some(()));
    cluster.nodes[leader].kill();
    let before = within("at the kill");
    until("units of the next leader", || (within("after") >= before + 100).then_some(()));
    cluster.nodes[leader].start();
    cluster.nodes[leader].wait_ready();
    let before = within("at the return");
    until("units after the return", || (within("after the return") >= before + 100).then_some(()));
    let report = load.stop();
    within("at the end");
    println!("{} admitted in {:?}: {:?}", upstream.requests(), start.elapsed(), report.counts());
    assert!(report.received.iter().all(|answer| matches!(answer.status, 200 | 429 | 503)), "{:?}", report.counts());
}

#[test]
fn rejections_are_coalesced_and_all_of_them_are_counted() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    let key = account(&admin, &upstream, &json!({ "limits": [{ "name": "slowly", "rate": "1/h", "burst": 1 }] }));
    let agent = client();
    let ask = || get(&agent, &cluster.nodes[0].url("/"), &key).expect("an answer");
    assert_eq!(ask().status, 200);
    let ids: Vec<String> = (0..500)
        .map(|_| {
            let answer = ask();
            answer.assert_problem(429, "rate-limited");
            answer.header("x-request-id").to_owned()
        })
        .collect();
    let rows = until("all rejections in rows", || {
        let rows = admin.rows("account=acme&status=429");
        let count: u64 = rows.iter().map(|row| row["count"].as_u64().expect("a count")).sum();
        assert!(count <= 500, "{count} counted of 500");
        (count == 500).then_some(rows)
    });
    assert!(rows.iter().all(|row| row["outcome"] == "rate-limited"), "{rows:?}");
    assert!(rows.len() < 250, "{} rows for 500 rejections", rows.len());
    let own: Vec<&str> =
        rows.iter().filter(|row| row["count"] == 1).filter_map(|row| row["request_id"].as_str()).collect();
    assert!(ids[..10].iter().all(|id| own.contains(&id.as_str())), "the first ten of a second have rows of their own");
    let usage = until("the usage", || {
        let usage = admin.get("/v1/accounts/acme/usage?step=hour");
        let sum: u64 = usage["data"].as_array()?.iter().filter_map(|point| point["rejected"].as_u64()).sum();
        (sum == 500).then_some(usage)
    });
    println!("{} rows; usage {usage}", rows.len());
}

#[test]
fn a_limit_that_is_lowered_or_raised_is_in_force_at_once() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    let admin = cluster.nodes[0].admin();
    let tier = |burst: u64| json!({ "limits": [{ "name": "all", "rate": "1/h", "burst": burst }] });
    let key = account(&admin, &upstream, &tier(100));
    let agent = client();
    let ask = |node: usize| get(&agent, &cluster.nodes[node].url("/"), &key).expect("an answer").status;
    assert_eq!([ask(0), ask(1), ask(2)], [200; 3]);
    admin.put_tier("limited", &tier(1));
    assert_eq!([ask(0), ask(1), ask(2)], [429; 3], "three were used, one is allowed");
    admin.put_tier("limited", &tier(100));
    assert_eq!([ask(0), ask(1), ask(2)], [200; 3]);
}

#[test]
fn an_even_client_at_80_percent_of_a_small_limit_sees_no_429_over_three_nodes() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    let admin = cluster.nodes[0].admin();
    let tier = json!({ "limits": [{ "name": "all", "per": ["account"], "rate": "5/s", "burst": 1 }] });
    let key = account(&admin, &upstream, &tier);
    let agents: Vec<_> = cluster.nodes.iter().map(|_| client()).collect();
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    // Each from a thread of its own at its own time, so that a slow answer moves no other.
    let start = Instant::now() + Duration::from_millis(200);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let send = |n: usize| {
            let (agent, url, key) = (&agents[n % 3], &urls[n % 3], &key);
            scope.spawn(move || {
                let at = start + Duration::from_millis(250) * u32::try_from(n).expect("few");
                thread::sleep(at.saturating_duration_since(Instant::now()));
                get(agent, url, key).expect("an answer").status
            })
        };
        let sent: Vec<_> = (0..60).map(send).collect();
        sent.into_iter().map(|sent| sent.join().expect("joins")).collect()
    });
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}
