//! Clients: of the admin API, and plain ones for the data plane.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;

use crate::until;

/// A client that reports every status as an answer and gives up after 30 s.
pub fn client() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .max_idle_connections(64)
        .build()
        .into()
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body as text.
    pub text: String,
    /// The body as JSON; null where it is none.
    pub body: Value,
}

impl Answer {
    /// A header's text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

impl Answer {
    /// Checks that this is a problem (RFC 9457) of the gateway's own, complete, with the headers that its status asks for.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        for field in ["type", "title", "detail", "request_id"] {
            assert!(self.body[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {}", self.text);
        }
        let id = self.header("x-request-id");
        assert!(id.is_empty() || self.body["request_id"] == id, "{id}: {}", self.text);
        assert_eq!(!self.header("www-authenticate").is_empty(), status == 401, "{:?}", self.headers);
        let retry_after = self.header("retry-after").parse::<u64>().ok();
        assert_eq!(retry_after.is_some_and(|seconds| seconds >= 1), matches!(status, 429 | 503), "{:?}", self.headers);
        let kind = match status {
            429 => "quota-exceeded",
            503 => "temporary-reduced-capacity",
            _ => return,
        };
        assert_eq!(self.body["type"], format!("https://iana.org/assignments/http-problem-types#{kind}"));
        let policies = &self.body["violated-policies"];
        assert!(status != 429 || policies.as_array().is_some_and(|names| !names.is_empty()), "{}", self.text);
    }

    /// `Retry-After`.
    ///
    /// # Panics
    /// When it has none.
    #[track_caller]
    pub fn retry_after(&self) -> Duration {
        let seconds = self.header("retry-after").parse();
        Duration::from_secs(seconds.unwrap_or_else(|_| panic!("no Retry-After: {} {:?}", self.status, self.headers)))
    }
}

/// Any request with a body.
///
/// # Errors
/// No answer came.
pub fn send(
    agent: &Agent,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, ureq::Error> {
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(agent.run(request.body(body).expect("a valid request")))
}

fn answer(sent: Result<http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, ureq::Error> {
    let mut response = sent?;
    let text = response.body_mut().read_to_string()?;
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Ok(Answer { status: response.status().as_u16(), headers: response.headers().clone(), text, body })
}

/// GET with an API key (none when empty).
///
/// # Errors
/// No answer came.
pub fn get(agent: &Agent, url: &str, key: &str) -> Result<Answer, ureq::Error> {
    let mut request = agent.get(url);
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    answer(request.call())
}

/// POST with an API key (none when empty).
///
/// # Errors
/// No answer came.
pub fn post(agent: &Agent, url: &str, key: &str, body: &[u8]) -> Result<Answer, ureq::Error> {
    let mut request = agent.post(url).content_type("application/json");
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    answer(request.send(body))
}

/// The admin API of one node.
#[derive(Debug, Clone)]
pub struct Admin {
    base: String,
    token: String,
    agent: Agent,
}

impl Admin {
    /// Speaks to an address with a token.
    pub fn new(addr: &str, token: &str) -> Self {
        Self { base: format!("http://{addr}"), token: token.to_owned(), agent: client() }
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Any call; none when no answer came.
    pub fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .header(
                "content-type",
                if method == "PATCH" { "application/merge-patch+json" } else { "application/json" },
            );
        let body = body.map(Value::to_string).unwrap_or_default();
        answer(self.agent.run(request.body(body).expect("a valid request"))).ok()
    }

    /// Any call.
    ///
    /// # Panics
    /// When no answer came.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let again = || (method == "GET").then(|| self.try_call(method, path, body)).flatten();
        // A kept connection may have been closed behind an answer that refused a body: a read is asked once more.
        self.try_call(method, path, body).or_else(again).unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    /// A call with headers and a body as they are given.
    ///
    /// # Panics
    /// When no answer came.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The same.
    ///
    /// # Errors
    /// No answer came.
    pub fn try_send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, String> {
        let authorization = format!("Bearer {}", self.token);
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend(headers);
        send(&self.agent, method, &format!("{}{path}", self.base), &all, body).map_err(|error| error.to_string())
    }

    /// GET; none when no answer came or it is not a 200.
    pub fn try_get(&self, path: &str) -> Option<Answer> {
        self.try_call("GET", path, None).filter(|answer| answer.status == 200)
    }

    /// GET that must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, None);
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text);
        answer.body
    }

    /// A write that must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn write(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.call(method, path, Some(body));
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text);
        answer.body
    }

    /// An upstream and a route to it, both called `scan`, for everything below `/`.
    pub fn put_route(&self, upstream: &str) {
        self.write("PUT", "/v1/upstreams/scan", &json!({ "targets": [{ "url": upstream }] }));
        self.write("PUT", "/v1/routes/scan", &json!({ "match": { "path_prefix": "/" }, "upstream": "scan" }));
    }

    /// A tier.
    pub fn put_tier(&self, name: &str, tier: &Value) {
        self.write("PUT", &format!("/v1/tiers/{name}"), tier);
    }

    /// An account of a tier.
    pub fn create_account(&self, id: &str, tier: &str) {
        self.write("POST", "/v1/accounts", &json!({ "id": id, "name": id, "tier": tier }));
    }

    /// A key: its id and its secret.
    pub fn create_key(&self, account: &str, fields: &Value) -> (String, String) {
        let key = self.write("POST", &format!("/v1/accounts/{account}/keys"), fields);
        let text = |field: &str| key[field].as_str().expect("a key has an id and a secret").to_owned();
        (text("id"), text("secret"))
    }

    /// An account without limits and a key of it: for tests that are about something else.
    pub fn open_account(&self, upstream: &str) -> String {
        self.put_route(upstream);
        self.put_tier("open", &json!({}));
        self.create_account("acme", "open");
        self.create_key("acme", &json!({ "name": "test" })).1
    }

    /// The row of a request, waited for.
    pub fn row(&self, request_id: &str) -> Value {
        until(&format!("the row of {request_id}"), || Some(self.try_get(&format!("/v1/requests/{request_id}"))?.body))
    }

    /// All rows that match a query (`account=acme&status=200`), page by page.
    pub fn rows(&self, query: &str) -> Vec<Value> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/requests?limit=1000&{query}{cursor}"));
            rows.extend(page["data"].as_array().expect("a list").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return rows,
            }
        }
    }
}
