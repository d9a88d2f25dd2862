//! Quotas: exact totals however they are asked for, and calendar periods that end when the calendar says.

use std::{
    path::Path,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tests::{Admin, Answer, Cluster, Load, Options, Upstream, client, get, post, unix_seconds, until};

fn account(admin: &Admin, upstream: &Upstream, quota: &Value) -> String {
    admin.put_route(&upstream.url);
    admin.put_tier("limited", &json!({ "quotas": [quota] }));
    admin.create_account("acme", "limited");
    admin.create_key("acme", &json!({})).1
}

fn requests(limit: u64) -> Value {
    json!({ "name": "daily", "unit": "requests", "limit": limit, "period": "day" })
}

/// Sum of a field over a usage answer.
fn sum(usage: &Value, field: &str) -> u64 {
    usage["data"].as_array().expect("a list").iter().map(|point| point[field].as_u64().expect("a number")).sum()
}

#[test]
fn a_quota_of_requests_ends_in_429_until_its_period_does() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    let key = account(&admin, &upstream, &requests(7));
    let agent = client();
    let ask = || get(&agent, &cluster.nodes[0].url("/"), &key).expect("an answer");
    for left in (0..7).rev() {
        let answer = ask();
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(answer.header("ratelimit").contains(&format!("\"daily\";r={left};t=")), "{:?}", answer.headers);
        assert!(answer.header("ratelimit-policy").contains("\"daily\";q=7"), "{:?}", answer.headers);
    }
    for _ in 0..3 {
        let answer = ask();
        answer.assert_problem(429, "quota-exceeded");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let left = 86_400 - now % 86_400;
        assert!(answer.retry_after().as_secs().abs_diff(left) <= 2, "{:?}, {left} s left", answer.retry_after());
    }
    assert_eq!(upstream.requests(), 7);
    let now = &admin.get("/v1/accounts/acme/limits")["data"][0];
    assert_eq!((&now["limit"], &now["used"], &now["remaining"]), (&json!(7), &json!(7), &json!(0)), "{now}");
    assert!(now["resets_at"].as_str().is_some_and(|text| text.contains("T00:00:00")), "{now}");
    // Raised, it goes on at once; lowered below what was used, it stops at once.
    admin.put_tier("limited", &json!({ "quotas": [requests(9)] }));
    assert_eq!([ask().status, ask().status, ask().status], [200, 200, 429]);
    admin.put_tier("limited", &json!({ "quotas": [requests(4)] }));
    assert_eq!(ask().status, 429);
    let allowed = json!({ "name": "daily", "limit": 4, "period": "day", "overage": "allow" });
    admin.put_tier("limited", &json!({ "quotas": [allowed] }));
    assert_eq!(ask().status, 200);
}

#[test]
fn a_quota_of_bytes_counts_what_was_sent() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    let quota = json!({ "name": "bytes", "unit": "content-bytes", "limit": 1_000, "period": "day" });
    let key = account(&admin, &upstream, &quota);
    let agent = client();
    let send =
        |bytes: usize| post(&agent, &cluster.nodes[0].url("/count"), &key, &vec![b'x'; bytes]).expect("an answer");
    let statuses: Vec<u16> = [300, 300, 300, 101, 100, 1].map(|bytes| send(bytes).status).into();
    assert_eq!(statuses, [200, 200, 200, 429, 200, 429]);
    let refused = send(1);
    refused.assert_problem(429, "quota-exceeded");
    assert_eq!(refused.body["violated-policies"], json!(["bytes"]));
    assert!(
        refused.header("ratelimit-policy").contains("\"bytes\";q=1000;qu=\"content-bytes\""),
        "{:?}",
        refused.headers
    );
    let bytes: u64 = admin.rows("status=200").iter().map(|row| row["bytes_in"].as_u64().expect("a number")).sum();
    assert_eq!(bytes, 1_000);
}

/// 32 clients that send until all nodes refuse; what was admitted.
fn exhaust(cluster: &Cluster, key: &str, body: &[u8]) -> u64 {
    thread::scope(|scope| {
        let run = |n: usize| {
            let (nodes, agent) = (&cluster.nodes, client());
            move || {
                let (mut admitted, mut refused, mut turn) = (0, 0, n);
                // A node may refuse while another still has units: ask each several times.
                while refused < 3 * nodes.len() {
                    let answer = post(&agent, &nodes[turn % nodes.len()].url("/count"), key, body).expect("an answer");
                    turn += 1;
                    if answer.status == 200 {
                        (admitted, refused) = (admitted + 1, 0);
                    } else {
                        answer.assert_problem(429, "quota-exceeded");
                        refused += 1;
                    }
                }
                admitted
            }
        };
        let clients: Vec<_> = (0..32).map(|n| scope.spawn(run(n))).collect();
        clients.into_iter().map(|client| client.join().expect("joins")).sum()
    })
}

#[test]
fn totals_are_exact_under_32_clients_on_one_node_and_on_three() {
    for nodes in [1, 3] {
        let upstream = Upstream::start();
        let cluster = Cluster::start(nodes);
        let admin = cluster.nodes[0].admin();
        let limit = 400;
        let key = account(&admin, &upstream, &requests(limit));
        let mut admitted = exhaust(&cluster, &key, b"");
        assert!(admitted <= limit, "{nodes} nodes: {admitted} of {limit}");
        // What a node has set aside and does not use, it gives back.
        until("the whole quota", || {
            admitted += exhaust(&cluster, &key, b"");
            (admitted >= limit).then_some(())
        });
        assert_eq!((admitted, upstream.requests()), (limit, limit), "{nodes} nodes");
        assert_eq!(admin.rows("account=acme&status=200").len() as u64, limit);
        let rejected = until("the last second's rejections", || {
            let rows = admin.rows("account=acme&status=429");
            let count: u64 = rows.iter().map(|row| row["count"].as_u64().expect("a count")).sum();
            let usage = admin.get("/v1/accounts/acme/usage?step=hour");
            (sum(&usage, "rejected") == count && count > 0).then_some(count)
        });
        let usage = admin.get("/v1/accounts/acme/usage?step=minute");
        println!("{nodes} nodes: {rejected} rejected, {usage}");
        let now = &admin.get("/v1/accounts/acme/limits")["data"][0];
        assert_eq!((&now["used"], &now["remaining"]), (&json!(limit), &json!(0)), "{now}");
    }
}

#[test]
fn bytes_are_exact_under_32_clients_on_three_nodes() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    let admin = cluster.nodes[0].admin();
    let key = account(
        &admin,
        &upstream,
        &json!({ "name": "bytes", "unit": "content-bytes", "limit": 4_000, "period": "day" }),
    );
    let mut admitted = 0;
    until("the whole quota", || {
        admitted += exhaust(&cluster, &key, &[b'x'; 20]);
        assert!(admitted <= 200, "{admitted} of 200");
        (admitted == 200).then_some(())
    });
    let rows = admin.rows("account=acme&status=200");
    assert_eq!(rows.iter().map(|row| row["bytes_in"].as_u64().expect("a number")).sum::<u64>(), 4_000);
    let now = &admin.get("/v1/accounts/acme/limits")["data"][0];
    assert_eq!((&now["used"], &now["remaining"]), (&json!(4_000), &json!(0)), "{now}");
}

#[test]
fn usage_is_what_the_rows_say() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    let key = account(&admin, &upstream, &requests(20));
    admin.write(
        "PUT",
        "/v1/routes/other",
        &json!({ "match": { "path_prefix": "/status" }, "upstream": "scan", "cost": 3 }),
    );
    let agent = client();
    for n in 0..8 {
        post(&agent, &cluster.nodes[0].url("/count"), &key, &vec![b'x'; n * 10]).expect("an answer");
        get(&agent, &cluster.nodes[0].url("/status/500"), &key).expect("an answer");
    }
    for _ in 0..6 {
        get(&agent, &cluster.nodes[0].url("/bytes/70000"), &key).expect("an answer");
    }
    until("the last stream's end", || {
        let rows = admin.rows("account=acme&status=200");
        rows.iter().all(|row| row["completion"] == "complete").then_some(())
    });
    let rows = admin.rows("account=acme");
    assert_eq!(rows.len(), 22);
    let total =
        |field: &str, rows: &[&Value]| rows.iter().map(|row| row[field].as_u64().expect("a number")).sum::<u64>();
    let all: Vec<&Value> = rows.iter().collect();
    for step in ["minute", "hour", "day"] {
        let usage = admin.get(&format!("/v1/accounts/acme/usage?step={step}"));
        for field in ["bytes_in", "bytes_out", "cost"] {
            assert_eq!(sum(&usage, field), total(field, &all), "{step} {field}: {usage}");
        }
        assert_eq!((sum(&usage, "requests"), sum(&usage, "rejected")), (22, 2), "{step}: {usage}");
    }
    for (by, column) in [("route", "route"), ("key", "key_id"), ("status", "status")] {
        let usage = admin.get(&format!("/v1/accounts/acme/usage?step=day&by={by}"));
        let points = usage["data"].as_array().expect("a list");
        for row in &rows {
            let group = &row[column];
            let same = rows.iter().filter(|row| row[column] == *group).count() as u64;
            let points = points.iter().filter(|point| point[by] == *group);
            let requests: u64 = points.map(|point| point["requests"].as_u64().expect("a number")).sum();
            assert_eq!(requests, same, "{by} {group}: {usage}");
        }
    }
}

#[test]
fn no_quota_is_overspent_when_the_leader_dies() {
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(3);
    let limit = 1_500;
    let key = account(&cluster.nodes[0].admin(), &upstream, &requests(limit));
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    let load = Load::start(&urls, &key, 4);
    until("a third of the quota", || (upstream.requests() >= limit / 3).then_some(()));
    let leader = cluster.leader(1);
    cluster.nodes[leader].kill();
    let admitted = upstream.requests();
    until("more of the quota", || (upstream.requests() >= admitted + 100).then_some(()));
    cluster.nodes[leader].start();
    cluster.nodes[leader].wait_ready();
    let agent = client();
    until("the end of the quota everywhere", || {
        urls.iter().all(|url| get(&agent, url, &key).is_ok_and(|answer| answer.status == 429)).then_some(())
    });
    let report = load.stop();
    println!("{} of {limit} admitted: {:?}, {} errors", upstream.requests(), report.counts(), report.errors);
    assert!(upstream.requests() <= limit, "{} of {limit}", upstream.requests());
    assert!(report.received.iter().all(|answer| matches!(answer.status, 200 | 429 | 503)), "{:?}", report.counts());
}

#[test]
fn compatibility_headers_say_what_is_left() {
    let upstream = Upstream::start();
    let args = vec!["--compat-headers=x-rate-limit,x-quota".to_owned()];
    let mut cluster = Cluster::new(1, &Options { args, ..Options::default() });
    cluster.start_all();
    let admin = cluster.nodes[0].admin();
    let key = account(&admin, &upstream, &requests(5));
    let limits = json!([{ "name": "slowly", "rate": "1/h", "burst": 3 }]);
    admin.put_tier("limited", &json!({ "quotas": [requests(5)], "limits": limits }));
    let answer = until("the first unit", || {
        get(&client(), &cluster.nodes[0].url("/"), &key).ok().filter(|answer| answer.status == 200)
    });
    assert_eq!(answer.header("x-quota-remaining"), "4");
    assert!(answer.header("x-rate-limit-remaining").parse::<u64>().is_ok_and(|left| left <= 2), "{:?}", answer.headers);
    let end = unix_seconds(answer.header("x-quota-period-end"));
    assert!(end.rem_euclid(86_400.0).abs() < 0.001, "{:?}", answer.headers);
}

/// Where Linux distributions have it.
const LIBFAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
];

/// A node whose wall clock starts at a time in UTC and runs; its monotonic clock is real.
pub(crate) fn at(time: &str) -> Option<Cluster> {
    let mut cluster = Cluster::new(1, &clock(time)?);
    cluster.start_all();
    Some(cluster)
}

/// Options for such a clock.
pub(crate) fn clock(time: &str) -> Option<Options> {
    let Some(library) = LIBFAKETIME.into_iter().find(|path| Path::new(path).exists()) else {
        eprintln!("skipped: needs libfaketime");
        return None;
    };
    let env = [
        ("LD_PRELOAD", library),
        ("FAKETIME", &format!("@{time}")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
        ("TZ", "UTC"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Some(Options { env: env.into(), ..Options::default() })
}

/// A day of Berlin: used up just before its end it stays so until then, and not a moment longer.
fn day_ends(start: &str, end: &str) {
    let Some(cluster) = at(start) else { return };
    let upstream = Upstream::start();
    let admin = cluster.nodes[0].admin();
    let quota = json!({ "name": "daily", "limit": 2, "period": "day", "timezone": "Europe/Berlin" });
    let key = account(&admin, &upstream, &quota);
    let agent = client();
    let ask = || get(&agent, &cluster.nodes[0].url("/"), &key).expect("an answer");
    let time = |answer: &Answer| unix_seconds(admin.row(answer.header("x-request-id"))["ts"].as_str().expect("a time"));
    let end_seconds = unix_seconds(end);
    assert_eq!([ask().status, ask().status], [200; 2]);
    let refused = ask();
    refused.assert_problem(429, "quota-exceeded");
    let left = end_seconds - time(&refused);
    assert!(left > 0.0, "it took too long to get ready");
    assert!((refused.retry_after().as_secs_f64() - left).abs() < 1.5, "{:?}, {left} s left", refused.retry_after());
    let resets = admin.get("/v1/accounts/acme/limits")["data"][0]["resets_at"].as_str().expect("a time").to_owned();
    assert!((unix_seconds(&resets) - end_seconds).abs() < 0.001, "{resets} is not {end}");
    if left > 60.0 {
        return;
    }
    thread::sleep(refused.retry_after());
    let admitted = ask();
    assert_eq!(admitted.status, 200, "{}", admitted.text);
    assert!(time(&admitted) >= end_seconds);
    assert_eq!([ask().status, ask().status], [200, 429]);
    println!("{end}: refused {left} s before, admitted {} s after", time(&admitted) - end_seconds);
}

#[test]
fn the_23_hour_day_of_berlin_ends_at_22_utc() {
    day_ends("2026-03-29 21:59:48", "2026-03-29T22:00:00Z");
}

#[test]
fn the_25_hour_day_of_berlin_ends_at_23_utc() {
    day_ends("2026-10-25 22:59:48", "2026-10-25T23:00:00Z");
}

#[test]
fn the_25_hour_day_of_berlin_does_not_end_after_24_hours() {
    let Some(cluster) = at("2026-10-25 21:59:52") else { return };
    let upstream = Upstream::start();
    let admin = cluster.nodes[0].admin();
    let quota = json!({ "name": "daily", "limit": 1, "period": "day", "timezone": "Europe/Berlin" });
    let key = account(&admin, &upstream, &quota);
    let agent = client();
    let mut statuses = Vec::new();
    until("24 hours after the day began", || {
        let answer = get(&agent, &cluster.nodes[0].url("/"), &key).expect("an answer");
        statuses.push(answer.status);
        thread::sleep(Duration::from_millis(200));
        // Refusals of a second's first ten have rows.
        let row = admin.row(answer.header("x-request-id"));
        (unix_seconds(row["ts"].as_str()?) > unix_seconds("2026-10-25T22:00:01Z")).then_some(())
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
}

#[test]
fn the_days_around_the_change_are_as_long_as_they_are() {
    day_ends("2026-03-28 22:59:48", "2026-03-28T23:00:00Z");
    day_ends("2026-03-29 00:59:58", "2026-03-29T22:00:00Z");
    day_ends("2026-10-24 22:00:02", "2026-10-25T23:00:00Z");
}
