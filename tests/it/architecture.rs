//! The shape of the sources, held by reading them: who may import whom, where openraft and HTTP may be named, how long a file
//! may be. Each offender is printed with its line and the rule that it breaks.
//!
//! Exceptions are listed here with their reason; one that is no longer needed fails too, so the lists only get shorter.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Rooms of the store and what each may import: only what is below it.
const STORE: &[(&str, &[&str])] = &[
    // The operating system, or the simulation in its place: below all others.
    ("platform", &[]),
    ("model", &["platform"]),
    ("wal", &["model", "platform"]),
    ("state", &["model", "platform"]),
    ("raft", &["model", "wal", "state", "platform"]),
    ("view", &["model"]),
    ("lease", &["model", "view", "platform"]),
    // Every parser by name, for the fuzzer: no part of the product.
    ("fuzz", &["lease", "model", "raft", "state", "wal"]),
    // The handle is the store's top.
    ("store", &["model", "wal", "state", "raft", "view", "lease", "platform"]),
];

/// Rooms of the gateway and what each may import. They meet in `app`; `demo` is a user who starts nodes (`app`) and then
/// speaks their admin API with the command line's client; `cli` is the program's entry and starts both.
const GATEWAY: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("telemetry", &[]),
    ("tls", &["telemetry"]),
    ("config", &[]),
    ("operator", &["telemetry", "tls"]),
    ("otlp", &["telemetry", "tls"]),
    ("stack", &["error", "otlp", "telemetry", "tls"]),
    ("admin", &["config", "error", "operator", "telemetry", "tls"]),
    ("app", &["admin", "config", "error", "operator", "otlp", "stack", "telemetry", "tls"]),
    ("demo", &["admin", "app", "cli", "config", "error", "operator", "tls"]),
    ("cli", &["app", "config", "demo", "tls"]),
    // Every parser by name, for the fuzzer: no part of the product.
    ("fuzz", &["admin", "cli", "config", "otlp", "stack", "tls"]),
];

/// Rooms of the load tester and what each may import.
const LOADTEST: &[(&str, &[&str])] = &[
    ("measure", &[]),
    ("shape", &[]),
    ("exit", &[]),
    ("secure", &[]),
    ("admin", &["exit", "secure"]),
    ("trace", &["admin", "exit"]),
    ("plan", &["exit", "measure", "shape", "trace"]),
    ("client", &["measure", "plan", "secure"]),
    ("audit", &["admin", "client", "exit"]),
    ("chaos", &["admin", "client", "exit", "shape"]),
    ("report", &["audit", "client", "exit", "measure"]),
    ("screen", &["chaos", "measure", "report"]),
    (
        "run",
        &[
            "admin", "audit", "chaos", "client", "exit", "measure", "plan", "report", "screen", "secure", "shape",
            "trace",
        ],
    ),
    ("cluster", &["audit", "client", "exit", "measure", "run"]),
    ("selftest", &["admin", "client", "exit", "plan", "report", "run"]),
    ("fuzz", &["chaos", "shape", "trace"]),
    (
        "cli",
        &[
            "admin", "chaos", "client", "cluster", "exit", "plan", "report", "run", "secure", "selftest", "shape",
            "trace",
        ],
    ),
];

/// A line that may break a rule, by file and a part of its text; and why.
const EXCEPTIONS: &[(&str, &str)] = &[];

const LONGEST: usize = 450;

struct Source {
    /// From the repository's root.
    path: String,
    text: String,
}

impl Source {
    /// Lines that are no comments, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(n, line)| (n + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Whether it holds nothing but tests.
    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The first module below `src`, `lib` for the root itself.
    fn room(&self) -> &str {
        let (_, below) = self.path.split_once("/src/").expect("a source of a crate");
        below.split('/').next().expect("a path has a first part").trim_end_matches(".rs")
    }
}

fn sources(dirs: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace").to_owned();
    let mut waiting: Vec<PathBuf> = dirs.iter().map(|dir| root.join(dir)).collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
            waiting.extend(entries.map(|entry| entry.expect("an entry of a directory").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
            let path = path.strip_prefix(&root).expect("below the root").display().to_string();
            found.push(Source { path, text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no sources in {dirs:?}");
    found
}

/// Every `crate::x` of a file: line, and x. Groups (`use crate::{a::B, c}`) are opened.
fn crate_uses(source: &Source) -> Vec<(usize, String)> {
    let code: String = source.text.lines().fold(String::new(), |mut code, line| {
        // Comments keep their line's place and lose their text.
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
        code
    });
    let mut uses = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::`, `other_crate::`
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = |offset: usize| code[..offset].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        if !rest.starts_with('{') {
            uses.push((line(at), first_word(rest).to_owned()));
            continue;
        }
        let (mut depth, mut starts) = (0, false);
        for (n, c) in rest.char_indices() {
            match c {
                '{' => {
                    depth += 1;
                    starts = depth == 1;
                }
                '}' => depth -= 1,
                ',' => starts = depth == 1,
                c if starts && !c.is_whitespace() => {
                    starts = false;
                    uses.push((line(at) + rest[..n].matches('\n').count(), first_word(&rest[n..]).to_owned()));
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    uses
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

fn excepted(path: &str, text: &str, used: &mut BTreeSet<usize>) -> bool {
    let found = EXCEPTIONS.iter().position(|(file, part)| path.starts_with(file) && text == *part);
    used.extend(found);
    found.is_some()
}

fn judge(offenders: &[String], rule: &str) {
    assert!(offenders.is_empty(), "{rule}\n{} offenders:\n  {}\n", offenders.len(), offenders.join("\n  "));
}

/// Lines that import against the table.
fn against(table: &[(&str, &[&str])], dir: &str, used: &mut BTreeSet<usize>) -> Vec<String> {
    let mut offenders = Vec::new();
    for source in sources(&[dir]) {
        let room = source.room();
        if matches!(room, "lib" | "main") {
            continue;
        }
        let Some((_, below)) = table.iter().find(|(name, _)| *name == room) else {
            offenders.push(format!("{}: a room that tests/it/architecture.rs does not know", source.path));
            continue;
        };
        for (line, name) in crate_uses(&source) {
            // What the root re-exports comes from the top, except to the top itself.
            let is_room = table.iter().any(|(room, _)| *room == name);
            let allowed = name == room || below.contains(&name.as_str()) || (!is_room && room == "store");
            if !allowed && !excepted(&source.path, &format!("crate::{name}"), used) {
                let below = if below.is_empty() { "nothing".to_owned() } else { below.join(", ") };
                offenders.push(format!("{}:{line}: crate::{name}; {room} may import {below}", source.path));
            }
        }
    }
    offenders
}

#[test]
fn imports_in_the_store_go_down_only() {
    let mut used = BTreeSet::new();
    let mut offenders = against(STORE, "store/src", &mut used);
    for (n, (file, part)) in EXCEPTIONS.iter().enumerate() {
        if !used.contains(&n) {
            offenders.push(format!("{file}: the exception for {part} is no longer needed"));
        }
    }
    judge(&offenders, "model ◂ wal, state ◂ raft; model ◂ view ◂ lease; all ◂ store (the handle)");
}

#[test]
fn the_gateways_rooms_meet_only_in_app() {
    let offenders = against(GATEWAY, "gateway/src", &mut BTreeSet::new());
    judge(&offenders, "stack, admin, config and operator know nothing of each other (admin asks operator who calls)");
}

#[test]
fn imports_in_the_load_tester_go_down_only() {
    let offenders = against(LOADTEST, "loadtest/src", &mut BTreeSet::new());
    judge(
        &offenders,
        "exit, measure, shape ◂ trace ◂ plan ◂ client ◂ audit, chaos ◂ report ◂ screen ◂ run ◂ cluster, selftest ◂ cli",
    );
}

#[test]
fn the_store_knows_no_http_and_only_its_raft_knows_openraft() {
    let mut offenders = Vec::new();
    for source in sources(&["store/src", "gateway/src", "loadtest/src", "tests/src"]) {
        for (line, text) in source.code() {
            let names = |name: &str| text.contains(&format!("{name}::"));
            if names("openraft") && source.room() != "raft" {
                offenders.push(format!("{}:{line}: openraft outside of store/src/raft: {}", source.path, text.trim()));
            }
            let http = ["axum", "hyper", "hyper_util", "tower", "http"].into_iter().find(|name| names(name));
            if let Some(name) = http.filter(|_| source.path.starts_with("store/")) {
                offenders.push(format!("{}:{line}: {name} in the store: {}", source.path, text.trim()));
            }
        }
    }
    judge(&offenders, "openraft is named only in store/src/raft, HTTP only above the store");
}

#[test]
fn the_load_test_knows_nothing_of_the_products_types() {
    let mut offenders = Vec::new();
    for source in sources(&["loadtest/src"]) {
        for (line, text) in source.code().filter(|(_, text)| text.contains("store::") || text.contains("gateway::")) {
            offenders.push(format!("{}:{line}: {}", source.path, text.trim()));
        }
    }
    judge(&offenders, "tollgate-loadtest speaks HTTP and nothing else");
}

#[test]
fn statuses_of_failures_stand_in_one_file_of_the_gateway() {
    const SUCCESSES: [&str; 4] = ["OK", "CREATED", "NO_CONTENT", "NOT_MODIFIED"];
    let mut offenders = Vec::new();
    for source in sources(&["gateway/src"]) {
        if source.is_test() || source.room() == "error" {
            continue;
        }
        // Tests stand last in a file.
        let code = source.code().take_while(|(_, text)| text.trim() != "#[cfg(test)]");
        for (line, text) in code {
            let constants = text.split("StatusCode::").skip(1).map(first_word);
            let failures = constants.filter(|name| name.starts_with(char::is_uppercase) && !SUCCESSES.contains(name));
            offenders.extend(failures.map(|name| format!("{}:{line}: StatusCode::{name}", source.path)));
        }
    }
    judge(&offenders, "HTTP statuses of failures are in gateway/src/error.rs");
}

#[test]
fn files_have_a_head_and_are_short_or_say_why_not() {
    let mut offenders = Vec::new();
    for source in sources(&["store/src", "gateway/src", "loadtest/src", "tests/src", "tests/it"]) {
        let head: Vec<&str> = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
        let lines = source.text.lines().count();
        if head.is_empty() && !source.is_test() {
            offenders.push(format!("{}: no head (//! what it is, why it is this way)", source.path));
        }
        let says_why = head.iter().any(|line| line.to_lowercase().contains("one file because"));
        if lines > LONGEST && !says_why {
            let path = &source.path;
            offenders.push(format!(
                "{path}: {lines} lines; look for the second idea, or say `One file because …` in its head"
            ));
        }
    }
    judge(&offenders, "a file has a head, and at most 450 lines");
}

#[test]
fn groups_of_imports_are_opened() {
    let text =
        "use crate::{\n    a::{B, c},\n    d, // crate::not_this\n};\nfn f() { crate::e::g(); other_crate::h(); }\n";
    let uses = crate_uses(&Source { path: "x/src/y.rs".into(), text: text.into() });
    let uses: Vec<_> = uses.iter().map(|(line, name)| (*line, name.as_str())).collect();
    assert_eq!(uses, [(2, "a"), (3, "d"), (5, "e")]);
}
