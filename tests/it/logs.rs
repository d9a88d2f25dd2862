//! What a node logs, and how that is changed while it runs.

use std::fs;

use serde_json::{Value, json};
use tests::{Cluster, Options, Upstream, client, get, until};

#[test]
fn levels_change_while_a_node_runs_and_a_request_is_one_event_when_asked_for() {
    let upstream = Upstream::start();
    let args = vec!["--log-format=json".to_owned()];
    let mut cluster = Cluster::new(1, &Options { args, ..Options::default() });
    cluster.start_all();
    let (node, admin) = (&cluster.nodes[0], cluster.nodes[0].admin());
    let key = admin.open_account(&upstream.url);
    let request = || get(&client(), &node.url("/echo?secret=1"), &key).expect("an answer");
    let events = || -> Vec<Value> {
        let text = fs::read_to_string(&node.log).expect("read the log");
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["target"] == "access").collect()
    };
    assert_eq!(admin.get("/v1/log-level"), json!({ "level": "info" }));
    request();

    admin.write("PUT", "/v1/log-level", &json!({ "level": "info,access=info" }));
    let answer = request();
    let event = until("the request's event", || events().into_iter().next());
    assert_eq!(event["request_id"], answer.header("x-request-id"), "the request before it had none: {event}");
    assert_eq!((event["status"].as_u64(), event["account"].as_str()), (Some(200), Some("acme")));
    assert_eq!((event["path"].as_str(), event["outcome"].as_str()), (Some("/echo"), Some("admitted")));
    assert!(!event.to_string().contains("secret") && !event.to_string().contains(&key), "{event}");
    assert_eq!(get(&client(), &node.url("/a?secret=2"), "tg_live_nonsense").expect("an answer").status, 401);
    let refused = until("the refusal's event", || events().into_iter().nth(1));
    assert_eq!((refused["status"].as_u64(), refused["outcome"].as_str()), (Some(401), Some("malformed-key")));
    assert_eq!((refused["method"].as_str(), refused["path"].as_str()), (Some("GET"), Some("/a")), "{refused}");

    admin.write("PUT", "/v1/log-level", &json!({ "level": "warn" }));
    request();
    let wrong = admin.call("PUT", "/v1/log-level", Some(&json!({ "level": "loud" })));
    wrong.assert_problem(422, "invalid-body");
    assert_eq!(admin.get("/v1/log-level"), json!({ "level": "warn" }));
    assert_eq!(events().len(), 2, "no more of them once the level is lower");
}
