//! Traces: formats, order, bad lines, replay.

use std::{path::Path, time::Duration};

use serde_json::Value;

use crate::{run, server::Server, valid};

const TRACE: &str = concat!(
    "{\"tollgate_trace\":1,\"start\":\"2026-11-21T06:25:38.5Z\",\"source\":\"by hand\"}\n",
    "{\"t\":0,\"m\":\"GET\",\"p\":\"/v3/health\",\"k\":\"k_0123456789ab\",\"s\":200,\"d\":1500000}\n",
    "{\"t\":250000000,\"m\":\"POST\",\"p\":\"/v3/scan?a=b\",\"k\":\"k_ba9876543210\",\"a\":\"a_0123456789ab\",\"b\":20,\"s\":200,\"d\":2000000}\n",
    "{\"t\":250000001,\"m\":\"POST\",\"p\":\"/v3/scan\",\"k\":\"k_0123456789ab\",\"b\":\"{\\\"x\\\":\\\"ü\\\"}\",\"h\":{\"content-type\":\"text/plain\"},\"s\":429}\n",
    "{\"t\":1750000000,\"m\":\"DELETE\",\"p\":\"/v3/scan/7\",\"s\":404}\n",
);

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a trace");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

fn convert(from: &Path, to: &Path, more: &[&str]) -> (i32, String) {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    let mut arguments = vec!["trace", "convert", from.as_str(), to.as_str()];
    arguments.extend(more);
    run(&arguments)
}

/// What a format cannot keep is taken out of the original before they are compared.
fn without(mut lines: Vec<Value>, fields: &[&str]) -> Vec<Value> {
    lines.remove(0);
    for line in &mut lines {
        for field in fields {
            line.as_object_mut().expect("an object").remove(*field);
        }
    }
    lines
}

#[test]
fn every_format_comes_back_with_all_that_it_can_hold() {
    let directory = tempfile::tempdir().expect("a directory");
    let original = directory.path().join("original.ndjson");
    std::fs::write(&original, TRACE).expect("write");
    // A made-up body has its text where the format has no place for a length.
    let filler = "{\"payload\":\"xxxxxx\"}";
    let with_text = |mut lines: Vec<Value>| {
        for line in &mut lines {
            if line["b"] == 20 {
                line["b"] = filler.into();
            }
        }
        lines
    };
    let as_bytes = |mut lines: Vec<Value>| {
        for line in &mut lines {
            if let Some(text) = line["b"].as_str() {
                line["b"] = text.len().into();
            }
        }
        lines
    };
    let kept = |lines: Vec<Value>| lines;
    type Change<'a> = &'a dyn Fn(Vec<Value>) -> Vec<Value>;
    let cases: [(&str, &[&str], Change<'_>); 7] = [
        ("trace", &[], &kept),
        ("nginx-json", &["h"], &as_bytes),
        ("har", &["a"], &with_text),
        ("gor", &["a", "s", "d"], &with_text),
        ("csv", &["h"], &as_bytes),
        ("vegeta", &["t", "a", "s", "d"], &with_text),
        ("combined", &["t", "a", "b", "h", "d"], &kept),
    ];
    for (format, lost, change) in cases {
        let (there, back) = (directory.path().join("there"), directory.path().join("back.ndjson"));
        let (code, text) = convert(&original, &there, &["--to", format]);
        assert_eq!(code, 0, "{format}: {text}");
        let (code, text) = convert(&there, &back, &["--from", format]);
        assert_eq!(code, 0, "{format}: {text}");
        let expected = without(change(lines(&original)), lost);
        let found = without(lines(&back), &lost.iter().copied().filter(|field| *field == "t").collect::<Vec<_>>());
        assert_eq!(found, expected, "{format}");
    }
}

#[test]
fn a_byte_order_mark_is_passed_over_also_in_compressed_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let table = "\u{feff}timestamp,path\n2026-01-01T00:00:00.5Z,/a\n";
    std::fs::write(at("a.csv"), table).expect("write");
    let compressed = std::fs::File::create(at("b.csv.gz")).expect("create");
    let status = std::process::Command::new("gzip").arg("-c").arg(at("a.csv")).stdout(compressed).status();
    assert!(status.expect("gzip").success());
    for name in ["a.csv", "b.csv.gz"] {
        let (code, text) = convert(&at(name), &at("out.ndjson"), &[]);
        assert_eq!(code, 0, "{name}: {text}");
        assert_eq!(lines(&at("out.ndjson"))[1]["p"], "/a", "{name}");
    }
    // And a document that is nothing but one is still refused with its place.
    std::fs::write(at("c.har"), "\u{feff}").expect("write");
    let (code, text) = convert(&at("c.har"), &at("out.ndjson"), &[]);
    assert!(code == 2 && text.contains("c.har:1:"), "{code} {text}");
}

#[test]
fn targets_without_times_come_at_a_rate_that_is_written_as_everywhere() {
    let directory = tempfile::tempdir().expect("a directory");
    let (targets, out) = (directory.path().join("targets"), directory.path().join("out.ndjson"));
    std::fs::write(&targets, "{\"method\":\"GET\",\"url\":\"http://h/a\"}\n".repeat(2)).expect("write");
    for (rate, t) in [("20/s", 50_000_000u64), ("20", 50_000_000), ("600/m", 100_000_000)] {
        let (code, text) = convert(&targets, &out, &["--from", "vegeta", "--rate", rate]);
        assert!(code == 0 && lines(&out)[2]["t"] == t, "{rate}: {code} {text}");
    }
    let (code, text) = convert(&targets, &out, &["--from", "vegeta", "--rate", "0/s"]);
    assert!(code == 2 && text.contains("--rate must be above 0"), "{code} {text}");
}

#[test]
fn compressed_files_are_read_and_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let original = directory.path().join("original.ndjson");
    std::fs::write(&original, TRACE).expect("write");
    for end in ["gz", "zst"] {
        let (packed, back) = (directory.path().join(format!("t.ndjson.{end}")), directory.path().join("back.ndjson"));
        assert_eq!(convert(&original, &packed, &[]).0, 0);
        assert!(std::fs::read(&packed).expect("packed").len() < TRACE.len());
        assert_eq!(convert(&packed, &back, &[]).0, 0);
        assert_eq!(without(lines(&back), &[]), without(lines(&original), &[]));
    }
}

#[test]
fn lines_keep_the_published_schema() {
    let schema: Value = serde_json::from_str(&run(&["schema", "trace"]).1).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for line in TRACE.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert!(validator.is_valid(&line), "{line}");
    }
    for wrong in [r#"{"t":-1,"m":"GET","p":"/"}"#, r#"{"t":1,"m":"GET","p":"x"}"#, r#"{"t":1,"m":"GET","p":"/","x":1}"#]
    {
        assert!(!validator.is_valid(&serde_json::from_str(wrong).expect("JSON")), "{wrong}");
    }
}

#[test]
fn a_real_combined_log_becomes_a_trace_within_its_seconds() {
    let log = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nginx-access.log.gz");
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace.ndjson");
    let (code, text) = convert(&log, &trace, &["--from", "combined"]);
    assert_eq!(code, 0, "{text}");
    let records = without(lines(&trace), &[]);
    assert!(records.len() > 3_000, "{}", records.len());
    let times: Vec<u64> = records.iter().map(|record| record["t"].as_u64().expect("t")).collect();
    assert!(times.is_sorted());
    // Spread: hardly two at the same instant, though the log has dozens in each second.
    let different: std::collections::BTreeSet<&u64> = times.iter().collect();
    assert!(different.len() > times.len() - 5);
    assert!(!std::fs::read_to_string(&trace).expect("a trace").contains("127.0.0.1"), "an address was left in it");
    let again = directory.path().join("again.ndjson");
    convert(&log, &again, &["--from", "combined"]);
    let same = without(lines(&again), &["k"]) == without(lines(&trace), &["k"]);
    assert!(same, "the same seed spreads alike");
}

#[test]
fn a_bad_line_is_told_with_its_place_and_some_may_be_tolerated() {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("t.ndjson");
    let mut text = TRACE.to_owned();
    text.push_str("{\"t\":1800000000,\"m\":\"GET\",\"p\":5}\n{\"t\":1900000000,\"m\":\"GET\",\"p\":\"/last\"}\n");
    std::fs::write(&trace, text).expect("write");
    let name = trace.display().to_string();
    let server = Server::instant();
    let dry = |more: &[&str]| {
        let mut arguments = vec!["run", server.url.as_str(), "--trace", name.as_str(), "--dry-run"];
        arguments.extend(more);
        run(&arguments)
    };
    let (code, text) = dry(&[]);
    assert!(code == 2 && text.contains(&format!("{name}:6:31: ")) && text.contains("expected"), "{code} {text}");
    let (code, text) = dry(&["--skip-bad", "1"]);
    assert!(code == 0 && text.contains("5 requests") && text.contains("1 bad lines were skipped"), "{code} {text}");
}

#[test]
fn what_is_too_far_from_its_place_is_refused_with_its_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("t.ndjson");
    let mut text = "{\"tollgate_trace\":1}\n".to_owned();
    for t in [5, 4, 3, 9, 8, 7, 1u64] {
        text.push_str(&format!("{{\"t\":{t},\"m\":\"GET\",\"p\":\"/\"}}\n"));
    }
    std::fs::write(&trace, text).expect("write");
    let out = directory.path().join("sorted.ndjson");
    assert_eq!(convert(&trace, &out, &["--sort-window", "10"]).0, 0);
    let times: Vec<u64> = without(lines(&out), &[]).iter().map(|line| line["t"].as_u64().expect("t")).collect();
    assert_eq!(times, [0, 2, 3, 4, 6, 7, 8]);
    let (code, text) = convert(&trace, &out, &["--sort-window", "2"]);
    assert!(code == 2 && text.contains("t.ndjson:8:1:") && text.contains("--sort-window"), "{code} {text}");
}

#[test]
fn other_versions_and_other_files_are_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("t.ndjson");
    for (text, expected) in [
        ("{\"tollgate_trace\":2}\n", "version 2"),
        ("{\"t\":1}\n", "expected a trace's header"),
        ("", "the file is empty"),
    ] {
        std::fs::write(&trace, text).expect("write");
        let (code, said) = convert(&trace, &directory.path().join("out.ndjson"), &[]);
        assert!(code == 2 && said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn a_trace_is_replayed_on_its_clock_with_its_bodies_and_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    let (trace, keys) = (directory.path().join("t.ndjson"), directory.path().join("keys.ndjson"));
    std::fs::write(&trace, TRACE).expect("write");
    std::fs::write(
        &keys,
        "{\"key\":\"A\",\"k\":\"k_0123456789ab\"}\n{\"key\":\"B\",\"k\":\"k_ba9876543210\"}\n{\"key\":\"C\"}\n",
    )
    .expect("write");
    let server = Server::instant();
    let (trace, keys) = (trace.display().to_string(), keys.display().to_string());
    let twice = ["--speed", "2", "--amplitude", "2", "--amplitude-by", "intensify"];
    let mut arguments = vec!["run", &server.url, "--trace", &trace, "--keys", &keys, "--quiet"];
    arguments.extend(twice);
    let (code, text) = valid(&server, || run(&arguments));
    assert_eq!(code, 0, "{text}");
    let mut seen = server.requests();
    seen.sort_by_key(|seen| seen.at);
    assert_eq!(seen.len(), 8);
    // At twice the speed 1.75 s are 0.875 s; the copies of the first are spread up to the second record.
    let took = seen[6].at - seen[0].at;
    assert!((Duration::from_millis(840)..Duration::from_millis(950)).contains(&took), "{took:?}");
    let of = |path: &str| -> Vec<(String, String)> {
        let all = seen.iter().filter(|seen| seen.path == path);
        all.map(|seen| (seen.key.clone().unwrap_or_default(), String::from_utf8_lossy(&seen.body).into_owned()))
            .collect()
    };
    assert_eq!(of("/v3/scan"), vec![("Bearer A".to_owned(), "{\"x\":\"ü\"}".to_owned()); 2]);
    assert_eq!(of("/v3/scan?a=b"), vec![("Bearer B".to_owned(), "{\"payload\":\"xxxxxx\"}".to_owned()); 2]);
    assert_eq!(of("/v3/scan/7"), vec![("Bearer C".to_owned(), String::new()); 2]);
}

#[test]
fn a_trace_that_cannot_be_used_is_the_callers_mistake_everywhere() {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("t.ndjson");
    let out = directory.path().join("out.json");
    let (name, out_name) = (trace.display().to_string(), out.display().to_string());
    let server = Server::instant();
    let replay = |more: &[&str]| {
        let mut arguments =
            vec!["run", server.url.as_str(), "--trace", name.as_str(), "--quiet", "--out", out_name.as_str()];
        arguments.extend(more);
        run(&arguments)
    };
    for more in [&["--seed", "1"][..], &["--dry-run"]] {
        let (code, text) = replay(more);
        assert!(code == 2 && text.contains("t.ndjson"), "{code} {text}");
    }
    // A bad line and one out of order, both behind the window: met on the way, after something was sent.
    let records = |t: u64| format!("{{\"t\":{t},\"m\":\"GET\",\"p\":\"/\",\"k\":\"k{}\"}}\n", t % 2);
    for (last, place) in [("nonsense\n", "t.ndjson:8:"), ("{\"t\":0,\"m\":\"GET\",\"p\":\"/\"}\n", "t.ndjson:8:1: ")] {
        let text: String = (1..=6).map(|n| records(n * 50_000_001)).collect();
        std::fs::write(&trace, format!("{{\"tollgate_trace\":1}}\n{text}{last}")).expect("write");
        for more in [&["--sort-window", "2"][..], &["--sort-window", "2", "--dry-run"]] {
            let (code, text) = replay(more);
            assert!(code == 2 && text.contains(place), "{more:?}: {code} {text}");
        }
        let result: Value = serde_json::from_slice(&std::fs::read(&out).expect("the result")).expect("JSON");
        assert!(result["counts"]["sent"].as_u64() >= Some(4), "what was sent until then is reported");
    }
    // Clones without keys for them: nothing is sent.
    let text: String = (1..=6).map(|n| records(n * 50_000_001)).collect();
    std::fs::write(&trace, format!("{{\"tollgate_trace\":1}}\n{text}")).expect("write");
    let keys = directory.path().join("keys.ndjson");
    std::fs::write(&keys, "{\"key\":\"A\"}\n{\"key\":\"B\"}\n{\"key\":\"C\"}\n").expect("write");
    let keys = keys.display().to_string();
    server.forget();
    for more in [
        &["--keys", &keys, "--shape", "hold 1x 100ms; step 2x 1s"][..],
        &["--keys", &keys, "--amplitude", "2", "--dry-run"],
    ] {
        let (code, text) = replay(more);
        assert!(code == 2 && text.contains("--shape") && text.contains("keys make"), "{more:?}: {code} {text}");
    }
    assert!(server.requests().is_empty());
    // Without keys there are no accounts to be cloned, and a shape works.
    let (code, text) = valid(&server, || replay(&["--shape", "hold 1x 100ms; step 2x 1s"]));
    assert!(code == 0 && server.requests().len() > 6, "{code} {text}");
}

#[test]
fn a_trace_goes_to_a_pipe_without_being_told_its_format() {
    let directory = tempfile::tempdir().expect("a directory");
    let original = directory.path().join("original.ndjson");
    std::fs::write(&original, TRACE).expect("write");
    let (code, text) = run(&["trace", "convert", &original.display().to_string(), "-"]);
    assert!(code == 0 && text.starts_with("{\"tollgate_trace\":1"), "{code} {text}");
}
