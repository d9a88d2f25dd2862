//! A POST with an Idempotency-Key that is sent again and again while leaders die makes one object.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::{Value, json};
use tests::{Cluster, client, until};

/// Kills of the metadata's leader.
const KILLS: usize = 3;
/// Accounts made around each of them.
const POSTS: usize = 12;

#[test]
fn posts_that_are_repeated_across_changes_of_the_leader_make_one_object_each() {
    let mut cluster = Cluster::start(3);
    let token = cluster.nodes[0].admin().token().to_owned();
    cluster.nodes[0].admin().put_tier("free", &json!({}));
    let mut made = BTreeSet::new();
    for round in 0..KILLS {
        let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.admin_addr.clone()).collect();
        let writers: Vec<_> = (0..POSTS)
            .map(|n| {
                let (addresses, token) = (addresses.clone(), token.clone());
                thread::spawn(move || repeat(&addresses, &token, &format!("round-{round}-{n}"), n))
            })
            .collect();
        let leader = cluster.leader(0);
        thread::sleep(Duration::from_millis(20));
        cluster.nodes[leader].kill();
        for writer in writers {
            made.insert(writer.join().expect("no panic"));
        }
        cluster.nodes[leader].start();
        cluster.nodes[leader].wait_ready();
    }
    assert_eq!(made.len(), KILLS * POSTS, "each key has an object of its own");
    let mut there = BTreeSet::new();
    for node in &cluster.nodes {
        let listed = node.admin().get("/v1/accounts?limit=1000");
        there.extend(listed["data"].as_array().expect("a list").iter().map(id));
    }
    assert_eq!(there, made, "nothing was made twice");
}

/// Sends the same POST to one node after another until it was answered twice; says which account it made.
fn repeat(addresses: &[String], token: &str, key: &str, first: usize) -> String {
    let agent = client();
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("idempotency-key", key)];
    let body = json!({ "name": key, "tier": "free" }).to_string();
    let (mut turn, mut answers) = (first, Vec::new());
    until("two answers", || {
        turn += 1;
        let url = format!("http://{}/v1/accounts", addresses[turn % addresses.len()]);
        let answer = tests::send(&agent, "POST", &url, &headers, body.as_bytes()).ok()?;
        match answer.status {
            201 => answers.push(id(&answer.body)),
            // A leader is missing, or the same key is under way.
            503 => {}
            409 => assert_eq!(answer.body["code"], "idempotency-key-in-progress", "{}", answer.text),
            status => panic!("{status}: {}", answer.text),
        }
        (answers.len() == 2).then_some(())
    });
    assert_eq!(answers[0], answers[1], "{key}");
    answers.remove(0)
}

fn id(account: &Value) -> String {
    account["id"].as_str().expect("an id").to_owned()
}
