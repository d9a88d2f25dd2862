//! Runs whose audit asks an admin API.

use std::time::Duration;

use serde_json::Value;

use crate::{run, server::Server, tool, valid};

/// A gateway and its admin API in one: every answer of the API is `{}`, so that an audit finds nothing of what was answered.
fn gateway(admin: impl Fn(&str) -> (u16, Duration) + Send + Sync + 'static) -> Server {
    Server::start(move |_, seen| {
        let (status, wait) = if seen.path.starts_with("/v1/") { admin(&seen.path) } else { (200, Duration::ZERO) };
        (status, "", wait)
    })
}

fn audited(server: &Server, admin: &str, keys: &str, more: &[&str]) -> (i32, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("keys.ndjson");
    std::fs::write(&file, keys).expect("write");
    let file = file.display().to_string();
    let mut arguments = vec!["run", &server.url, "--rate", "50/s", "--seconds", "0.5", "--quiet", "--audit"];
    arguments.extend(["--admin", admin]);
    if !keys.is_empty() {
        arguments.extend(["--keys", &file]);
    }
    arguments.extend(more);
    let output = tool().args(arguments).env("TOLLGATE_ADMIN_TOKEN", "t").output().expect("run tollgate-loadtest");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), text)
}

/// Read while traffic flows already, what the run took was counted twice.
#[test]
fn where_accounts_stand_is_asked_before_anything_is_sent() {
    let server = gateway(|path| (200, Duration::from_millis(if path.ends_with("/limits") { 100 } else { 0 })));
    let keys: String = (0..40).map(|n| format!("{{\"key\":\"k{n}\",\"account\":\"a{n}\"}}\n")).collect();
    // Answers without X-Request-Id, of which the log knows nothing, are lost: however late the generator was.
    let (code, text) = audited(&server, &server.url, &keys, &[]);
    assert!(code == 11 && text.contains("answered without X-Request-Id"), "{code} {text}");
    let seen = server.requests();
    let limits = seen.iter().filter(|seen| seen.path.ends_with("/limits")).count();
    let before = seen.iter().take_while(|seen| seen.path.starts_with("/v1/"));
    assert_eq!((limits, before.filter(|seen| seen.path.ends_with("/limits")).count()), (40, 40));
}

#[test]
fn an_admin_api_that_is_no_help_is_told_before_anything_is_sent() {
    const KEY: &str = "{\"key\":\"k\",\"account\":\"a\"}\n";
    // Nobody listens on it, and no test of this moment can be given it.
    let dead = "127.0.0.1:1";
    let server = gateway(|_| (401, Duration::ZERO));
    let (code, text) = audited(&server, &format!("http://{dead}"), KEY, &[]);
    assert!(code == 1 && text.contains("nothing was sent"), "{code} {text}");
    let (code, text) = audited(&server, &server.url, KEY, &[]);
    assert!(code == 2 && text.contains("TOLLGATE_ADMIN_TOKEN"), "{code} {text}");
    let (code, text) = audited(&server, &server.url, "", &[]);
    assert!(code == 2 && text.contains("--keys"), "{code} {text}");
    let unknown = gateway(|path| (if path.ends_with("/limits") { 404 } else { 200 }, Duration::ZERO));
    let (code, text) = audited(&unknown, &unknown.url, KEY, &[]);
    assert!(code == 2 && text.contains("\"a\""), "{code} {text}");
    for server in [&server, &unknown] {
        assert!(server.requests().iter().all(|seen| seen.path.starts_with("/v1/")));
    }
}

#[test]
fn a_run_whose_audit_cannot_be_made_still_leaves_its_reports() {
    let is_fine = |path: &str| path == "/v1/requests?limit=1" || path.ends_with("/limits");
    let server = gateway(move |path| (if is_fine(path) { 200 } else { 500 }, Duration::ZERO));
    let directory = tempfile::tempdir().expect("a directory");
    let (out, report) = (directory.path().join("out.json"), directory.path().join("report.html"));
    let (out_name, report_name) = (out.display().to_string(), report.display().to_string());
    let more = ["--out", &out_name, "--report", &report_name, "--threshold", "audit.lost==0"];
    let (code, text) = audited(&server, &server.url, "{\"key\":\"k\",\"account\":\"a\"}\n", &more);
    assert!(code == 12 && text.contains("the audit could not be made"), "{code} {text}");
    let result: Value = serde_json::from_slice(&std::fs::read(&out).expect("the result")).expect("JSON");
    assert_eq!((&result["counts"]["planned"], &result["verdict"]), (&25.into(), &"invalid".into()));
    assert!(std::fs::read_to_string(&report).expect("the report").contains("the audit could not be made"));
    // And it can be compared with, threshold without a value and all.
    let (_, text) = valid(&server, || {
        run(&["run", &server.url, "--rate", "50/s", "--seconds", "0.5", "--quiet", "--baseline", &out_name])
    });
    assert!(text.contains("WARNING: the old run was INVALID"), "{text}");
    server.forget();
    let nowhere = directory.path().join("no/such/report.html").display().to_string();
    let (code, text) =
        run(&["run", &server.url, "--rate", "50/s", "--seconds", "0.5", "--quiet", "--report", &nowhere]);
    assert!(code == 2 && text.contains("report.html") && server.requests().is_empty(), "{code} {text}");
}

#[test]
fn a_scenario_says_all_that_flags_can() {
    let server = gateway(|_| (200, Duration::ZERO));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("scenario.toml");
    std::fs::write(directory.path().join("keys.ndjson"), "{\"key\":\"k\"}\n").expect("write");
    let url = &server.url;
    let text = format!(
        "targets = [\"{url}\"]\nrate = \"50/s\"\nseconds = 0.5\nkeys = \"keys.ndjson\"\naudit = true\nadmin = [\"{url}\"]\n\
         clock_slack = \"5ms\"\nchaos = \"exec true @0.1s\"\nchaos_control = \"{url}\"\n"
    );
    std::fs::write(&file, text).expect("write");
    let output = tool().args(["run", "--quiet", "--scenario"]).arg(&file).env("TOLLGATE_ADMIN_TOKEN", "t").output();
    let output = output.expect("run tollgate-loadtest");
    let (code, text) = (output.status.code(), String::from_utf8_lossy(&output.stdout));
    // Audited: this gateway loses everything.
    assert!(code == Some(11) && text.contains("25 requests planned") && text.contains("ran true"), "{code:?} {text}");
}
