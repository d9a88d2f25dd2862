//! `/v1/upstreams`.

use http::{Uri, uri::Scheme};
use serde_json::{Value, json};
use store::model::{HealthCheck, Outlier, Protocol, Target, Upstream};

use super::{
    draft::Draft,
    forms,
    input::{self, Field, Object},
    named::Named,
    problem::Result,
};

/// Targets of an upstream.
const MAX_TARGETS: usize = 64;
/// An hour.
const MAX_TIMEOUT_MS: u64 = 3_600_000;

impl Named for Upstream {
    fn checked(_: &mut Draft<'_>, name: &str, body: Value) -> Result<Self> {
        input::read(body, |object| read(object, name))
    }
}

/// An upstream from a body; the name is the path's.
pub(crate) fn read(object: &mut Object<'_>, path_name: &str) -> Option<Upstream> {
    object.fixed("name", &json!(path_name));
    object.answered("revision");
    let name = object.name(path_name, forms::is_name);
    let targets = object.required("targets").and_then(|field| field.list(MAX_TARGETS, target));
    let health_check = object.optional("health_check").map_or(Some(None), |field| check(field).map(Some));
    let mut timeout = |key| object.optional(key).map_or(Some(None), |field| field.whole(1..=MAX_TIMEOUT_MS).map(Some));
    let (connect_timeout_ms, idle_timeout_ms) = (timeout("connect_timeout_ms"), timeout("idle_timeout_ms"));
    let max_connections =
        object.optional("max_connections").map_or(Some(None), |field| field.whole(1..=1_000_000).map(Some));
    let outlier = object.optional("outlier").map_or(Some(None), |field| read_outlier(field).map(Some));
    let retry_budget_percent =
        object.optional("retry_budget_percent").map_or(Some(None), |field| field.whole(0..=100).map(Some));
    let protocol = object
        .optional("protocol")
        .map_or(Some(None), |field| field.choice(&[("http1", Protocol::Http1), ("http2", Protocol::Http2)]).map(Some));
    if let Some(targets) = &targets {
        if targets.iter().all(|target| target.weight == 0) {
            object.tell("targets", "at least one target with a weight above 0 is needed");
        }
        for (i, target) in targets.iter().enumerate() {
            if targets[..i].iter().any(|other| other.url == target.url) {
                object.tell("targets", format!("{} is given twice: use its weight", target.url));
            }
        }
    }
    Some(Upstream {
        name: name?,
        targets: targets?,
        health_check: health_check?,
        connect_timeout_ms: connect_timeout_ms?,
        idle_timeout_ms: idle_timeout_ms?,
        max_connections: max_connections?,
        revision: 0,
        outlier: outlier?,
        retry_budget_percent: retry_budget_percent?,
        protocol: protocol?,
    })
}

fn read_outlier(field: Field<'_>) -> Option<Outlier> {
    let mut object = field.object()?;
    let failures = object.optional("failures").map_or(Some(5), |field| field.whole(1..=10_000));
    let eject_ms = object.optional("eject_ms").map_or(Some(10_000), |field| field.whole(100..=MAX_TIMEOUT_MS));
    let max_percent = object.optional("max_percent").map_or(Some(50), |field| field.whole(1..=100));
    Some(Outlier { failures: failures?, eject_ms: eject_ms?, max_percent: max_percent? })
}

fn target(field: Field<'_>) -> Option<Target> {
    let mut object = field.object()?;
    let url = object
        .required("url")
        .and_then(|field| field.parsed("http://host:port or https://host:port, without a path", url));
    let weight = object.optional("weight").map_or(Some(1), |field| field.whole(0..=10_000));
    Some(Target { url: url?, weight: weight? })
}

/// `http://host:port` or `https://host:port` in its one spelling: without the slash that is the same.
fn url(text: &str) -> std::result::Result<String, ()> {
    let uri: Uri = text.parse().map_err(|_| ())?;
    let authority = uri.authority().ok_or(())?;
    let fits = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme())
        && uri.query().is_none()
        && ["", "/"].contains(&uri.path())
        && !authority.as_str().contains('@')
        && !authority.host().is_empty()
        && (authority.as_str() == authority.host() || authority.port_u16().is_some_and(|port| port > 0))
        && !text.contains('#');
    if fits { Ok(text.trim_end_matches('/').to_owned()) } else { Err(()) }
}

fn check(field: Field<'_>) -> Option<HealthCheck> {
    let mut object = field.object()?;
    let path = object.required("path").and_then(forms::path);
    let interval_ms = object.required("interval_ms").and_then(|field| field.whole(100..=MAX_TIMEOUT_MS));
    let threshold = object.optional("threshold").map_or(Some(3), |field| field.whole(1..=100));
    Some(HealthCheck { path: path?, interval_ms: interval_ms?, threshold: threshold? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: Value) -> Vec<String> {
        let problem = input::read(body, |object| read(object, "scan")).expect_err("refused");
        problem.errors().iter().map(|error| error.pointer.clone()).collect()
    }

    #[test]
    fn an_upstream_reads_and_what_is_shown_reads_back() {
        let body = json!({
            "targets": [{ "url": "http://127.0.0.1:9000/" }, { "url": "http://scan:80", "weight": 3 }],
            "health_check": { "path": "/health", "interval_ms": 1_000 },
            "connect_timeout_ms": 100, "idle_timeout_ms": 1_000, "max_connections": 5,
            "outlier": { "failures": 3, "max_percent": 100 }, "retry_budget_percent": 10, "protocol": "http2",
        });
        let upstream = input::read(body, |object| read(object, "scan")).expect("reads");
        assert_eq!(upstream.targets[0], Target { url: "http://127.0.0.1:9000".into(), weight: 1 });
        assert_eq!(input::read(json!(upstream), |object| read(object, "scan")), Ok(upstream));
    }

    #[test]
    fn urls_that_are_not_http_host_port_are_refused() {
        for bad in [
            "",
            "localhost:80",
            "https://x/path",
            "http://x/path",
            "http://x?q=1",
            "http://u:p@x",
            "http://",
            "ftp://x",
            "http://x:99999",
        ] {
            assert_eq!(refused(json!({ "targets": [{ "url": bad }] })), ["/targets/0/url"], "{bad}");
        }
    }

    #[test]
    fn an_upstream_without_a_usable_target_is_refused() {
        assert_eq!(refused(json!({})), ["/targets"]);
        assert_eq!(refused(json!({ "targets": [] })), ["/targets"]);
        assert_eq!(refused(json!({ "targets": [{ "url": "http://x:1", "weight": 0 }] })), ["/targets"]);
        assert_eq!(refused(json!({ "targets": [{ "url": "http://x:1" }, { "url": "http://x:1" }] })), ["/targets"]);
    }
}
