//! Workers and a coordinator.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use serde_json::Value;

use crate::{server::Server, tool, valid, worker::Worker};

#[test]
fn two_workers_send_what_one_would_and_are_judged_as_one() {
    let server = Server::start(|n, _| (200, "", Duration::from_millis(if n % 100 == 0 { 80 } else { 0 })));
    let workers = [Worker::start(tool(), "t"), Worker::start(tool(), "t")];
    let directory = tempfile::tempdir().expect("a directory");
    let (keys, out) = (directory.path().join("keys.ndjson"), directory.path().join("out.json"));
    let lines: Vec<String> = (0..20).map(|n| format!("{{\"key\":\"key-{n}\",\"account\":\"account-{n}\"}}")).collect();
    std::fs::write(&keys, lines.join("\n")).expect("write");
    let list = format!("{},{}", workers[0].1, workers[1].1);
    let coordinate = |token: &str| -> (i32, String) {
        let output = tool()
            .args([
                "coordinator",
                "--workers",
                &list,
                &server.url,
                "--shape",
                "hold 200/s 2s; step 400/s 1s",
                "--quiet",
            ])
            .args(["--threshold", "p50<70ms", "--threshold", "max>=80ms"])
            .arg("--keys")
            .arg(&keys)
            .arg("--out")
            .arg(&out)
            .env("TOLLGATE_LOADTEST_TOKEN", token)
            .output()
            .expect("run the coordinator");
        (
            output.status.code().unwrap_or(-1),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (code, text) = coordinate("another");
    assert!(code == 1 && text.contains("TOLLGATE_LOADTEST_TOKEN"), "{code} {text}");
    assert!(server.requests().is_empty());
    let (code, text) = valid(&server, || coordinate("t"));
    assert_eq!(code, 0, "{text}");
    let result: Value = serde_json::from_slice(&std::fs::read(out).expect("the result")).expect("JSON");
    assert_eq!((&result["counts"]["planned"], server.requests().len()), (&800.into(), 800));
    assert_eq!(result["corrected"]["count"], 800);
    let planned: Vec<u64> = result["timeline"]
        .as_array()
        .expect("seconds")
        .iter()
        .map(|s| s["planned"].as_u64().expect("a count"))
        .collect();
    assert_eq!(planned, [200, 200, 400]);
    // All of an account comes from one worker, and both have some.
    let mut by_key: BTreeMap<String, usize> = BTreeMap::new();
    for seen in server.requests() {
        *by_key.entry(seen.key.expect("a key")).or_default() += 1;
    }
    assert_eq!(by_key.len(), 20);
}

/// The second took the first one's counts and ended its engine, and passed with a tenth of its own requests counted.
#[test]
fn a_worker_belongs_to_one_coordinator_at_a_time() {
    let server = Server::instant();
    let (kept, also) = (Worker::start(tool(), "t"), Worker::start(tool(), "t"));
    let coordinate = |workers: &str, path: &str, seconds: &str| {
        let mut command = tool();
        command.args(["coordinator", "--workers", workers, &format!("{}{path}", server.url)]);
        command
            .args(["--rate", "100/s", "--seconds", seconds, "--send-within", "60s", "--quiet"])
            .env("TOLLGATE_LOADTEST_TOKEN", "t");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let first = coordinate(&kept.1, "/first", "4").spawn().expect("run the coordinator");
    while server.requests().len() < 50 {
        std::thread::sleep(Duration::from_millis(10));
    }
    // The other one of its workers is free, and is not left alone with its part.
    let second = coordinate(&format!("{},{}", also.1, kept.1), "/second", "1").output().expect("run the coordinator");
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(1) && told.contains("busy with the order of another"), "{told}");
    let first = first.wait_with_output().expect("the coordinator ends");
    let told = String::from_utf8_lossy(&first.stdout);
    assert!(told.contains("400 requests planned") && told.contains("400 settled"), "{told}");
    assert!(!told.contains("was lost"), "{told}");
    assert_eq!(server.requests().iter().filter(|seen| seen.path != "/first").count(), 0);
    // It is free again.
    let (code, told) = valid(&server, || {
        let done = coordinate(&kept.1, "/third", "1").output().expect("run the coordinator");
        (done.status.code().unwrap_or(-1), String::from_utf8_lossy(&done.stdout).into_owned())
    });
    assert!(code == 0 && told.contains("100 settled"), "{code} {told}");
}

#[test]
fn a_lost_worker_is_told_and_what_the_other_saw_is_kept() {
    let server = Server::start(|_, _| (200, "", Duration::ZERO));
    let (kept, mut lost) = (Worker::start(tool(), "t"), Worker::start(tool(), "t"));
    let directory = tempfile::tempdir().expect("a directory");
    let (keys, out) = (directory.path().join("keys.ndjson"), directory.path().join("out.json"));
    let lines: Vec<String> = (0..20).map(|n| format!("{{\"key\":\"key-{n}\",\"account\":\"account-{n}\"}}")).collect();
    std::fs::write(&keys, lines.join("\n")).expect("write");
    let coordinator = tool()
        .args(["coordinator", "--workers", &format!("{},{}", kept.1, lost.1), &server.url])
        .args(["--shape", "hold 100/s 6s", "--quiet", "--keys"])
        .arg(&keys)
        .arg("--out")
        .arg(&out)
        .env("TOLLGATE_LOADTEST_TOKEN", "t")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run the coordinator");
    while server.requests().len() < 100 {
        std::thread::sleep(Duration::from_millis(10));
    }
    lost.kill();
    let output = coordinator.wait_with_output().expect("the coordinator ends");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(12), "{text}");
    assert!(text.contains(&format!("worker http://{} was lost at ", lost.1)), "{text}");
    let result: Value = serde_json::from_slice(&std::fs::read(out).expect("the result")).expect("JSON");
    // The other's part goes on to the end.
    let last = result["timeline"].as_array().expect("seconds").last().expect("a second");
    assert_eq!(last["second"], 5, "{result}");
    assert!(last["planned"].as_u64().is_some_and(|planned| planned > 0), "{result}");
}
