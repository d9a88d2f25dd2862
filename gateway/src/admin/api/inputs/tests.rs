//! What the readers take, the schemas take. Editors and generated clients refuse what a schema refuses, and once did so with
//! ports from 10000 on, origins with a dot, and networks like 192.168.0.0/16.

use serde_json::{Value, json};

use super::*;
use crate::admin::{
    declared, forms,
    input::{self, Object},
    routes, tiers, upstreams,
};

fn fits(schema: &Value, body: &Value) -> bool {
    let validator = jsonschema::options().should_validate_formats(true).build(schema).expect("a schema");
    validator.is_valid(body)
}

/// Holds the reader against the schema for each text at a place of a body; says how many the reader takes.
fn taken<T>(
    form: fn() -> Value,
    read: impl Fn(&mut Object<'_>) -> Option<T>,
    body: &Value,
    place: &str,
    texts: &[&str],
) -> usize {
    let schema = form();
    let taken = texts.iter().filter(|text| {
        let mut body = body.clone();
        *body.pointer_mut(place).expect("it is there") = json!(text);
        let read = input::read(body.clone(), &read).is_ok();
        assert!(!read || fits(&schema, &body), "{place} takes {text:?}, its schema does not");
        read
    });
    taken.count()
}

fn route_of(object: &mut Object<'_>) -> Option<store::model::Route> {
    routes::read(object, "scan")
}

fn upstream_of(object: &mut Object<'_>) -> Option<store::model::Upstream> {
    upstreams::read(object, "scan")
}

#[test]
fn targets_that_are_read_fit_the_schema() {
    let body = json!({ "targets": [{ "url": "" }] });
    let texts = [
        "http://127.0.0.1:28999",
        "http://127.0.0.1:65535",
        "https://api.example.com",
        "https://api.example.com/",
        "http://[::1]:9000",
        "HTTP://Scan-API:80",
        "http://scan_api.internal:8080",
        &format!("http://{}.example:81", "a".repeat(63)),
    ];
    assert_eq!(taken(upstream, upstream_of, &body, "/targets/0/url", &texts), texts.len());
    assert_eq!(
        taken(upstream, upstream_of, &body, "/targets/0/url", &["ftp://x", "http://x/a", "http://u@x", "x:1"]),
        0
    );
}

#[test]
fn headers_origins_paths_and_hosts_that_are_read_fit_the_schema() {
    let body = json!({
        "name": "scan", "match": { "path": "/a", "host": "h", "methods": ["GET"] }, "upstream": "u",
        "request_headers": { "remove": ["x"] }, "cors": { "origins": ["*"], "headers": ["x"], "expose": ["x"] },
        "cost_header": { "name": "x", "max": 1 },
    });
    let all = |place: &str, texts: &[&str]| {
        assert_eq!(taken(route, route_of, &body, place, texts), texts.len(), "{place}");
    };
    let names = ["cache-control", "x-thing", "X-Thing", "etag", "server", "x_y", "a!#$%&'*+.^_`|~9", "t"];
    for place in ["/request_headers/remove/0", "/cors/headers/0", "/cors/expose/0"] {
        all(place, &names);
    }
    let origins =
        ["https://app.example.com", "http://localhost:28999", "*", "https://a", "http://[::1]:3000", "https://x:443"];
    all("/cors/origins/0", &origins);
    all("/match/path", &["/", "/v1/été", "/a%20b", "/x\"y", &format!("/{}", "a".repeat(1_000)), "/\u{feff}"]);
    all("/match/host", &["api.example.com", "localhost", "127.0.0.1", "[::1]", "a_b.c"]);
    all("/match/methods/0", &["GET", "M-SEARCH", "X"]);
    all("/cost_header/name", &["x-units", "x_units", "9"]);
    let mut set = body.clone();
    set["response_headers"] =
        json!({ "set": { "Cache-Control": "no-store", "x-thing": "", "x-tab": "a\tb", "x-long": "y".repeat(4_096) } });
    assert!(input::read(set.clone(), route_of).is_ok() && fits(&route(), &set), "{set}");
}

#[test]
fn networks_rates_and_times_that_are_read_fit_the_schema() {
    let key = |object: &mut Object<'_>| object.required("allowed_ips").and_then(forms::networks);
    let nets = [
        "10.0.0.0/8",
        "192.168.0.0/16",
        "203.0.113.255",
        "172.16.254.1/32",
        "0.0.0.0/0",
        "2001:db8::/32",
        "::1",
        "::/0",
        "::ffff:10.0.0.1",
        "2001:DB8::1/128",
    ];
    assert_eq!(taken(new_key, key, &json!({ "allowed_ips": [""] }), "/allowed_ips/0", &nets), nets.len());
    let overrides = |object: &mut Object<'_>| object.required("overrides").and_then(forms::overrides);
    let body = json!({ "overrides": { "limits": [{ "name": "a", "rate": "5/s", "burst": 1, "expires_at": "2099-01-01T00:00:00Z" }] } });
    let rates = ["5/s", "300/m", "1000/h", "100/d", "1000000000/s", " 5 / s ", "005/s"];
    assert_eq!(taken(new_key, overrides, &body, "/overrides/limits/0/rate", &rates), rates.len());
    let times = ["2099-01-01T00:00:00Z", "2099-01-01T00:00:00.5+02:00", "2099-01-01 00:00:00Z", "2099-01-01T00:00Z"];
    assert_eq!(taken(new_key, overrides, &body, "/overrides/limits/0/expires_at", &times), times.len());
}

#[test]
fn a_document_of_valid_configuration_fits_the_published_schema() {
    let document = json!({
        "version": 1,
        "revision": 17,
        "upstreams": [{ "name": "scan", "targets": [{ "url": "http://127.0.0.1:28999" }, { "url": "https://api.example.com" }] }],
        "tiers": [{ "name": "free", "limits": [{ "name": "per-second", "rate": "5/s", "burst": 15 }] }],
        "routes": [{
            "name": "scan", "match": { "path_prefix": "/v3" }, "upstream": "scan",
            "request_headers": { "set": { "cache-control": "no-store" }, "remove": ["x-thing"] },
            "cors": { "origins": ["https://app.example.com", "*"] },
        }],
        "accounts": [{ "id": "acme", "tier": "free", "keys": [
            { "hash": format!("sha256:{}", "0f".repeat(32)), "allowed_ips": ["192.168.0.0/16", "2001:db8::/32"] },
        ] }],
    });
    assert!(fits(&declared::schema(), &document));
    for (list, read) in [("upstreams", 0), ("tiers", 1), ("routes", 2)] {
        let body = document[list][0].clone();
        let is_read = match read {
            0 => input::read(body.clone(), upstream_of).is_ok(),
            1 => input::read(body.clone(), |object| tiers::read(object, "free")).is_ok(),
            _ => input::read(body.clone(), route_of).is_ok(),
        };
        let form = [upstream as fn() -> Value, tier, route][read];
        assert!(is_read && fits(&form(), &body), "{list} with its name, as it was read");
    }
    let mut wrong = document;
    wrong["tiers"][0]["concurrency"] = json!(0);
    assert!(!fits(&declared::schema(), &wrong));
}

#[test]
fn questions_and_batches_that_are_read_fit_the_schema() {
    for ip in ["203.0.113.7", "2001:db8::1", "::ffff:10.0.0.1"] {
        assert!(fits(&question(), &json!({ "key_id": "key_1", "path": "/", "ip": ip })), "{ip}");
    }
    assert!(fits(&question(), &json!({ "key": null, "key_id": "key_1", "path": "/", "host": "API.example.com" })));
    assert!(!fits(&question(), &json!({ "path": "/" })));
    let operation = |path: &str| json!({ "operations": [{ "method": "POST", "path": path, "if_none_match": "*" }] });
    for path in ["/v1/accounts/acme/limits/per-second/reset", "/v1/keys/key%5f1", "/v1/tiers/gold"] {
        assert!(fits(&batch(), &operation(path)), "{path}");
    }
    for addr in ["10.0.0.7:8082", "node-2:18082", "[2001:db8::7]:65535"] {
        assert!(fits(&new_node(), &json!({ "peer_addr": addr })), "{addr}");
    }
}
