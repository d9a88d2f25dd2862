//! Tiers on three nodes: what is set of an account, a key or a shadow holds on each of them, and together.

use serde_json::{Value, json};
use tests::{Admin, Cluster, Upstream, client, get, until};

/// Statuses of requests that go to each node in turn.
fn ask(cluster: &Cluster, key: &str, times: usize) -> Vec<u16> {
    let agents: Vec<_> = cluster.nodes.iter().map(|_| client()).collect();
    let of = |n: usize| {
        let node = n % cluster.nodes.len();
        get(&agents[node], &cluster.nodes[node].url("/"), key).expect("an answer").status
    };
    (0..times).map(of).collect()
}

fn admitted(statuses: &[u16]) -> usize {
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

/// Asks until every node has refused a few times in a row: units that one node holds idle come to the others.
fn exhaust(cluster: &Cluster, key: &str) -> usize {
    let (mut all, mut refused) = (0, 0);
    while refused < 4 {
        let some = admitted(&ask(cluster, key, 12));
        all += some;
        refused = if some == 0 { refused + 1 } else { 0 };
        if refused > 0 {
            std::thread::sleep(std::time::Duration::from_millis(400));
        }
    }
    all
}

fn quotas(admin: &Admin, account: &str) -> Vec<Value> {
    let now = admin.get(&format!("/v1/accounts/{account}/limits"));
    now["data"].as_array().expect("a list").iter().filter(|now| now["kind"] == "quota").cloned().collect()
}

#[test]
fn own_policies_resets_and_shadows_hold_on_all_nodes_together() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    let admin = cluster.nodes[0].admin();
    admin.put_route(&upstream.url);
    admin.put_tier("sold", &json!({ "quotas": [{ "name": "monthly", "limit": 20, "period": "month" }] }));
    admin.create_account("acme", "sold");
    let (id, own) = admin.create_key(
        "acme",
        &json!({
            "overrides": { "quotas": [{ "name": "monthly", "limit": 7, "period": "month" }] }
        }),
    );
    let (_, shared) = admin.create_key("acme", &json!({}));
    assert_eq!(exhaust(&cluster, &own), 7, "the key's own");
    assert_eq!(exhaust(&cluster, &shared), 20, "the account's has lost nothing to it");
    let now = quotas(&admin, "acme");
    let of_key = now.iter().find(|now| now["scope"] == format!("key={id}")).expect("it is told");
    assert_eq!((&of_key["used"], &of_key["limit"]), (&json!(7), &json!(7)), "{now:?}");

    // Through another node than the one that serves first.
    let elsewhere = cluster.nodes[2].admin();
    elsewhere.write("POST", "/v1/accounts/acme/limits/monthly/reset", &json!({}));
    for node in 0..3 {
        let status = get(&client(), &cluster.nodes[node].url("/"), &shared).expect("an answer").status;
        assert_eq!(status, 200, "node {node} has not heard of it");
    }
    assert_eq!(3 + exhaust(&cluster, &shared), 20, "as many again, and no more");
    assert_eq!(exhaust(&cluster, &own), 7);
    let raised: Vec<(String, u64)> = admin.get("/v1/alerts?account=acme")["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|alert| (alert["key_id"].to_string(), alert["threshold"].as_u64().expect("a number")))
        .collect();
    assert_eq!(raised.len(), 8, "two thresholds of two counters, before and after the reset, each once: {raised:?}");

    let shadow = json!({ "limits": [{ "name": "slow", "rate": "5/d", "burst": 5, "shadow": true }] });
    admin.put_tier("sold", &shadow);
    assert_eq!(admitted(&ask(&cluster, &shared, 20)), 20, "a shadow refuses nothing");
    let told = |row: &Value| row["decided_by"].as_array().is_some_and(|by| by.iter().any(|one| one["shadow"] == true));
    let rows = admin.rows("account=acme&status=200");
    let shadowed = rows.iter().filter(|row| told(row)).count();
    // A leader that does not answer in a moment leaves a request untold; nothing is told of one that would have passed.
    assert!((1..=15).contains(&shadowed), "{shadowed} of 20, where 15 would have been refused");
}

#[test]
fn a_limit_lowered_below_what_was_used_raises_the_alerts_that_no_request_can() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    let admin = cluster.nodes[0].admin();
    admin.put_route(&upstream.url);
    let tier = |name: &str, limit: u64| {
        admin.put_tier(name, &json!({ "quotas": [{ "name": "monthly", "limit": limit, "period": "month" }] }));
    };
    let (mut keys, names) = (Vec::new(), ["by-tier", "by-override", "by-move", "untouched"]);
    tier("sold", 1_000);
    tier("roomy", 1_000);
    tier("narrow", 10);
    for name in names {
        admin.create_account(name, if name == "by-tier" { "sold" } else { "roomy" });
        keys.push(admin.create_key(name, &json!({})).1);
    }
    for key in &keys {
        assert_eq!(admitted(&ask(&cluster, key, 10)), 10);
    }
    let alerts = |account: &str| -> Vec<(u64, u64, u64)> {
        let all = admin.get(&format!("/v1/alerts?account={account}"))["data"].clone();
        let number = |alert: &Value, field: &str| alert[field].as_u64().expect("a number");
        let of = |alert: &Value| (number(alert, "threshold"), number(alert, "limit"), number(alert, "used"));
        let mut alerts: Vec<_> = all.as_array().expect("a list").iter().map(of).collect();
        alerts.sort_unstable();
        alerts
    };
    assert_eq!(names.map(|name| alerts(name).len()), [0; 4]);
    let raised = |account: &str, expected: &[(u64, u64, u64)]| {
        until(&format!("alerts of {account}"), || (alerts(account) == expected).then_some(()));
    };
    tier("sold", 12);
    raised("by-tier", &[(80, 12, 10)]);
    tier("sold", 5);
    raised("by-tier", &[(80, 12, 10), (100, 5, 10)]);
    let overrides = json!({ "overrides": { "quotas": [{ "name": "monthly", "limit": 10, "period": "month" }] } });
    admin.write("PATCH", "/v1/accounts/by-override", &overrides);
    raised("by-override", &[(80, 10, 10), (100, 10, 10)]);
    admin.write("PATCH", "/v1/accounts/by-move", &json!({ "tier": "narrow" }));
    raised("by-move", &[(80, 10, 10), (100, 10, 10)]);
    // Each once, and nobody else's.
    assert_eq!((alerts("by-tier").len(), alerts("untouched").len()), (2, 0));
}
