//! Many write the same account through different nodes: nothing of anybody is lost.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Cluster, client, send};

/// Who count together, each once.
const COUNTERS: usize = 32;
/// Who patch a field of their own.
const PATCHERS: usize = 32;
/// How long a write without a condition is made anew.
const PATIENCE: Duration = Duration::from_secs(10);
/// Patches of each.
const PATCHES: usize = 3;

fn spawn_all<T: Send + 'static>(writers: usize, act: impl Fn(usize) -> T + Clone + Send + 'static) -> Vec<T> {
    let writers: Vec<_> = (0..writers)
        .map(|n| {
            let act = act.clone();
            thread::spawn(move || act(n))
        })
        .collect();
    writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
}

#[test]
fn no_update_of_an_account_is_lost_when_many_write_it_through_all_nodes() {
    let cluster = Cluster::start(3);
    let admin = cluster.nodes[0].admin();
    admin.put_tier("free", &json!({}));
    let account = json!({ "id": "shared", "name": "Everybody's", "tier": "free", "metadata": { "count": 0 } });
    admin.write("POST", "/v1/accounts", &account);
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.admin().url("/v1/accounts/shared")).collect();
    let authorization = format!("Bearer {}", admin.token());

    // Each its own field, without a condition: merged into what is there, however busy it is.
    let (at, bearer) = (urls.clone(), authorization.clone());
    spawn_all(PATCHERS, move |n| {
        let agent = client();
        let headers = [("authorization", bearer.as_str())];
        for patch in 1..=PATCHES {
            let mut metadata = serde_json::Map::new();
            metadata.insert(format!("writer-{n}"), patch.into());
            let body = json!({ "metadata": metadata }).to_string();
            loop {
                let (url, asked) = (&at[(n + patch) % at.len()], Instant::now());
                let answer = send(&agent, "PATCH", url, &headers, body.as_bytes()).expect("an answer");
                // However many others there are: who named no revision is not told that others were faster, or on a machine
                // that takes seconds for a write, not before the gateway's patience is at its end.
                if answer.status == 503 || (answer.status == 409 && asked.elapsed() >= PATIENCE) {
                    continue;
                }
                assert_eq!(answer.status, 200, "{}", answer.text);
                assert_eq!(answer.body["name"], "Everybody's", "{}", answer.text);
                assert_eq!(answer.body["metadata"][format!("writer-{n}")], patch, "{}", answer.text);
                break;
            }
        }
    });
    let shared = admin.get("/v1/accounts/shared");
    for n in 0..PATCHERS {
        assert_eq!(shared["metadata"][format!("writer-{n}")], PATCHES, "{shared}");
    }

    // One counter, read on one node and written on another under its revision.
    let tries: usize = spawn_all(COUNTERS, move |n| {
        let agent = client();
        let bearer = [("authorization", authorization.as_str())];
        for turn in 0.. {
            let (reads, writes) = (&urls[(n + turn) % urls.len()], &urls[(n + turn + 1) % urls.len()]);
            let seen = send(&agent, "GET", reads, &bearer, b"").expect("an answer");
            let Some(count) = seen.body["metadata"]["count"].as_u64() else {
                assert_eq!(seen.status, 503, "{}", seen.text);
                continue;
            };
            let headers = [bearer[0], ("if-match", seen.header("etag"))];
            let body = json!({ "metadata": { "count": count + 1 } }).to_string();
            let answer = send(&agent, "PATCH", writes, &headers, body.as_bytes()).expect("an answer");
            match answer.status {
                200 => return turn,
                412 | 503 => {}
                _ => panic!("{}", answer.text),
            }
        }
        0
    })
    .into_iter()
    .sum();
    let shared: Value = admin.get("/v1/accounts/shared");
    assert_eq!(shared["metadata"]["count"], COUNTERS, "after {tries} refused tries: {shared}");
    assert_eq!(shared["name"], "Everybody's");
}
