//! Command lines that are refused, or told about.

use crate::run;

#[test]
fn a_port_that_is_none_is_refused_and_not_replaced_by_the_usual_one() {
    for url in ["http://127.0.0.1:99999", "http://127.0.0.1:0/a", "https://[::1]:70000", "http://127.0.0.1:/a"] {
        let (code, text) = run(&["run", url, "--rate", "1/s", "--seconds", "1", "--quiet"]);
        assert!(code == 2 && text.contains("expected a port from 1 to 65535"), "{url}: {code} {text}");
    }
}

#[test]
fn two_reports_in_one_file_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("both").display().to_string();
    let (code, text) =
        run(&["run", "http://127.0.0.1:9", "--rate", "1/s", "--seconds", "1", "--out", &file, "--report", &file]);
    assert!(code == 2 && text.contains("--out and --report"), "{code} {text}");
}

#[test]
fn what_would_have_no_effect_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (scenario, trace) = (directory.path().join("scenario.toml"), directory.path().join("t.ndjson"));
    std::fs::write(&scenario, "shape = \"hold 10/s 1s\"\n[[requests]]\npath = \"/a\"\n").expect("write");
    std::fs::write(&trace, "{\"tollgate_trace\":1}\n{\"t\":0,\"m\":\"GET\",\"p\":\"/\"}\n").expect("write");
    let (scenario, trace) = (scenario.display().to_string(), trace.display().to_string());
    let url = "http://127.0.0.1:9";
    let cases: [(&[&str], &str); 15] = [
        (&["--trace", &trace, "--arrivals", "poisson"], "--arrivals"),
        (&["--scenario", &scenario, "--body", "x"], "--body"),
        (&["--scenario", &scenario, "--method", "PUT", "--header", "a: b"], "--method, --header"),
        (&["--scenario", &scenario, "--rate", "5/s"], "--rate"),
        (&["--scenario", &scenario, "--seconds", "5"], "--seconds"),
        (&["--trace", &trace, "--body", "x"], "--body"),
        (&["--trace", &trace, "--rate", "5/s"], "--rate"),
        (&["--trace", &trace, "--seconds", "5"], "--seconds"),
        (&["--trace", &trace, "--mix", "/v9=2"], "/v9"),
        (&["--rate", "5/s", "--speed", "2"], "--speed"),
        (&["--rate", "5/s", "--amplitude", "2"], "--amplitude"),
        (&["--rate", "5/s", "--mix", "/v9=2"], "/v9"),
        (&["--rate", "5/s", "--mix", "tier:gold=2"], "tier:gold"),
        (&["--preset", "scan-burst"], "--preset scan-burst needs --rate"),
        (&["http://127.0.0.1:10/other", "--rate", "5/s"], "/other"),
    ];
    for (more, expected) in cases {
        let mut arguments = vec!["run", url, "--dry-run"];
        arguments.extend(more);
        let (code, text) = run(&arguments);
        assert!(code == 2 && text.contains(expected), "{more:?}: {code} {text}");
    }
    // A target is often pasted with its path: told, and no mistake.
    let (code, text) = run(&["run", "http://127.0.0.1:10/other", "--trace", &trace, "--dry-run"]);
    assert!(code == 0 && text.contains("/other: its path is not used: the trace has"), "{code} {text}");
    // Factors make a base rate mean something.
    let (code, text) = run(&["run", url, "--shape", "hold 2x 1s", "--rate", "5/s", "--dry-run"]);
    assert!(code == 0 && text.contains("10 requests"), "{code} {text}");
}
