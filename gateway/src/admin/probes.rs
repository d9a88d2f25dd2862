//! `/livez`, `/readyz` and `/metrics`.

use std::fmt::Write;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;
use serde_json::json;
use store::{Distribution, Readiness, Store};

use super::{Prometheus, Shared};
use crate::error::NOT_READY;

/// The process runs.
pub(crate) async fn live() -> Response {
    Json(json!({ "status": "live" })).into_response()
}

/// The node serves; or why it does not.
pub(crate) async fn ready(State(admin): Shared) -> Response {
    let readiness = if admin.is_draining() { Readiness::NotReady("draining".into()) } else { admin.store.readiness() };
    match readiness {
        Readiness::Ready => Json(json!({ "status": "ready" })).into_response(),
        Readiness::NotReady(reason) => {
            (NOT_READY, Json(json!({ "status": "not-ready", "reason": reason }))).into_response()
        }
    }
}

/// Prometheus text format 0.0.4: the process's metrics and the store's numbers.
pub(crate) async fn metrics(State(admin): Shared) -> Response {
    let text = text_of(&admin.prometheus, &admin.store);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The same as a text.
pub(super) fn text_of(prometheus: &Prometheus, store: &Store) -> String {
    let mut text = prometheus.0.render();
    for (name, help, value) in store.stats() {
        write_sample(&mut text, name, help, value);
    }
    for distribution in store.distributions() {
        write_histogram(&mut text, &distribution);
    }
    text
}

fn write_histogram(text: &mut String, Distribution { name, help, buckets, sum }: &Distribution) {
    let mut write = || {
        write!(text, "# HELP {name} {help}\n# TYPE {name} histogram\n")?;
        let mut below = 0;
        for (bound, count) in buckets {
            below += count;
            match bound {
                Some(bound) => writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {below}")?,
                None => writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {below}")?,
            }
        }
        write!(text, "{name}_sum {sum}\n{name}_count {below}\n")
    };
    write().expect("writing to a text cannot fail");
}

fn write_sample(text: &mut String, name: &str, help: &str, value: f64) {
    // By Prometheus' naming rules a counter, and nothing else, ends in `_total`.
    let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n")
        .expect("writing to a text cannot fail");
}

#[cfg(test)]
mod tests {
    use store::Distribution;

    use super::{write_histogram, write_sample};

    #[test]
    fn samples_have_help_and_kind() {
        let mut text = String::new();
        write_sample(&mut text, "tollgate_wal_bytes", "Bytes\nwritten.", 12.0);
        write_sample(&mut text, "tollgate_rows_total", "Rows.", 0.5);
        assert_eq!(
            text,
            "# HELP tollgate_wal_bytes Bytes\\nwritten.\n# TYPE tollgate_wal_bytes gauge\ntollgate_wal_bytes 12\n\
             # HELP tollgate_rows_total Rows.\n# TYPE tollgate_rows_total counter\ntollgate_rows_total 0.5\n"
        );
    }

    #[test]
    fn a_histograms_buckets_count_all_below() {
        let mut text = String::new();
        let buckets = vec![(Some(0.000_032), 3), (Some(0.000_064), 0), (None, 2)];
        write_histogram(&mut text, &Distribution { name: "a_seconds", help: "Times.", buckets, sum: 1.5 });
        assert_eq!(
            text,
            "# HELP a_seconds Times.\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"0.000032\"} 3\n\
             a_seconds_bucket{le=\"0.000064\"} 3\na_seconds_bucket{le=\"+Inf\"} 5\na_seconds_sum 1.5\na_seconds_count 5\n"
        );
    }
}
