//! The load tester against real nodes: its audit, many generators, a trace of what was logged, TLS.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::{Authority, Cluster, Options, Upstream, command, loadtest};

use crate::worker::Worker;

/// What generators and their coordinator share.
const BETWEEN: &str = "between generators";
/// A run whose generator was late itself, as on a machine that others keep busy: its times say nothing, and these tests are
/// about everything else.
const INVALID: i32 = 12;

/// Runs the load tester; its exit code (0 too for an invalid run) and what it said.
fn run(cluster: &Cluster, arguments: &[&str]) -> (i32, String) {
    let output = command(loadtest())
        .args(arguments)
        .env("TOLLGATE_ADMIN_TOKEN", cluster.nodes[0].admin().token())
        .env("TOLLGATE_LOADTEST_TOKEN", BETWEEN)
        .output()
        .expect("run tollgate-loadtest");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(INVALID) => (0, said),
        code => (code.unwrap_or(-1), said),
    }
}

/// Accounts of a tier with 5 requests a second each, and the file of their keys.
fn limited_keys(cluster: &Cluster, upstream: &Upstream, accounts: usize) -> PathBuf {
    let admin = cluster.nodes[0].admin();
    admin.put_route(&upstream.url);
    let limit = json!({ "name": "per-second", "rate": "5/s", "burst": 5, "per": ["account"] });
    admin.put_tier("small", &json!({ "limits": [limit] }));
    let keys = cluster.dir().join("keys.ndjson");
    let (admins, accounts, file) = (admins(cluster), accounts.to_string(), text(&keys));
    let arguments = ["keys", "make", &file, "--admin", &admins, "--tier", "small", "--accounts", &accounts];
    let (code, said) = run(cluster, &arguments);
    assert_eq!(code, 0, "{said}");
    keys
}

fn admins(cluster: &Cluster) -> String {
    let all: Vec<String> = cluster.nodes.iter().map(|node| format!("http://{}", node.admin_addr)).collect();
    all.join(",")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a result")).expect("JSON")
}

/// Two generators, ten accounts at four times their limit, three nodes: the audit sees all requests of both.
#[test]
fn many_generators_are_audited_as_one() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    let keys = limited_keys(&cluster, &upstream, 10);
    let workers = [Worker::start(command(loadtest()), BETWEEN), Worker::start(command(loadtest()), BETWEEN)];
    let (out, file, admins) = (cluster.dir().join("out.json"), text(&keys), admins(&cluster));
    let (list, result) = (format!("{},{}", workers[0].1, workers[1].1), text(&out));
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    let mut arguments = vec!["coordinator", "--workers", &list];
    arguments.extend(urls.iter().map(String::as_str));
    arguments.extend(["--rate", "200/s", "--seconds", "4", "--keys", &file, "--quiet", "--out", &result]);
    arguments.extend(["--audit", "--admin", &admins, "--threshold", "audit.lost==0"]);
    let (code, said) = run(&cluster, &arguments);
    assert_eq!(code, 0, "{said}");
    let result = json_of(&out);
    assert_eq!(result["counts"]["planned"], 800, "{result}");
    let audit = &result["audit"];
    for finding in ["lost", "doubled", "mismatched", "over_admitted", "usage_mismatches"] {
        assert_eq!(audit[finding], 0, "{finding}: {audit}");
    }
    // It has looked at something: of 800 requests some 250 fit the limits when all are on time.
    let of = |class: &str| result["classes"][class]["corrected"]["count"].as_u64().unwrap_or(0);
    assert!(of("ok") >= 50 && of("rejected") >= 100, "{} {}", of("ok"), of("rejected"));
}

#[test]
fn what_was_logged_becomes_a_trace_and_is_sent_again() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let keys = limited_keys(&cluster, &upstream, 4);
    let (file, admins, url) = (text(&keys), admins(&cluster), cluster.nodes[0].url("/v3/scan"));
    let arguments =
        ["run", &url, "--rate", "10/s", "--seconds", "2", "--keys", &file, "--body", "twelve bytes", "--quiet"];
    let (code, said) = run(&cluster, &arguments);
    assert_eq!(code, 0, "{said}");
    let logged = cluster.nodes[0].admin().rows("route=scan").len();
    assert!(logged >= 20, "{logged}");

    let trace = cluster.dir().join("trace.ndjson.zst");
    let trace = text(&trace);
    let (code, said) = run(&cluster, &["trace", "record", "--admin", &admins, "--since", "1h", &trace]);
    assert_eq!(code, 0, "{said}");
    let plain = cluster.dir().join("trace.ndjson");
    let (code, said) = run(&cluster, &["trace", "convert", &trace, &text(&plain)]);
    assert_eq!(code, 0, "{said}");
    let lines = std::fs::read_to_string(&plain).expect("a trace");
    let records: Vec<Value> =
        lines.lines().skip(1).map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert_eq!(records.len(), logged);
    for record in &records {
        assert_eq!((&record["m"], &record["p"], &record["b"]), (&json!("POST"), &json!("/v3/scan"), &json!(12)));
    }
    let accounts: std::collections::BTreeSet<&str> = records.iter().filter_map(|record| record["a"].as_str()).collect();
    assert_eq!(accounts.len(), 4, "{accounts:?}");
    assert!(!accounts.iter().any(|account| account.starts_with("loadtest")), "a customer's name: {accounts:?}");

    let before = upstream.requests();
    let arguments = ["run", &url, "--trace", &trace, "--keys", &file, "--speed", "2", "--quiet"];
    let (code, said) = run(&cluster, &arguments);
    assert_eq!(code, 0, "{said}");
    assert!(upstream.requests() > before, "nothing of the trace was sent");
}

#[test]
fn a_target_and_an_admin_api_with_certificates_are_audited_too() {
    let upstream = Upstream::start();
    let dir = tempfile::tempdir().expect("a directory");
    let ca = Authority::new(&dir.path().join("ours"));
    let (cert, key) = ca.issue("node", &["127.0.0.1"]);
    // Furnished over plain listeners, then started again with certificates.
    let mut cluster = Cluster::start(1);
    let keys = text(&limited_keys(&cluster, &upstream, 4));
    cluster.nodes[0].stop();
    let flags = ["--data-tls-cert", "--data-tls-key", "--admin-tls-cert", "--admin-tls-key"];
    let args = flags.iter().zip([&cert, &key, &cert, &key]).flat_map(|(flag, path)| [(*flag).to_owned(), text(path)]);
    cluster.nodes[0].set_options(Options { args: args.collect(), ..Options::default() });
    cluster.nodes[0].start();
    let (url, admin) =
        (format!("https://{}/", cluster.nodes[0].data_addr), format!("https://{}", cluster.nodes[0].admin_addr));
    tests::until("the node listens", || std::net::TcpStream::connect(&cluster.nodes[0].data_addr).ok());
    let (ca, out) = (text(&ca.ca()), cluster.dir().join("out.json"));
    let out_name = text(&out);
    let arguments = ["run", &url, "--rate", "30/s", "--seconds", "2", "--keys", &keys, "--quiet", "--ca", &ca, "--out"];
    let audit = [&out_name, "--audit", "--admin", &admin];
    let (code, said) = run(&cluster, &[&arguments[..], &audit[..]].concat());
    assert_eq!(code, 0, "{said}");
    let result = json_of(&out);
    assert!(result["classes"]["ok"]["corrected"]["count"].as_u64() >= Some(20), "{result}");
    assert_eq!((&result["audit"]["lost"], &result["audit"]["over_admitted"]), (&json!(0), &json!(0)), "{result}");
    // Nobody vouches for this authority elsewhere: no request is sent, in clear or otherwise.
    let before = upstream.requests();
    let arguments = ["run", &url, "--rate", "10/s", "--seconds", "1", "--keys", &keys, "--quiet", "--out", &out_name];
    run(&cluster, &arguments);
    let result = json_of(&out);
    assert_eq!((result["error_rate"].as_f64(), upstream.requests()), (Some(1.0), before), "{result}");
}
