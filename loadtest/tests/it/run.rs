//! Runs: what is sent, what is counted, how it is judged.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{INVALID, run, server::Server, tool, valid};

fn result(server: &Server, more: &[&str]) -> (i32, Value) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let out = file.path().display().to_string();
    let url = format!("{}/v3/scan", server.url);
    let mut arguments = vec!["run", url.as_str(), "--quiet", "--out", out.as_str()];
    arguments.extend(more);
    let (code, text) = valid(server, || run(&arguments));
    let json = std::fs::read(file.path()).expect("the result");
    (code, serde_json::from_slice(&json).unwrap_or_else(|_| panic!("exit {code}: {text}")))
}

#[test]
fn a_shape_is_sent_as_it_was_planned_and_the_reports_keep_their_forms() {
    let server = Server::start(|n, _| (if n % 10 == 0 { 429 } else { 200 }, "", Duration::ZERO));
    let directory = tempfile::tempdir().expect("a directory");
    let report = directory.path().join("report.html");
    let report_name = report.display().to_string();
    let (code, result) = result(
        &server,
        &["--shape", "hold 100/s 1s; spike 3x 1s; hold 100/s 1s", "--report", &report_name, "--threshold", "unsent==0"],
    );
    assert_eq!((code, &result["verdict"]), (0, &Value::from("pass")), "{result}");
    assert_eq!(server.requests().len(), 500);
    assert_eq!(result["counts"]["planned"], 500);
    let planned: Vec<u64> = result["timeline"]
        .as_array()
        .expect("seconds")
        .iter()
        .map(|s| s["planned"].as_u64().expect("a count"))
        .collect();
    assert_eq!(planned, [100, 300, 100]);
    assert_eq!(result["classes"]["rejected"]["corrected"]["count"], 50);
    // The histograms of the seconds are the whole one.
    let ended: u64 =
        result["timeline"].as_array().expect("seconds").iter().map(|s| s["finished"].as_u64().expect("a count")).sum();
    assert_eq!(ended, 500);
    let schema: Value = serde_json::from_str(&run(&["schema", "result"]).1).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator.iter_errors(&result).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let mut wrong = result.clone();
    wrong["verdict"] = "fine".into();
    assert!(!validator.is_valid(&wrong), "the schema lets everything pass");
    let html = std::fs::read_to_string(report).expect("the report");
    assert!(html.contains("<svg") && !html.contains("src=") && !html.contains("href="), "needs something from outside");
}

#[test]
fn every_exit_code_says_what_it_should() {
    let server = Server::start(|_, _| (200, "", Duration::from_millis(30)));
    let url = server.url.as_str();
    let short = ["--rate", "50/s", "--seconds", "0.5", "--quiet"];
    let with = |more: &[&str]| {
        let mut arguments = vec!["run", url];
        arguments.extend(short);
        arguments.extend(more);
        run(&arguments)
    };
    assert_eq!(valid(&server, || with(&[])).0, 0);
    server.forget();
    assert_eq!(valid(&server, || with(&["--threshold", "p99<1ms"])).0, 10);
    server.forget();
    let (code, text) = with(&["--threshold", "p9<1ms"]);
    assert!(code == 2 && text.contains("not a metric"), "{text}");
    let (code, text) = with(&["--threshold", "audit.lost==0"]);
    assert!(code == 2 && text.contains("--audit"), "{text}");
    let (code, text) = run(&["run", url, "--shape", "hold 100/s 1s; spiek 2x 1s"]);
    assert!(code == 2 && text.contains("segment 2"), "{text}");
    assert_eq!(server.requests().len(), 0, "something was sent for these mistakes");
}

#[test]
fn a_signal_drains_reports_and_ends_with_130() {
    let server = Server::instant();
    let child = tool()
        .args(["run", &server.url, "--rate", "100/s", "--seconds", "60", "--quiet"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start");
    while server.requests().is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signal it");
    let started = Instant::now();
    let output = child.wait_with_output().expect("ends");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stdout).contains("verdict: interrupted"));
}

/// It panicked, and its exit code was that of a panic.
#[cfg(target_os = "linux")]
#[test]
fn a_summary_that_nobody_reads_changes_no_verdict() {
    let server = Server::instant();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let mut command = tool();
    command.args(["run", &server.url, "--rate", "20/s", "--seconds", "0.5", "--quiet"]).stdout(full);
    let output = command.stderr(std::process::Stdio::piped()).output().expect("run");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | INVALID)) && told.contains("could not be written"), "{told}");
}

#[test]
fn a_send_waits_for_no_answer() {
    // Every answer takes a second: a closed loop with few connections would send a handful.
    let server = Server::start(|_, _| (200, "", Duration::from_secs(1)));
    let (code, result) = result(&server, &["--rate", "100/s", "--seconds", "2"]);
    assert_eq!(code, 0, "{result}");
    let seen = server.requests();
    let took = seen.last().expect("some").at - seen[0].at;
    assert_eq!(seen.len(), 200);
    assert!(took < Duration::from_millis(2_300), "{took:?}");
    assert!(server.connections.load(Ordering::Relaxed) >= 90, "{:?}", server.connections);
}

#[test]
fn what_cannot_be_sent_is_counted() {
    let server = Server::start(|_, _| (200, "", Duration::from_millis(200)));
    let (code, result) =
        result(&server, &["--rate", "100/s", "--seconds", "1", "--max-in-flight", "5", "--threshold", "unsent==0"]);
    let counts = &result["counts"];
    assert_eq!(code, 10, "{counts}");
    assert_eq!(counts["planned"], 100);
    assert!(counts["unsent_full"].as_u64().expect("a count") > 50, "{counts}");
    assert_eq!(counts["sent"].as_u64().expect("a count") + counts["unsent"].as_u64().expect("a count"), 100);
    assert_eq!(server.requests().len() as u64, counts["sent"].as_u64().expect("a count"));
}

#[test]
fn bounded_connections_queue_and_the_queue_is_in_the_corrected_latency_only() {
    let server = Server::start(|_, _| (200, "", Duration::from_millis(20)));
    // Two connections carry 100/s; 150/s are due.
    let (_, result) = result(&server, &["--rate", "150/s", "--seconds", "2", "--connections", "2"]);
    let (corrected, raw) = (&result["corrected"], &result["service"]);
    assert!(corrected["p99"].as_f64() > Some(400.0) && raw["p99"].as_f64() < Some(100.0), "{corrected} {raw}");
    assert_eq!(server.connections.load(Ordering::Relaxed), 2);
}

#[test]
fn clients_behave_as_told() {
    let server = Server::instant();
    result(&server, &["--rate", "100/s", "--seconds", "1", "--behaviour", "new-connection=1"]);
    assert_eq!(server.connections.load(Ordering::Relaxed), 100);
    let server = Server::start(|_, _| (200, "", Duration::from_millis(100)));
    let (_, result) = result(&server, &["--rate", "50/s", "--seconds", "1", "--behaviour", "hang-up=1"]);
    assert_eq!(result["classes"]["hung-up"]["corrected"]["count"], 50, "{result}");
    assert_eq!(result["error_rate"], 0.0);
}

#[test]
fn retry_profiles_come_back_when_they_are_known_to() {
    let refuse_twice = |n: u64, _: &crate::server::Seen| {
        (if n < 2 { 429 } else { 200 }, if n < 2 { "retry-after: 2\r\n" } else { "" }, Duration::ZERO)
    };
    for (profile, wait) in [("sdk", 1.0), ("honour-retry-after", 2.0)] {
        let server = Server::start(refuse_twice);
        let (_, result) = result(&server, &["--rate", "1/s", "--seconds", "1", "--retry", profile]);
        let seen = server.requests();
        assert_eq!(seen.len(), 3, "{profile}");
        let between = (seen[1].at - seen[0].at).as_secs_f64();
        assert!((wait - 0.05..wait + 0.5).contains(&between), "{profile}: {between}");
        assert_eq!((&result["counts"]["retries"], &result["counts"]["planned"]), (&2.into(), &1.into()));
        // Three answers, one request: what finally became of it, and a rate that retries are no part of.
        let finally = result["finally"].as_array().expect("a list");
        assert_eq!((finally.len(), &finally[0]["outcome"], &finally[0]["count"]), (1, &"200".into(), &1.into()));
        assert_eq!((&result["counts"]["finished"], &result["counts"]["settled"]), (&3.into(), &1.into()));
        assert!(
            result["took"].as_f64() >= Some(2.0 * wait) && result["rate"].as_f64() <= Some(0.5),
            "{}",
            result["took"]
        );
    }
}

#[test]
fn a_dry_run_draws_and_sends_nothing() {
    let server = Server::instant();
    let (code, text) = run(&["run", &server.url, "--preset", "thundering-herd", "--rate", "50/s", "--dry-run"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains('█') && text.contains("requests in") && text.contains("peak"), "{text}");
    assert!(server.requests().is_empty());
}

#[test]
fn a_scenario_is_a_run_and_a_mistyped_entry_is_told_with_its_line() {
    let server = Server::instant();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("scenario.toml");
    let name = file.display().to_string();
    let scenario = |more: &str| {
        format!(
            "targets = [\"{}\"]\nshape = \"hold 200/s 1s\"\n{more}\n[[requests]]\npath = \"/a\"\nweight = 3\n[[requests]]\npath = \"/b\"\nbody = '{{}}'\n",
            server.url
        )
    };
    std::fs::write(&file, scenario("thresholds = [\"error_rate<1%\"]")).expect("write");
    let (code, text) = valid(&server, || run(&["run", "--scenario", &name, "--quiet"]));
    assert_eq!(code, 0, "{text}");
    let seen = server.requests();
    let a = seen.iter().filter(|seen| seen.path == "/a" && seen.method == "GET").count();
    let b = seen.iter().filter(|seen| seen.path == "/b" && seen.method == "POST" && seen.body == b"{}").count();
    assert!(a + b == 200 && (125..175).contains(&a), "{a} {b}");
    std::fs::write(&file, scenario("threshold = []")).expect("write");
    let (code, text) = run(&["run", "--scenario", &name, "--quiet"]);
    assert!(code == 2 && text.contains("line 3") && text.contains("threshold"), "{text}");
}

#[test]
fn a_dead_target_is_left_out_while_there_is_another() {
    let server = Server::instant();
    // Nobody listens on it, and no test of this moment can be given it.
    let dead = "127.0.0.1:1";
    let dead = format!("http://{dead}");
    let (code, text) =
        valid(&server, || run(&["run", &server.url, &dead, "--rate", "100/s", "--seconds", "2", "--quiet"]));
    assert_eq!(code, 0, "{text}");
    // What it refused went to the other.
    assert_eq!(server.requests().len(), 200, "{text}");
    // Nothing is left out: every second request is refused.
    server.forget();
    let (_, text) = valid(&server, || {
        run(&["run", &server.url, &dead, "--rate", "100/s", "--seconds", "2", "--eject", "0s", "--quiet"])
    });
    assert_eq!(server.requests().len(), 100, "{text}");
}

/// A request that was handed to a connection whose end was not seen yet waited for its time-out: the driver had ended, and
/// what still waited in it was told nothing.
#[test]
fn a_kept_connection_that_died_costs_no_request_its_time() {
    let server = Server::start(|n, _| (200, if n % 2 == 0 { "x-close: 1\r\n" } else { "" }, Duration::ZERO));
    let (code, result) = result(&server, &["--rate", "300/s", "--seconds", "2", "--timeout", "3s"]);
    assert_eq!(code, 0);
    assert!(result["corrected"]["max"].as_f64() < Some(2_000.0), "{} {}", result["outcomes"], result["corrected"]);
    let ok = result["classes"]["ok"]["corrected"]["count"].as_u64();
    assert!(ok >= Some(590), "{}", result["outcomes"]);
}

#[test]
fn a_baseline_is_compared() {
    let server = Server::instant();
    let directory = tempfile::tempdir().expect("a directory");
    let old = directory.path().join("old.json").display().to_string();
    let short = ["--rate", "50/s", "--seconds", "3", "--quiet"];
    let mut first = vec!["run", server.url.as_str(), "--out", old.as_str()];
    first.extend(short);
    assert_eq!(valid(&server, || run(&first)).0, 0);
    let mut second = vec!["run", server.url.as_str(), "--baseline", old.as_str()];
    second.extend(short);
    let (code, text) = valid(&server, || run(&second));
    assert!(code == 0 && text.contains("against the run of") && text.contains("noise"), "{text}");
}

#[test]
fn keys_are_sent_and_never_shown() {
    let server = Server::instant();
    let directory = tempfile::tempdir().expect("a directory");
    let keys = directory.path().join("keys.ndjson");
    std::fs::write(&keys, "{\"key\":\"secret-one\",\"tier\":\"free\"}\n{\"key\":\"secret-two\"}\n").expect("write");
    let out = directory.path().join("out.json");
    let (code, output) = valid(&server, || {
        let output = tool()
            .args(["run", &server.url, "--rate", "50/s", "--seconds", "1", "--keys"])
            .arg(&keys)
            .arg("--out")
            .arg(&out)
            .output()
            .expect("run");
        (output.status.code().unwrap_or(-1), output)
    });
    assert_eq!(code, 0);
    let sent: std::collections::BTreeSet<String> = server.requests().into_iter().filter_map(|seen| seen.key).collect();
    assert_eq!(sent.into_iter().collect::<Vec<_>>(), ["Bearer secret-one", "Bearer secret-two"]);
    let told = [output.stdout, output.stderr, std::fs::read(out).expect("the result")].concat();
    assert!(!String::from_utf8_lossy(&told).contains("secret"));
}

#[test]
fn the_rate_is_what_was_achieved_and_not_what_was_planned() {
    let server = Server::start(|_, _| (200, "", Duration::from_secs(2)));
    let (_, result) = result(&server, &["--rate", "20/s", "--seconds", "1"]);
    // 20 in at least 2.95 s.
    let (took, rate) = (result["took"].as_f64().expect("a time"), result["rate"].as_f64().expect("a rate"));
    assert!(took >= 2.9 && rate <= 7.0, "{took} {rate}");
}

#[test]
fn a_run_that_tried_nothing_does_not_pass() {
    let server = Server::instant();
    let (code, text) = run(&["run", &server.url, "--shape", "hold 0 100ms", "--quiet", "--threshold", "error_rate<1%"]);
    assert!(code == 12 && text.contains("nothing was to be sent"), "{code} {text}");
}

#[test]
fn a_dead_target_is_seen_in_the_summary_and_is_no_pass() {
    // Nobody listens on it, and no test of this moment can be given it.
    let dead = "127.0.0.1:1";
    let (code, text) = run(&["run", &format!("http://{dead}"), "--rate", "20/s", "--seconds", "0.5", "--quiet"]);
    assert!(code == 12 && text.contains("not one connection could be made"), "{code} {text}");
    assert!(text.contains("errors 100.00 %") && text.contains("connection-refused"), "{text}");
}

#[test]
fn what_was_served_stands_apart_from_what_was_refused() {
    let server =
        Server::start(|n, _| if n % 2 == 0 { (429, "", Duration::ZERO) } else { (200, "", Duration::from_millis(60)) });
    let (_, text) = valid(&server, || run(&["run", &server.url, "--rate", "40/s", "--seconds", "1", "--quiet"]));
    let p50 = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{text}"));
        line.trim_start()
            .trim_start_matches(name)
            .split_whitespace()
            .next()
            .expect("a figure")
            .parse()
            .expect("a figure")
    };
    assert!(p50("ok of them") >= 60.0 && p50("429 of them") < p50("ok of them"), "{text}");
}

#[test]
fn chaos_that_cannot_be_done_is_refused_and_what_failed_is_no_pass() {
    let server = Server::instant();
    let with =
        |chaos: &str| run(&["run", &server.url, "--rate", "20/s", "--seconds", "1", "--quiet", "--chaos", chaos]);
    let (code, text) = with("kill node-1 @0.5s");
    assert!(code == 2 && text.contains("--chaos-control"), "{code} {text}");
    let (code, text) = with("exec true @5s");
    assert!(code == 2 && text.contains("the run ends"), "{code} {text}");
    assert!(server.requests().is_empty());
    let (code, text) = with("exec exit 3 @0.2s");
    assert!(code == 12 && text.contains("chaos failed") && text.contains("exit status: 3"), "{code} {text}");
    // A step that was done is no finding. That the generator was late on a busy machine is none of it.
    let (code, text) = with("exec true @0.5s");
    let invalid: Vec<&str> =
        text.lines().filter(|line| line.contains("INVALID") && !line.contains("was late")).collect();
    assert!(text.contains("ran true") && invalid.is_empty() && [0, INVALID].contains(&code), "{code} {text}");
}
