//! Ledger groups are added to a cluster in use, and accounts come to them while clients are at work.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use store::model::slot_of;
use tests::{
    Admin, Cluster, Load, Raw, Report, Upstream,
    rounds::{at_once, rate, rows},
    spend, until,
};

/// The first slot that comes to the second group when there are two.
const FIRST_MOVED: u16 = 512;
const LIMIT: u64 = 200;
const BURST: u64 = 32;
/// A second, and at once, of an account whose rate is watched while it moves.
const FAST: (u64, u64) = (60, 20);
/// Requests at once of another, and how long the upstream takes for each.
const AT_ONCE: usize = 3;
const TAKES: Duration = Duration::from_millis(100);
/// Requests of a third, in a day.
const BUSY_LIMIT: u64 = 1_000;
/// Clients' pause after an answer: the cores are for the nodes.
const PAUSE: Duration = Duration::from_millis(15);

/// Names of accounts that come to another group, or that stay.
fn names(moved: bool) -> impl Iterator<Item = String> {
    (0..).map(|n| format!("acme-{n}")).filter(move |name| (slot_of(name) >= FIRST_MOVED) == moved)
}

fn slots(admin: &Admin) -> Option<Vec<u64>> {
    let body = admin.try_get("/v1/cluster")?.body;
    let groups = body["groups"].as_array()?.iter().filter(|group| group["kind"] == "ledger");
    groups.map(|group| group["slots"].as_u64()).collect()
}

fn wait_split(admin: &Admin) {
    until("all slots where they belong", || {
        let body = admin.try_get("/v1/cluster")?.body;
        (body["split"].is_null() && slots(admin)? == [512, 512]).then_some(())
    });
}

fn open_accounts(cluster: &Cluster, upstream: &Upstream, tier: &str, names: &[String]) -> Vec<String> {
    let admin = cluster.nodes[0].admin();
    admin.put_route(&upstream.url);
    admin.put_tier("open", &json!({}));
    admin.put_tier(
        "daily",
        &json!({ "quotas": [{ "name": "daily", "unit": "requests", "limit": LIMIT, "period": "day" }] }),
    );
    admin.put_tier(
        "bursts",
        &json!({ "limits": [{ "name": "slow", "per": ["account"], "rate": "1/d", "burst": BURST }] }),
    );
    names
        .iter()
        .map(|name| {
            admin.create_account(name, tier);
            admin.create_key(name, &json!({})).1
        })
        .collect()
}

fn check_rows(cluster: &Cluster, names: &[String], loads: Vec<Load>) {
    for (name, load) in names.iter().zip(loads) {
        let report = load.stop();
        println!("{name}: {:?}", report.counts());
        // Requests wait while their slot moves; nobody is told that a key is unknown, or that there is no unit.
        assert!(report.counts().keys().all(|(status, _)| ![401, 403, 429].contains(status)), "{:?}", report.counts());
        for node in &cluster.nodes {
            let admin = node.admin();
            let rows = admin.rows(&format!("account={name}"));
            report.check(&rows).unwrap_or_else(|error| panic!("{name} on {}: {error}", node.name));
            let ids: BTreeSet<&str> = rows.iter().filter_map(|row| row["request_id"].as_str()).collect();
            assert_eq!(ids.len(), rows.len(), "no row twice");
            assert_eq!(counted(&admin, name), rows.len() as u64, "usage of {name} is the sum of its rows");
            assert_eq!(admin.get(&format!("/v1/accounts/{name}"))["name"], json!(name), "its profile is found");
        }
    }
}

#[test]
fn a_cluster_in_use_is_split_and_limits_go_on_where_they_were() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    let admin = cluster.nodes[0].admin();
    let loaded: Vec<String> = names(true).take(2).chain(names(false).take(1)).collect();
    let keys = open_accounts(&cluster, &upstream, "open", &loaded);
    let daily: Vec<String> = names(true).skip(2).take(2).collect();
    let daily_keys = open_accounts(&cluster, &upstream, "daily", &daily);
    let slow: Vec<String> = names(true).skip(4).take(2).collect();
    let slow_keys = open_accounts(&cluster, &upstream, "bursts", &slow);
    for key in &daily_keys {
        assert_eq!(spend(&cluster.nodes, key, LIMIT / 2), LIMIT / 2);
    }
    let slow_before: Vec<u64> = slow_keys.iter().map(|key| spend(&cluster.nodes, key, BURST / 2)).collect();
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    let loads: Vec<Load> = keys.iter().map(|key| Load::paced(&urls, key, 1, PAUSE)).collect();
    loads.iter().for_each(|load| load.wait_more(0, 10));

    let before: Vec<Value> =
        names(true).take(1).map(|name| admin.rows(&format!("account={name}"))[0].clone()).collect();
    let (code, out, said) = cluster.nodes[1].run(&["cluster", "split", "--ledger-groups", "2", "--wait"]);
    assert_eq!(code, Some(0), "{out}{said}");
    wait_split(&admin);
    loads.iter().for_each(|load| (0..3).for_each(|target| load.wait_more(target, 10)));
    for node in &cluster.nodes {
        assert_eq!(slots(&node.admin()), Some(vec![512, 512]), "{}", node.name);
    }
    assert_eq!(admin.row(before[0]["request_id"].as_str().expect("an id"))["account"], before[0]["account"]);

    // A quota has what was left of it (less what a reservation that was not answered in time holds); a slow rate loses at most
    // what a change of leader costs.
    for (name, key) in daily.iter().zip(&daily_keys) {
        let after = spend(&cluster.nodes, key, LIMIT);
        assert!((LIMIT * 3 / 8..=LIMIT / 2).contains(&after), "{name}: {after}");
    }
    for (key, before) in slow_keys.iter().zip(slow_before) {
        let after = spend(&cluster.nodes, key, BURST);
        assert!(before + after <= BURST, "{before} + {after} of {BURST}");
        assert!(before + after >= BURST * 3 / 4, "{before} + {after} of {BURST}");
    }
    check_rows(&cluster, &loaded, loads);
    let audit = admin.get("/v1/audit");
    let lines = audit["data"].as_array().expect("a list");
    assert!(lines.iter().any(|line| line["action"] == "split" && line["id"] == "/v1/cluster/2"), "{lines:?}");
    let refused = admin.try_call("POST", "/v1/cluster/split", Some(&json!({ "ledger_groups": 2 }))).expect("an answer");
    refused.assert_problem(409, "not-possible");
}

#[test]
fn a_split_goes_on_when_leaders_are_killed_and_nothing_is_lost_or_let_through_twice() {
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(3);
    let loaded: Vec<String> = names(true).take(3).chain(names(false).take(1)).collect();
    let keys = open_accounts(&cluster, &upstream, "open", &loaded);
    let daily: Vec<String> = names(true).skip(3).take(3).collect();
    let daily_keys = open_accounts(&cluster, &upstream, "daily", &daily);
    let slow: Vec<String> = names(true).skip(6).take(3).collect();
    let slow_keys = open_accounts(&cluster, &upstream, "bursts", &slow);
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    let loads: Vec<Load> = keys.iter().map(|key| Load::paced(&urls, key, 1, PAUSE)).collect();
    loads.iter().for_each(|load| load.wait_more(0, 10));
    let mut spent: Vec<u64> = Vec::new();
    for (keys, most) in [(&daily_keys, LIMIT / 2), (&slow_keys, BURST / 2)] {
        spent.extend(keys.iter().map(|key| spend(&cluster.nodes, key, most)));
    }

    cluster.nodes[0].admin().write("POST", "/v1/cluster/split", &json!({ "ledger_groups": 2 }));
    // One after the other: who drives the moves, and who leads the group that the slots leave.
    for group in [0, 1] {
        let victim = cluster.leader(group);
        cluster.nodes[victim].kill();
        let others: Vec<usize> = (0..3).filter(|node| *node != victim).collect();
        for load in &loads {
            others.iter().for_each(|target| load.wait_more(*target, 5));
        }
        cluster.nodes[victim].start();
        cluster.nodes[victim].wait_ready();
    }
    wait_split(&cluster.nodes[0].admin());
    loads.iter().for_each(|load| (0..3).for_each(|target| load.wait_more(target, 10)));

    let all = daily_keys.iter().zip(std::iter::repeat(LIMIT)).chain(slow_keys.iter().zip(std::iter::repeat(BURST)));
    for ((key, limit), before) in all.zip(spent) {
        let after = spend(&cluster.nodes, key, limit);
        assert!(before + after <= limit, "{before} + {after} of {limit}");
    }
    check_rows(&cluster, &loaded, loads);
}

fn times(report: &Report) -> Vec<(Instant, Instant)> {
    let admitted = report.received.iter().filter(|answer| answer.status == 200);
    admitted.map(|answer| (answer.sent(), answer.at)).collect()
}

/// Every limit is spent at its bound while its account comes to another group.
#[test]
fn no_limit_lets_more_through_while_its_account_moves() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    let admin = cluster.nodes[0].admin();
    admin.put_route(&upstream.url);
    let limit = json!({ "name": "all", "per": ["account"], "rate": format!("{}/s", FAST.0), "burst": FAST.1 });
    let daily = json!({ "name": "daily", "unit": "requests", "limit": BUSY_LIMIT, "period": "day" });
    let delay = format!("/delay/{}", TAKES.as_millis());
    let of = [
        ("rate-limited", json!({ "limits": [limit] }), "/", 2),
        ("concurrency-exceeded", json!({ "concurrency": AT_ONCE }), delay.as_str(), 2),
        ("quota-exceeded", json!({ "quotas": [daily] }), "/", 1),
        ("", json!({}), "/", 1),
    ];
    let names: Vec<String> = names(true).take(of.len()).collect();
    let (mut keys, mut loads) = (Vec::new(), Vec::new());
    for (name, (_, tier, path, clients)) in names.iter().zip(&of) {
        admin.put_tier(name, tier);
        admin.create_account(name, name);
        let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url(path)).collect();
        keys.push(admin.create_key(name, &json!({})).1);
        loads.push(Load::paced(&urls, keys.last().expect("one"), *clients, PAUSE));
    }
    loads[3].wait_more(2, 20);
    admin.write("POST", "/v1/cluster/split", &json!({ "ledger_groups": 2 }));
    wait_split(&admin);
    for target in 0..3 {
        loads[3].wait_more(target, 20);
    }
    let reports: Vec<Report> = loads.into_iter().map(Load::stop).collect();
    for ((name, (code, ..)), report) in names.iter().zip(&of).zip(&reports) {
        println!("{name}: {:?}", report.counts());
        let may =
            |status, said| status == 200 || said == "temporary-reduced-capacity" || (status == 429 && said == *code);
        assert!(report.counts().keys().all(|(status, said)| may(*status, *said)), "{name}: {:?}", report.counts());
        let logged = admin.rows(&format!("account={name}"));
        let answered = report.received.iter().filter(|answer| answer.status == 200);
        assert_eq!(
            rows(answered, &logged),
            (Vec::new(), Vec::new()),
            "{name}: rows lost, and ids that are there twice"
        );
        // Refusals that were taken together come a second later.
        until(&format!("usage of {name} that is the sum of its rows"), || {
            let counted = counted(&admin, name);
            let logged = admin.rows(&format!("account={name}"));
            (counted == logged.iter().map(of_row).sum::<u64>()).then_some(())
        });
    }
    assert_eq!(rate(&times(&reports[0]), FAST.0 as f64, FAST.1 as f64), None);
    let most = at_once(&times(&reports[1]), TAKES);
    assert!(most <= AT_ONCE, "{most} at once");
    // What is left of the quota is there, but for what requests gave back that were under way when their account moved.
    spend(&cluster.nodes, &keys[2], BUSY_LIMIT);
    let logged = admin.rows(&format!("account={}", names[2]));
    let admitted = logged.iter().filter(|row| row["outcome"] == "admitted").count() as u64;
    assert!((BUSY_LIMIT * 9 / 10..=BUSY_LIMIT).contains(&admitted), "{admitted} of {BUSY_LIMIT}");
}

#[test]
fn a_split_that_waits_for_a_long_request_says_so_on_every_node_and_goes_on_after_it() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    let admin = cluster.nodes[0].admin();
    admin.put_route(&upstream.url);
    admin.put_tier("few", &json!({ "concurrency": AT_ONCE }));
    let name = names(true).next().expect("names do not end");
    admin.create_account(&name, "few");
    let key = admin.create_key(&name, &json!({})).1;
    let mut stream = Raw::request(&cluster.nodes[1].data_addr, "GET /sse/1000000/100", &key, "");
    assert_eq!(stream.head().expect("a head").status, 200);

    admin.write("POST", "/v1/cluster/split", &json!({ "ledger_groups": 2 }));
    for node in &cluster.nodes {
        let split = until(&format!("{} says what the split waits for", node.name), || {
            let split = node.admin().try_get("/v1/cluster")?.body["split"].clone();
            split["waits_for"].as_str()?.contains("in flight on node-2").then_some(split)
        });
        assert_eq!((&split["ledger_groups"], &split["slots"]), (&json!(2), &json!(1_024)), "{split}");
        assert!(split["slots_to_move"].as_u64().is_some_and(|left| (1..=512).contains(&left)), "{split}");
    }
    let (code, out, said) = cluster.nodes[2].run(&["cluster", "status"]);
    assert_eq!(code, Some(0), "{out}{said}");
    assert!(
        out.contains("of 1024 slots are where they belong") && out.contains("; waits: requests in flight"),
        "{out}"
    );

    stream.close();
    wait_split(&admin);
}

fn counted(admin: &Admin, account: &str) -> u64 {
    let usage = admin.get(&format!("/v1/accounts/{account}/usage?step=day"));
    usage["data"].as_array().expect("a list").iter().filter_map(|one| one["requests"].as_u64()).sum()
}

/// Requests that a row stands for.
fn of_row(row: &Value) -> u64 {
    row["count"].as_u64().unwrap_or(1)
}
