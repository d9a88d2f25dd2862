//! A gateway with a known fault: keys, a GCRA limit, a log in memory, and as much of the admin API as an audit asks for. It
//! stands for Tollgate only here, where the audit itself is tested.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::server::{Answers, Server};
use crate::client::uuid_text;

/// Keys, their accounts and tiers.
pub(super) const KEYS: [(&str, &str, &str); 3] =
    [("key-1", "acme", "small"), ("key-2", "bolt", "large"), ("key-3", "core", "large")];

/// Rate a second and burst of a tier. The small one is refused most of the time.
fn tier_limit(tier: &str) -> (f64, f64) {
    if tier == "small" { (20.0, 30.0) } else { (100_000.0, 100_000.0) }
}

/// Rejections of a key that have rows of their own, a second.
const OWN_ROWS: u32 = 10;
/// Rows of a page.
const PAGE: usize = 1_000;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// Every so many rows one is not written.
    Loses {
        /// Of so many.
        every: u64,
    },
    /// This row is written twice.
    Doubles {
        /// Its number.
        number: u64,
    },
    /// Once, a request passes though no unit is left.
    AdmitsOneTooMany,
}

/// It runs until it is dropped.
pub(super) struct Gateway(Server);

impl Gateway {
    /// Starts it.
    pub(super) fn start(fault: Fault) -> Result<Self> {
        Ok(Self(Server::serve(Handler { fault, start_us: unix_us(), state: Mutex::default() })?))
    }

    /// Data plane and admin API alike.
    pub(super) fn url(&self) -> String {
        self.0.url()
    }
}

struct Handler {
    fault: Fault,
    start_us: u128,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: Vec<Value>,
    /// Rows that were to be written.
    number: u64,
    ids: u128,
    /// Theoretical arrival time by key, seconds since the start.
    tat: HashMap<String, f64>,
    refusals: HashMap<(String, u64), u32>,
    coalesced: HashMap<(String, u64), usize>,
    has_over_admitted: bool,
}

impl Answers for Handler {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        if path.starts_with("/v1/") {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let (status, body) = self.admin(&path, &query);
            return answer(status, "application/json", &body, None);
        }
        let text = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let bearer = text(header::AUTHORIZATION.as_str()).unwrap_or_default();
        let ours = text("x-request-id");
        let method = request.method().to_string();
        let bytes_in = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
        self.serve(bearer.strip_prefix("Bearer ").unwrap_or_default(), ours.as_deref(), &method, &path, bytes_in)
    }
}

fn unix_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

fn answer(status: StatusCode, kind: &'static str, body: &Value, id: Option<&str>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    if let Some(id) = id.and_then(|id| id.parse().ok()) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

impl Handler {
    fn serve(&self, key: &str, ours: Option<&str>, method: &str, path: &str, bytes_in: usize) -> Response<Full<Bytes>> {
        let Some((_, account, tier)) = KEYS.iter().find(|(known, ..)| *known == key) else {
            return answer(
                StatusCode::UNAUTHORIZED,
                "application/problem+json",
                &json!({ "code": "unknown-key" }),
                None,
            );
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The row's time is taken where the decision is: this gateway is a single one and never waits.
        let us = unix_us();
        let now = (us - self.start_us) as f64 / 1e6;
        state.ids += 1;
        let id = uuid_text(us << 64 | 7 << 60 | state.ids);
        let admitted = state.admit(key, tier, now, self.fault);
        let (status, outcome, body) = if admitted {
            (StatusCode::OK, "admitted", json!({ "ok": true }))
        } else {
            (StatusCode::TOO_MANY_REQUESTS, "rate-limited", json!({ "code": "rate-limited" }))
        };
        let bytes_out = body.to_string().len();
        let ts = jiff::Timestamp::from_microsecond(us as i64).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let row = json!({
            "request_id": id, "ts": ts.to_string(), "account": account, "key_id": format!("key_{key}"), "tier": tier,
            "route": "all", "method": method, "path": path, "status": status.as_u16(), "outcome": outcome,
            "cost": 0, "bytes_in": bytes_in, "bytes_out": bytes_out, "upstream_us": 0, "duration_us": 0,
            "client_ip": null, "client_request_id": ours, "trace_id": null, "node": "one", "region": null,
            "completion": "complete", "count": 1,
        });
        if admitted || state.has_own_row(key, now) {
            state.write(row, self.fault);
        } else {
            state.coalesce(key, now, row);
        }
        answer(status, if admitted { "application/json" } else { "application/problem+json" }, &body, Some(&id))
    }

    fn admin(&self, path: &str, query: &str) -> (StatusCode, Value) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let parameter = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(|v| v.replace("%3A", ":"))
        };
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        let account_of = |name: &str| KEYS.iter().find(|(_, account, _)| *account == name);
        match parts.as_slice() {
            ["requests"] => (StatusCode::OK, state.page(&parameter)),
            ["requests", id] => match state.rows.iter().find(|row| row["request_id"] == **id) {
                Some(row) => (StatusCode::OK, row.clone()),
                None => (StatusCode::NOT_FOUND, json!({})),
            },
            ["accounts", name] => match account_of(name) {
                Some((_, account, tier)) => (StatusCode::OK, json!({ "id": account, "tier": tier, "overrides": {} })),
                None => (StatusCode::NOT_FOUND, json!({})),
            },
            ["accounts", _, "limits"] => (StatusCode::OK, json!({ "data": [] })),
            ["accounts", name, "usage"] => (StatusCode::OK, json!({ "data": [state.usage(name)] })),
            ["tiers", name] => {
                let (rate, burst) = tier_limit(name);
                let limit = json!({ "name": "rate", "per": ["key"], "rate": format!("{rate:.0}/s"), "burst": burst });
                (StatusCode::OK, json!({ "name": name, "limits": [limit], "quotas": [] }))
            }
            _ => (StatusCode::NOT_FOUND, json!({})),
        }
    }
}

impl State {
    /// GCRA in its form with a theoretical arrival time.
    fn admit(&mut self, key: &str, tier: &str, now: f64, fault: Fault) -> bool {
        let (rate, burst) = tier_limit(tier);
        let tat = self.tat.entry(key.to_owned()).or_insert(0.0);
        let next = tat.max(now) + 1.0 / rate;
        if next - now <= burst / rate {
            *tat = next;
            return true;
        }
        // When at least half a unit is missing; after two seconds, so that the burst is long gone and the window a long one.
        let missing = next - now - burst / rate > 0.5 / rate;
        if fault == Fault::AdmitsOneTooMany && now > 2.0 && missing && !self.has_over_admitted {
            self.has_over_admitted = true;
            return true;
        }
        false
    }

    fn has_own_row(&mut self, key: &str, now: f64) -> bool {
        let seen = self.refusals.entry((key.to_owned(), now as u64)).or_default();
        *seen += 1;
        *seen <= OWN_ROWS
    }

    fn coalesce(&mut self, key: &str, now: f64, mut row: Value) {
        match self.coalesced.get(&(key.to_owned(), now as u64)) {
            Some(at) => {
                let count = self.rows[*at]["count"].as_u64().unwrap_or(0);
                self.rows[*at]["count"] = json!(count + 1);
            }
            None => {
                row["request_id"] = Value::Null;
                row["client_request_id"] = Value::Null;
                (row["bytes_in"], row["bytes_out"]) = (json!(0), json!(0));
                self.coalesced.insert((key.to_owned(), now as u64), self.rows.len());
                self.rows.push(row);
            }
        }
    }

    fn write(&mut self, row: Value, fault: Fault) {
        self.number += 1;
        match fault {
            Fault::Loses { every } if self.number.is_multiple_of(every) => {}
            Fault::Doubles { number } if self.number == number => self.rows.extend([row.clone(), row]),
            _ => self.rows.push(row),
        }
    }

    /// Newest first; the cursor is the number of rows that came before.
    fn page(&self, parameter: &dyn Fn(&str) -> Option<String>) -> Value {
        let account = parameter("account");
        // As times: their texts have no fixed number of digits, so they do not sort.
        let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
        let asked = |name: &str| parameter(name).and_then(|text| time(&text));
        let (since, until) = (asked("since"), asked("until"));
        let from: usize = parameter("cursor").and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
        let is_asked = |row: &&Value| {
            let ts = row["ts"].as_str().and_then(time);
            account.as_deref().is_none_or(|account| row["account"] == account)
                && since.is_none_or(|since| ts >= Some(since))
                && until.is_none_or(|until| ts < Some(until))
        };
        let mut rows: Vec<&Value> = self.rows.iter().rev().filter(is_asked).skip(from).take(PAGE + 1).collect();
        let next = (rows.len() > PAGE).then(|| (from + PAGE).to_string());
        rows.truncate(PAGE);
        json!({ "data": rows, "next_cursor": next })
    }

    fn usage(&self, account: &str) -> Value {
        let own = || self.rows.iter().filter(|row| row["account"] == account);
        let number = |row: &Value, name: &str| row[name].as_u64().unwrap_or(0);
        let requests: u64 = own().map(|row| number(row, "count")).sum();
        let rejected: u64 = own().filter(|row| row["outcome"] != "admitted").map(|row| number(row, "count")).sum();
        let bytes = |name: &str| own().map(|row| number(row, name)).sum::<u64>();
        json!({
            "requests": requests, "rejected": rejected, "errors": 0, "cost": 0,
            "bytes_in": bytes("bytes_in"), "bytes_out": bytes("bytes_out"),
        })
    }
}
