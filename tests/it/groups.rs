//! Clusters with several ledger groups: accounts are spread over them, and from outside they are one.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
};

use serde_json::{Value, json};
use store::model::{Timestamp, slot_of};
use tests::{Cluster, Load, Options, Report, Upstream, spend, until};

const GROUPS: usize = 3;

/// A cluster in which each node leads a ledger group.
fn start() -> Cluster {
    let args = vec!["--ledger-groups".to_owned(), GROUPS.to_string()];
    let mut cluster = Cluster::new(3, &Options { args, ..Options::default() });
    cluster.start_all();
    until("a leader on each node", || {
        let leaders: BTreeSet<String> =
            groups(&cluster, 0)?.iter().filter_map(|group| Some(group["leader"].as_str()?.to_owned())).collect();
        (leaders.len() == GROUPS).then_some(())
    });
    cluster
}

/// The terms of the ledger groups: the same twice when no leader has changed in between.
fn terms(cluster: &Cluster) -> Vec<Value> {
    until("the groups", || groups(cluster, 0)).iter().map(|group| group["term"].clone()).collect()
}

/// The ledger groups as a node sees them.
fn groups(cluster: &Cluster, seen_by: usize) -> Option<Vec<Value>> {
    let body = cluster.nodes[seen_by].admin().try_get("/v1/cluster?consistency=stale")?.body;
    Some(body["groups"].as_array()?.iter().filter(|group| group["kind"] == "ledger").cloned().collect())
}

/// So many accounts' names, in each group as many.
fn names(count: usize) -> Vec<String> {
    let mut of: Vec<Vec<String>> = vec![Vec::new(); GROUPS];
    for name in (0..).map(|n| format!("acme-{n}")) {
        let group = usize::from(slot_of(&name)) * GROUPS / 1_024;
        if of[group].len() < count / GROUPS {
            of[group].push(name);
        } else if of.iter().all(|names| names.len() == count / GROUPS) {
            return of.concat();
        }
    }
    unreachable!("names do not end")
}

#[test]
fn rows_of_all_groups_are_logged_once_when_a_leader_is_killed_and_are_read_as_one_log() {
    let upstream = Upstream::start();
    let mut cluster = start();
    for node in 0..3 {
        let slots: u64 =
            groups(&cluster, node).expect("groups").iter().filter_map(|group| group["slots"].as_u64()).sum();
        assert_eq!(slots, 1_024);
    }
    let admin = cluster.nodes[0].admin();
    admin.put_route(&upstream.url);
    admin.put_tier("open", &json!({}));
    let names = names(3);
    let keys: Vec<String> = names
        .iter()
        .map(|name| {
            admin.create_account(name, "open");
            admin.create_key(name, &json!({})).1
        })
        .collect();
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    let loads: Vec<Load> = keys.iter().map(|key| Load::start(&urls, key, 1)).collect();
    let more = |targets: &[usize]| {
        for load in &loads {
            targets.iter().for_each(|target| load.wait_more(*target, 20));
        }
    };
    more(&[0, 1, 2]);
    let victim = cluster.leader(2);
    cluster.nodes[victim].kill();
    let others: Vec<usize> = (0..3).filter(|node| *node != victim).collect();
    more(&others);
    cluster.nodes[victim].start();
    cluster.nodes[victim].wait_ready();
    more(&[0, 1, 2]);
    let reports: Vec<Report> = loads.into_iter().map(Load::stop).collect();

    let acknowledged: usize = reports.iter().map(|report| report.acknowledged().len()).sum();
    println!("{acknowledged} acknowledged, {:?}", reports.iter().map(Report::counts).collect::<Vec<_>>());
    for node in &cluster.nodes {
        let (admin, mut expected) = (node.admin(), BTreeMap::new());
        for (name, report) in names.iter().zip(&reports) {
            let rows = admin.rows(&format!("account={name}"));
            report.check(&rows).unwrap_or_else(|error| panic!("{name} on {}: {error}", node.name));
            let usage = admin.get(&format!("/v1/accounts/{name}/usage?step=day"));
            let counted: u64 =
                usage["data"].as_array().expect("a list").iter().filter_map(|one| one["requests"].as_u64()).sum();
            assert_eq!(counted, rows.len() as u64, "usage of {name} is the sum of its rows");
            assert_eq!(admin.get(&format!("/v1/accounts/{name}"))["name"], json!(name), "its profile is found");
            expected.insert(name.as_str(), rows.len());
        }
        // One listing, newest first, page after page, every row once.
        let all = admin.rows("");
        let ids: BTreeSet<&str> = all.iter().filter_map(|row| row["request_id"].as_str()).collect();
        assert_eq!((ids.len(), all.len()), (all.len(), expected.values().sum()));
        let arrivals: Vec<Timestamp> =
            all.iter().map(|row| row["ts"].as_str().expect("a time").parse().expect("RFC 3339")).collect();
        assert!(arrivals.windows(2).all(|pair| pair[0] >= pair[1]), "newest first");
        let mut listed: BTreeMap<&str, usize> = BTreeMap::new();
        all.iter().filter_map(|row| row["account"].as_str()).for_each(|name| *listed.entry(name).or_default() += 1);
        assert_eq!(listed, expected);
        for row in all.iter().step_by(all.len() / 7 + 1) {
            let id = row["request_id"].as_str().expect("an id");
            assert_eq!(admin.get(&format!("/v1/requests/{id}"))["account"], row["account"]);
        }
    }
}

#[test]
fn quotas_and_bursts_are_exact_in_every_group() {
    const LIMIT: u64 = 60;
    const BURST: u64 = 9;
    let upstream = Upstream::start();
    let cluster = start();
    let admin = cluster.nodes[0].admin();
    let before = terms(&cluster);
    admin.put_route(&upstream.url);
    admin.put_tier(
        "daily",
        &json!({ "quotas": [{ "name": "daily", "unit": "requests", "limit": LIMIT, "period": "day" }] }),
    );
    admin.put_tier(
        "bursts",
        &json!({ "limits": [{ "name": "slow", "per": ["account"], "rate": "1/d", "burst": BURST }] }),
    );
    let names = names(6);
    let accounts: Vec<(String, u64)> = names
        .iter()
        .enumerate()
        .map(|(n, name)| {
            let (tier, limit) = if n % 2 == 0 { ("daily", LIMIT) } else { ("bursts", BURST) };
            admin.create_account(name, tier);
            (admin.create_key(name, &json!({})).1, limit)
        })
        .collect();
    for name in &names {
        until("whole limits", || {
            let limits = admin.try_get(&format!("/v1/accounts/{name}/limits"))?.body["data"].clone();
            let whole = |limit: &Value| limit["remaining"] == limit["limit"];
            limits.as_array()?.iter().all(whole).then_some(())
        });
    }
    let admitted: Vec<u64> = thread::scope(|scope| {
        let client = |(key, _): &'_ (String, u64)| {
            let (nodes, key) = (&cluster.nodes, key.clone());
            scope.spawn(move || spend(nodes, &key, u64::MAX))
        };
        let clients: Vec<_> = accounts.iter().map(client).collect();
        clients.into_iter().map(|client| client.join().expect("joins")).collect()
    });
    let limits: Vec<u64> = accounts.iter().map(|(_, limit)| *limit).collect();
    assert!(admitted.iter().zip(&limits).all(|(admitted, limit)| admitted <= limit), "{admitted:?} of {limits:?}");
    // A new leader may admit less, never more.
    if terms(&cluster) == before {
        assert_eq!(admitted, limits);
    }
}
