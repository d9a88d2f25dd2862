//! The page of metrics says what there is.

use std::{fmt::Write as _, fs, path::Path};

use super::Rig;
use crate::telemetry::{ALL, Kind};

/// Written by `UPDATE_METRICS=1 cargo test -p tollgate-gateway metrics_page`.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_page_says_what_there_is() {
    let rig = Rig::start().await;
    let mut rows: Vec<(String, &str, String, String)> = ALL
        .iter()
        .map(|metric| {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            (metric.name.to_owned(), kind, metric.labels.join(", "), metric.help.to_owned())
        })
        .collect();
    for (name, help, _) in rig.node.store.stats() {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        rows.push((name.to_owned(), kind, String::new(), help.to_owned()));
    }
    for one in rig.node.store.distributions() {
        rows.push((one.name.to_owned(), "histogram", String::new(), one.help.to_owned()));
    }
    rows.sort();
    let mut page = String::from(
        "# Metrics\n\nWhat `/metrics` of the admin listener tells. Made by a test from the sources; names, units and help are in \
         `gateway/src/telemetry.rs`\nand `store/src/store/`. No label is an account's or a key's.\n\n| name | kind | labels | what it is |\n|---|---|---|---|\n",
    );
    for (name, kind, labels, help) in &rows {
        let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {help} |");
    }
    if std::env::var_os("UPDATE_METRICS").is_some() {
        fs::write(PAGE, &page).expect("write the page");
    }
    let written = fs::read_to_string(Path::new(PAGE)).unwrap_or_default();
    assert_eq!(written, page, "write it anew: UPDATE_METRICS=1 cargo test -p tollgate-gateway metrics_page");

    // What is really told is on it.
    let names: Vec<&str> = rows.iter().map(|(name, ..)| name.as_str()).collect();
    for name in &names {
        assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name} stands twice");
        assert!(!name.ends_with("_total") || rows.iter().any(|row| row.0 == *name && row.1 == "counter"), "{name}");
    }
}
