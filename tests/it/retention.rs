//! Rows stay as many days as their tier said, and not much longer.

use serde_json::json;
use tests::{Upstream, client, get, until};

use crate::quotas::{at, clock};

#[test]
fn rows_go_when_the_days_of_their_tier_are_over() {
    let Some(mut cluster) = at("2026-03-01 12:00:00") else { return };
    let upstream = Upstream::start();
    let admin = cluster.nodes[0].admin();
    admin.put_route(&upstream.url);
    let agent = client();
    let url = cluster.nodes[0].url("/");
    let tiers = [
        ("short", json!({ "log_retention_days": 2 })),
        ("plain", json!({})),
        ("long", json!({ "log_retention_days": 60 })),
    ];
    let keys: Vec<String> = tiers
        .iter()
        .map(|(name, tier)| {
            admin.put_tier(name, tier);
            admin.create_account(name, name);
            admin.create_key(name, &json!({})).1
        })
        .collect();
    for _ in 0..4 {
        for key in &keys {
            assert_eq!(get(&agent, &url, key).expect("an answer").status, 200);
            // Longer than is held back: a row and a settling record.
            assert_eq!(get(&agent, &format!("{url}bytes/100000"), key).expect("an answer").status, 200);
        }
    }
    // Later changes concern later rows.
    admin.put_tier("long", &json!({ "log_retention_days": 1 }));
    let rows = |admin: &tests::Admin| tiers.each_ref().map(|(name, _)| admin.rows(&format!("account={name}")).len());
    assert_eq!(rows(&admin), [8, 8, 8]);
    for (now, left) in [
        ("2026-03-03 12:00:00", [8, 8, 8]),
        ("2026-03-04 00:00:10", [0, 8, 8]),
        ("2026-03-31 12:00:00", [0, 8, 8]),
        ("2026-04-01 00:00:10", [0, 0, 8]),
        ("2026-05-01 00:00:10", [0, 0, 0]),
    ] {
        cluster.nodes[0].stop();
        cluster.nodes[0].set_options(clock(now).expect("it was there before"));
        cluster.nodes[0].start();
        cluster.nodes[0].wait_ready();
        let admin = cluster.nodes[0].admin();
        if left == [8, 8, 8] || now.ends_with("12:00:00") {
            // Two rounds of what the leader looks after.
            std::thread::sleep(std::time::Duration::from_secs(4));
        }
        until(&format!("{left:?} rows on {now}"), || (rows(&admin) == left).then_some(()));
        for row in admin.rows("account=long") {
            assert_eq!(row["completion"], "complete", "{now}: {row}");
        }
    }
}
