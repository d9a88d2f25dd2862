use std::io::Write;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    entries: Entries,
}

fn flags(args: &[&str]) -> Entries {
    Flags::try_parse_from([&["serve"], args].concat()).expect("flags").entries
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn reasons(result: Result<Settings, Error>) -> Vec<String> {
    result.expect_err("refused").0
}

#[test]
fn flags_win_over_environment_and_environment_over_file() {
    let file = file("data_dir = \"/file\"\nvoters = 5\ndrain_seconds = 7\n");
    let settings = load(
        Some(file.path()),
        env(&[("TOLLGATE_VOTERS", "1"), ("TOLLGATE_DATA_DIR", "/env"), ("HOME", "/root")]),
        flags(&["--data-dir", "/flag", "--insecure"]),
    )
    .expect("settings");
    assert_eq!(settings.data_dir, Path::new("/flag"));
    assert_eq!((settings.voters, settings.drain_seconds, settings.insecure), (1, 7, true));
    assert_eq!(settings.commit_deadline_ms, 2_000);
    assert!(!settings.node_name.is_empty());
}

#[test]
fn every_default_reads_and_is_in_the_help_with_its_variable() {
    let settings = load(None, env(&[]), flags(&["--data-dir", "/d"])).expect("settings");
    let command = Entries::describe(<Flags as clap::CommandFactory>::command());
    let help = command.clone().term_width(500).render_long_help().to_string();
    for (key, _) in settings.entries() {
        assert!(help.contains(&format!("--{}", key.replace('_', "-"))), "{key}");
        assert!(help.contains(&format!("[env: TOLLGATE_{}]", key.to_ascii_uppercase())), "{key}");
    }
    assert!(help.contains("[default: 2000]") && help.contains("<MILLISECONDS>"));
}

#[test]
fn unknown_and_ill_typed_variables_are_refused_together_and_service_links_are_not() {
    let reasons = reasons(load(
        None,
        env(&[
            ("TOLLGATE_DATA_ADRR", "x"),
            ("TOLLGATE_DRAIN_SECONDS", "30s"),
            ("TOLLGATE_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("TOLLGATE_PORT", "tcp://10.0.0.1:8080"),
            ("TOLLGATE_ADMIN_SERVICE_PORT_HTTP", "8081"),
            ("TOLLGATE_ADMIN_TOKEN", "tga_secret"),
        ]),
        flags(&["--data-dir", "/d"]),
    ));
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons[0].contains("TOLLGATE_DATA_ADRR is not a setting, did you mean TOLLGATE_DATA_ADDR?"));
    assert_eq!(reasons[1], "environment: TOLLGATE_DRAIN_SECONDS=\"30s\": expected a whole number of seconds, like 30");
    assert!(!reasons.concat().contains("secret"));
}

#[test]
fn admin_and_peers_leave_loopback_only_when_insecure_is_said() {
    let open = ["--data-dir", "/d", "--data-addr", "0.0.0.0:1", "--admin-addr", "0.0.0.0:2", "--peer-addr", "[::]:3"];
    let reasons = reasons(load(None, env(&[]), flags(&open)));
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons[0].starts_with("admin_addr 0.0.0.0:2") && reasons[0].contains("--insecure"));
    assert!(load(None, env(&[("TOLLGATE_INSECURE", "true")]), flags(&open)).is_ok());
    assert!(load(None, env(&[]), flags(&["--data-dir", "/d", "--admin-addr", "[::1]:2"])).is_ok());
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let reasons = reasons(load(
        None,
        env(&[]),
        flags(&[
            "--voters=2",
            "--node-name=-x",
            "--join=a",
            "--compat-headers=x-foo",
            "--log-level=loud",
            "--admin-addr=127.0.0.1:8080",
            "--commit-deadline-ms=1",
        ]),
    ))
    .join("\n");
    for part in [
        "voters 2: expected 1, 3 or 5",
        "node_name \"-x\"",
        "join: \"a\" is not a peer's address",
        "compat_headers: \"x-foo\"",
        "log_level \"loud\"",
        "data_addr and admin_addr are both 127.0.0.1:8080",
        "commit_deadline_ms 1: expected 10 to 60000",
        "data_dir is not set",
    ] {
        assert!(reasons.contains(part), "{part} in\n{reasons}");
    }
}

#[test]
fn a_value_that_does_not_fit_is_told_with_the_place_that_it_was_set_at() {
    let file = file(
        "data_dir = \"/d\"\n# how many vote\nvoters =   4\njoin = [\n  \"a\",\n]\nregion = \"-x\"\nlog_level=\"loud\"\n",
    );
    let at = |place: &str| format!("{}:{place}", file.path().display());
    let told = |env_pairs, args: &[&str]| reasons(load(Some(file.path()), env(env_pairs), flags(args)));
    let reasons = told(&[("TOLLGATE_DRAIN_SECONDS", "90000")], &["--region=-y"]);
    for expected in [
        format!("{}: voters 4: expected 1, 3 or 5", at("3:12")),
        format!("{}: join: \"a\" is not a peer's address", at("4:8")),
        format!("{}: log_level \"loud\": expected", at("8:11")),
        "environment: TOLLGATE_DRAIN_SECONDS: drain_seconds 90000: expected 0 to 86400".to_owned(),
        "region \"-y\": expected".to_owned(),
    ] {
        assert!(reasons.iter().any(|reason| reason.starts_with(&expected)), "{expected} in {reasons:#?}");
    }
}

#[test]
fn the_own_address_is_found_in_the_list_of_peers() {
    let base = ["--data-dir=/d", "--insecure", "--peer-addr=0.0.0.0:8082", "--node-name=t-1"];
    let with = |more: &[&str]| load(None, env(&[]), flags(&[&base, more].concat()));
    let list = "--join=t-0.peers:8082,t-1.peers:8082,t-2.peers:8082";
    assert_eq!(with(&[list]).expect("found").peer_advertise, "t-1.peers:8082");
    assert_eq!(with(&[list, "--peer-advertise=x:1"]).expect("said").peer_advertise, "x:1");
    assert!(reasons(with(&["--join=a:1,b:2"]))[0].contains("--peer-advertise"));
}

#[test]
fn a_missing_file_that_was_named_is_refused() {
    let reasons = reasons(load(Some(Path::new("/nowhere/t.toml")), env(&[]), flags(&["--data-dir", "/d"])));
    assert!(reasons[0].starts_with("read /nowhere/t.toml: "));
}
