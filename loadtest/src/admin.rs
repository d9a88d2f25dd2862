//! Asks Tollgate's admin API, as anybody can: JSON over HTTP. Knows several nodes and asks the next when one does not answer.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{exit::Usage, secure};

/// Longest time until a node has taken a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for one answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Largest answer.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;
/// How long a call is tried again over all nodes before it fails: a leader that was killed has a successor long before.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for the first call, before anything is sent: who mistyped the address is told soon.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// The admin API of a cluster.
#[derive(Debug)]
pub(crate) struct Admin {
    agent: ureq::Agent,
    urls: Vec<String>,
    bearer: String,
    /// The one that answered last.
    last: AtomicUsize,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: u16,
    /// Its JSON; null when it is none.
    pub(crate) body: Value,
}

impl Admin {
    /// Of these nodes (`http://host:port` or `https://host:port`), with a token; `ca` is a file of authorities.
    pub(crate) fn new(urls: &[String], token: &str, ca: Option<&Path>) -> Result<Self> {
        ensure!(!urls.is_empty(), "no admin API: give --admin http://host:port");
        let ca = ca.map(secure::read).transpose()?;
        let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).timeout_connect(Some(CONNECT_TIMEOUT));
        let config = config.http_status_as_error(false).proxy(None);
        let config = match urls.iter().any(|url| url.starts_with("https://")) {
            true => config.tls_config(secure::for_admin(ca.as_deref())?).build(),
            false => config.build(),
        };
        let urls = urls.iter().map(|url| {
            let url = if url.contains("://") { url.clone() } else { format!("http://{url}") };
            url.trim_end_matches('/').to_owned()
        });
        Ok(Self {
            agent: config.new_agent(),
            urls: urls.collect(),
            bearer: format!("Bearer {token}"),
            last: AtomicUsize::new(0),
        })
    }

    /// Whether it answers, and takes the token: asked before a run, with little patience.
    ///
    /// # Errors
    /// No node answers; or (the caller's mistake) the token is refused.
    pub(crate) fn check(&self, path: &str) -> Result<()> {
        let asked = self.ask_for("GET", path, None, FIRST_PATIENCE);
        let reply = asked.context("the admin API does not answer, so nothing was sent")?;
        let detail = reply.body["detail"].as_str().unwrap_or_default();
        match reply.status {
            200..300 => Ok(()),
            status @ (401 | 403) => {
                let what = format!("the admin API refuses the token in TOLLGATE_ADMIN_TOKEN: {status} {detail}");
                Err(Usage::error(what.trim_end()))
            }
            status => bail!("the admin API cannot be used, so nothing was sent: GET {path}: {status} {detail}"),
        }
    }

    /// Reads; 404 is nothing.
    ///
    /// # Errors
    /// No node answered in time, or with a refusal.
    pub(crate) fn find(&self, path: &str) -> Result<Option<Value>> {
        let reply = self.ask("GET", path, None)?;
        match reply.status {
            404 => Ok(None),
            200..300 => Ok(Some(reply.body)),
            status => bail!("GET {path}: {status} {}", reply.body["detail"].as_str().unwrap_or_default()),
        }
    }

    /// Reads what must be there.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        self.find(path)?.with_context(|| format!("GET {path}: 404"))
    }

    /// Writes; what is there already (409) is left.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Option<Value>> {
        let reply = self.ask("POST", path, Some(body))?;
        match reply.status {
            200..300 => Ok(Some(reply.body)),
            409 => Ok(None),
            status => bail!("POST {path}: {status} {}", reply.body),
        }
    }

    /// What one node says of its cluster, whether or not it has a quorum; the first node that answers.
    pub(crate) fn cluster(&self) -> Result<Value> {
        self.get("/v1/cluster?consistency=stale")
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
        self.ask_for(method, path, body, PATIENCE)
    }

    fn ask_for(&self, method: &str, path: &str, body: Option<&Value>, patience: Duration) -> Result<Reply> {
        let start = Instant::now();
        let mut failure = anyhow::anyhow!("not asked");
        loop {
            for _ in 0..self.urls.len() {
                let at = self.last.load(Ordering::Relaxed) % self.urls.len();
                match self.once(&self.urls[at], method, path, body) {
                    // No quorum there, or draining: another node may have one, or this one soon.
                    Ok(reply) if reply.status != 503 => return Ok(reply),
                    Ok(reply) => failure = anyhow::anyhow!("503 {}", reply.body["detail"].as_str().unwrap_or_default()),
                    Err(error) => failure = error,
                }
                self.last.fetch_add(1, Ordering::Relaxed);
            }
            if start.elapsed() > patience {
                return Err(failure.context(format!("{method} {path} on {}", self.urls.join(", "))));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn once(&self, url: &str, method: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
        let url = format!("{url}{path}");
        let sent = match body {
            None => self.agent.get(&url).header("authorization", &self.bearer).call(),
            Some(body) => {
                debug_assert_eq!(method, "POST");
                self.agent.post(&url).header("authorization", &self.bearer).send_json(body)
            }
        };
        let mut response = sent?;
        let text = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string()?;
        Ok(Reply { status: response.status().as_u16(), body: serde_json::from_str(&text).unwrap_or(Value::Null) })
    }
}

/// A text that goes into a query.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
