//! A client of the admin API. The token is in memory only, and in no message.

use std::{
    io::{BufRead, BufReader, ErrorKind},
    time::{Duration, SystemTime},
};

use http::{Method, Request, header};
use serde_json::Value;
use ureq::tls::TlsConfig;
use zeroize::Zeroizing;

use super::{
    failure::{Failure, Result},
    progress::Progress,
};
use crate::tls::{self, ClientFiles};

/// Longest time for a whole call.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: u64 = 256 << 20;

/// The admin API of a node.
#[derive(Debug)]
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
    token: Option<Zeroizing<String>>,
}

/// What the API said.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `null` for an empty body.
    pub(crate) body: Value,
    /// The object's revision as the API writes it.
    pub(crate) etag: Option<String>,
    /// The node's clock, to the second.
    pub(crate) date: Option<SystemTime>,
}

/// A page that was visited.
#[derive(Debug)]
pub(crate) struct Visited {
    /// Where it sends its visitor.
    pub(crate) location: Option<String>,
    /// The cookie that it sets, as it is to be brought back.
    pub(crate) cookie: Option<String>,
    /// `null` when it is not JSON.
    pub(crate) body: Value,
}

/// A write's condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OnlyIf {
    Always,
    Absent,
    Unchanged(String),
}

impl Client {
    /// `files` are read for `https://` only.
    pub(crate) fn new(url: &str, token: Option<Zeroizing<String>>, files: &ClientFiles) -> Result<Self> {
        let tls = if url.starts_with("https://") {
            tls::for_agents(files).map_err(|error| Failure::Usage(error.to_string()))?
        } else if url.starts_with("http://") {
            TlsConfig::builder().build()
        } else {
            return Err(Failure::Usage(format!(
                "{url:?} cannot be called: expected http://host:port or https://host:port"
            )));
        };
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .proxy(None)
            .tls_config(tls)
            .build();
        Ok(Self { agent: config.new_agent(), url: url.trim_end_matches('/').to_owned(), token })
    }

    /// Where it is, without a slash at the end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &str {
        self.url.split("://").next().unwrap_or("http")
    }

    pub(crate) fn read(&self, path: &str) -> Result<Answer> {
        self.call(Method::GET, path, None, &OnlyIf::Always)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.call(Method::POST, path, Some(body), &OnlyIf::Always)
    }

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Result<Answer> {
        self.call(Method::PATCH, path, Some(body), &OnlyIf::Always)
    }

    pub(crate) fn put(&self, path: &str, body: &Value, only_if: &OnlyIf) -> Result<Answer> {
        self.call(Method::PUT, path, Some(body), only_if)
    }

    pub(crate) fn delete(&self, path: &str) -> Result<Answer> {
        self.call(Method::DELETE, path, None, &OnlyIf::Always)
    }

    /// The lines of an answer that has no end; `last` is the id of the last event that was seen.
    pub(crate) fn stream(&self, path: &str, last: Option<&str>) -> Result<impl BufRead + use<>> {
        let mut request = Request::builder().uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.as_str()));
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request =
            request.body(()).map_err(|error| Failure::Usage(format!("{path:?} cannot be asked for: {error}")))?;
        let request = self.agent.configure_request(request).timeout_global(None).build();
        let mut response = self.agent.run(request).map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(BufReader::new(response.into_body().into_reader()));
        }
        let text = response.body_mut().read_to_string().unwrap_or_default();
        Err(refused(status.as_u16(), &serde_json::from_str(&text).unwrap_or_default()))
    }

    /// A page as a browser would see it, without going where it sends one.
    pub(crate) fn visit(&self, path: &str, cookie: Option<&str>) -> Result<Visited> {
        let mut request =
            Request::builder().uri(format!("{}{path}", self.url)).header(header::ACCEPT, "application/json");
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let request =
            request.body(()).map_err(|error| Failure::Usage(format!("{path:?} cannot be asked for: {error}")))?;
        let request = self.agent.configure_request(request).max_redirects(0).build();
        let mut response = self.agent.run(request).map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let head = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let location = head(header::LOCATION);
        let cookie = head(header::SET_COOKIE).map(|set| set.split(';').next().unwrap_or_default().to_owned());
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let body = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() || status.is_redirection() {
            return Ok(Visited { location, cookie, body });
        }
        Err(refused(status.as_u16(), &body))
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let hint = match error {
            ureq::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
                "TLS failed; --ca says whom to trust, --client-cert and --client-key what to show"
            }
            _ => "does a node listen there? (--admin-url says where)",
        };
        Failure::Failed(format!("call {}: {error}: {hint}", self.url))
    }

    fn call(&self, method: Method, path: &str, body: Option<&Value>, only_if: &OnlyIf) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.as_str()));
        }
        match only_if {
            OnlyIf::Always => {}
            OnlyIf::Absent => request = request.header(header::IF_NONE_MATCH, "*"),
            OnlyIf::Unchanged(etag) => request = request.header(header::IF_MATCH, etag),
        }
        let _progress = Progress::begin(format!("waiting for {}", self.url));
        let usage = |error: http::Error| Failure::Usage(format!("{path:?} cannot be asked for: {error}"));
        let sent = match body {
            Some(body) => {
                let request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
                self.agent.run(request.map_err(usage)?)
            }
            None => self.agent.run(request.body(()).map_err(usage)?),
        };
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let etag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let date =
            response.headers().get(header::DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER_BYTES)
            .read_to_string()
            .map_err(|error| Failure::Failed(format!("read the answer of {}: {error}", self.url)))?;
        let body: Value = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).map_err(|_| {
                Failure::Failed(format!("{} does not answer as an admin API does (status {status})", self.url))
            })?
        };
        if status.is_success() { Ok(Answer { body, etag, date }) } else { Err(refused(status.as_u16(), &body)) }
    }
}

/// A problem as people read it: what is wrong, where, and the request's id.
fn refused(status: u16, problem: &Value) -> Failure {
    let text = |key: &str| problem[key].as_str().unwrap_or_default();
    let mut lines = vec![format!("{} ({status} {})", text("detail"), text("code"))];
    for error in problem["errors"].as_array().into_iter().flatten() {
        let told = error["detail"].as_str().unwrap_or_default();
        // A single one may be what the detail says already.
        if !lines[0].contains(told) {
            lines.push(format!("  {}: {told}", error["pointer"].as_str().unwrap_or_default()));
        }
    }
    if let Some(current) = problem["current_revision"].as_u64() {
        lines.push(format!("  current revision: {current}"));
    }
    if !text("request_id").is_empty() {
        lines.push(format!("  request id: {}", text("request_id")));
    }
    let message = lines.join("\n");
    match status {
        401 => Failure::NotAllowed(format!("{message}\n  set TOLLGATE_ADMIN_TOKEN or --admin-token-file")),
        403 => Failure::NotAllowed(message),
        412 => Failure::Overtaken(message),
        _ => Failure::Failed(message),
    }
}

/// A path segment, percent-encoded: ids come from people.
pub(crate) fn segment(text: &str) -> String {
    encode(text)
}

/// A query, percent-encoded, with its question mark; empty without parameters.
pub(crate) fn query(pairs: &[(&str, Option<String>)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", encode(value))))
        .collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Everything but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn problems_become_messages_with_every_pointer_and_the_right_exit_code() {
        let problem = json!({
            "detail": "2 things are wrong", "code": "invalid-body", "request_id": "0190",
            "errors": [{ "pointer": "/rate", "detail": "bad" }, { "pointer": "/x", "detail": "is not a field" }],
        });
        let failure = refused(422, &problem);
        assert_eq!(failure.code(), 1);
        assert_eq!(
            failure.to_string(),
            "2 things are wrong (422 invalid-body)\n  /rate: bad\n  /x: is not a field\n  request id: 0190"
        );
        // One place alone is told too, unless the detail is its own.
        let one = json!({
            "detail": "1 of what the document would change was changed since", "code": "precondition-failed",
            "errors": [{ "pointer": "/tiers/0", "detail": "concurrency is 9, the document says 5" }],
        });
        let failure = refused(412, &one);
        assert!(failure.to_string().ends_with("\n  /tiers/0: concurrency is 9, the document says 5"), "{failure}");
        assert_eq!(failure.code(), 1);
        let one = json!({ "detail": "/rate: bad", "code": "x", "errors": [{ "pointer": "/rate", "detail": "bad" }] });
        assert_eq!(refused(422, &one).to_string(), "/rate: bad (422 x)");
        assert_eq!(refused(401, &json!({})).code(), 4);
        assert_eq!(refused(403, &json!({})).code(), 4);
    }

    #[test]
    fn ids_and_queries_are_encoded() {
        assert_eq!(segment("../x y"), "..%2Fx%20y");
        assert_eq!(query(&[("a", Some("1+2".into())), ("b", None), ("c", Some("é".into()))]), "?a=1%2B2&c=%C3%A9");
    }
}
