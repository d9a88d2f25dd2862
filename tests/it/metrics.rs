//! `/metrics` as Prometheus reads it: what on-call asks for is told apart, and nobody's name is in it.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::json;
use tests::{Admin, Cluster, Upstream, client, get, post, until};

/// Series and their values.
fn scrape(cluster: &Cluster) -> BTreeMap<String, f64> {
    let answer = get(&client(), &cluster.nodes[0].admin().url("/metrics"), "").expect("an answer");
    let lines = answer.text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().expect(name)))
        .collect()
}

fn of(series: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let is_it = |text: &str| text.split('{').next() == Some(name) && labels.iter().all(|label| text.contains(label));
    series.iter().filter(|(text, _)| is_it(text)).map(|(_, value)| value).sum()
}

#[test]
fn durations_are_told_by_route_method_status_and_upstream_and_by_no_account() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let (node, admin) = (&cluster.nodes[0], cluster.nodes[0].admin());
    let key = admin.open_account(&upstream.url);
    admin.write("PUT", "/v1/routes/other", &json!({ "match": { "path_prefix": "/other" }, "upstream": "scan" }));
    for _ in 0..3 {
        assert_eq!(get(&client(), &node.url("/echo"), &key).expect("an answer").status, 200);
    }
    assert_eq!(post(&client(), &node.url("/other"), &key, b"{}").expect("an answer").status, 200);
    assert_eq!(get(&client(), &node.url("/echo"), "").expect("an answer").status, 401);

    let count = "http_server_request_duration_seconds_count";
    let labels = |route: &str, method: &str, status: &str| {
        [
            format!("http_route=\"{route}\""),
            format!("http_request_method=\"{method}\""),
            format!("http_response_status_code=\"{status}\""),
        ]
    };
    let told = |series: &BTreeMap<String, f64>, route: &str, method: &str, status: &str| {
        let labels = labels(route, method, status);
        of(series, count, &labels.each_ref().map(String::as_str))
    };
    let series = until("all requests counted", || {
        let series = scrape(&cluster);
        (of(&series, count, &[]) >= 5.0).then_some(series)
    });
    assert_eq!((told(&series, "scan", "GET", "200"), told(&series, "other", "POST", "200")), (3.0, 1.0), "{series:#?}");
    let refused = series.keys().find(|text| text.starts_with(count) && text.contains("\"401\"")).expect("the refusal");
    assert!(!refused.contains("http_route"), "it came to no route: {refused}");
    assert_eq!(of(&series, "http_client_request_duration_seconds_count", &["upstream=\"scan\""]), 4.0);

    // Each answer waited for a flush, and the only node has led from its start.
    let flushes = of(&series, "tollgate_wal_sync_duration_seconds_count", &[]);
    assert!(flushes >= 4.0, "{flushes}");
    assert_eq!(of(&series, "tollgate_wal_sync_duration_seconds_bucket", &["le=\"+Inf\""]), flushes);
    for group in ["meta", "ledger"] {
        assert_eq!(of(&series, &format!("tollgate_{group}_leader_changes_total"), &[]), 1.0, "{group}");
    }
    let names = series.keys().map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(!names.contains("acme") && !names.contains(&key) && !names.contains("\"key_"), "{names}");
}

#[test]
fn what_is_refused_before_there_is_a_request_or_a_caller_is_counted() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let mut stream = TcpStream::connect(&node.data_addr).expect("connects");
    stream.write_all(b"no HTTP at all\r\n\r\n").expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    Admin::new(&node.admin_addr, "tga_mistyped")
        .call("GET", "/v1/accounts", None)
        .assert_problem(401, "malformed-token");
    until("both are counted", || {
        let series = scrape(&cluster);
        let wrong = of(&series, "tollgate_admin_unauthenticated_total", &["reason=\"malformed-token\""]);
        (of(&series, "tollgate_client_heads_refused_total", &[]) == 1.0 && wrong == 1.0).then_some(())
    });
}
