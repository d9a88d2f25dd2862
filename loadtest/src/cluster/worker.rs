//! A worker: one engine at a time, by orders over HTTP.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{JOURNAL_PART, ORDER, TOKEN};
use crate::{
    audit::Sent,
    exit::{Failure, Usage},
    run::{Engine, Fleet, Order, is_usage},
};

/// A coordinator that has asked for nothing for so long does not see any more what it has ordered; it asks each second.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// Within this it is there, and another's order is refused.
const BUSY_FOR: Duration = Duration::from_secs(5);
/// Largest order: a million keys.
const MAX_ORDER_BYTES: usize = 256 * 1024 * 1024;

/// What a worker is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// Everything.
    pub(super) order: Order,
    /// Its part.
    pub(super) shard: u64,
    /// Of so many.
    pub(super) shards: u64,
}

#[derive(Default)]
struct State {
    /// What its coordinator calls the order.
    name: String,
    /// When the coordinator was last heard of.
    heard: Option<Instant>,
    job: Option<Job>,
    engine: Option<Engine>,
    /// What was sent, and what went wrong, when the engine has ended.
    ended: Option<(Vec<Sent>, Vec<Failure>)>,
}

/// Serves until it is ended.
pub(crate) fn worker(listen: SocketAddr, insecure: bool) -> Result<()> {
    ensure!(
        listen.ip().is_loopback() || insecure,
        Usage(format!(
            "{listen} is beyond loopback, and orders carry keys without TLS: give --insecure if the network is yours"
        ))
    );
    let token: Arc<Option<String>> = Arc::new(std::env::var(TOKEN).ok().filter(|token| !token.is_empty()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let state = Arc::new(Mutex::new(State::default()));
    runtime.block_on(async move {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
        eprintln!("worker on {}", listener.local_addr()?);
        let forgotten = state.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                // Who holds it serves a coordinator.
                if let Ok(mut state) = forgotten.try_lock() {
                    state.stop_if_forgotten();
                }
            }
        });
        loop {
            let (stream, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of files, mostly: a moment later there may be some.
                    eprintln!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (state, token) = (state.clone(), token.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let (state, token) = (state.clone(), token.clone());
                    async move { Ok::<_, std::convert::Infallible>(answer(&state, token.as_deref(), request).await) }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

async fn answer(state: &Arc<Mutex<State>>, token: Option<&str>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let is_allowed = token.is_none_or(|token| given == Some(format!("Bearer {token}").as_str()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let order = request.headers().get(ORDER).and_then(|name| name.to_str().ok()).unwrap_or_default().to_owned();
    let body = Limited::new(request.into_body(), MAX_ORDER_BYTES).collect().await;
    let (status, value) = match body {
        _ if !is_allowed => {
            (StatusCode::UNAUTHORIZED, json!({ "error": format!("the token in {TOKEN} is another one") }))
        }
        Err(error) => (StatusCode::BAD_REQUEST, json!({ "error": error.to_string() })),
        Ok(body) => {
            let (state, body) = (state.clone(), body.to_bytes());
            // An order may read a trace, an end waits for answers: not on the thread that listens.
            let done = tokio::task::spawn_blocking(move || {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.execute(&order, (&method, &path, &query), &body)
            });
            match done.await {
                Ok(Ok(value)) => (StatusCode::OK, value),
                Ok(Err(error)) => {
                    let told = json!({ "error": format!("{error:#}"), "is_usage": is_usage(&error) });
                    (StatusCode::BAD_REQUEST, told)
                }
                Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": "the worker panicked" })),
            }
        }
    };
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = status;
    response
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

impl State {
    fn execute(&mut self, order: &str, (method, path, query): (&Method, &str, &str), body: &[u8]) -> Result<Value> {
        let is_new = (method.as_str(), path) == ("POST", "/order");
        if order == self.name || is_new {
            ensure!(!is_new || !self.is_busy(), "it is busy with the order of another coordinator");
            self.heard = Some(Instant::now());
        } else if path != "/clock" {
            anyhow::bail!("it has the order of another coordinator");
        }
        match (method.as_str(), path) {
            ("GET", "/clock") => Ok(json!({ "unix_us": now_us() })),
            ("POST", "/order") => {
                order.clone_into(&mut self.name);
                if let Some(mut engine) = self.engine.take() {
                    // Its coordinator is gone.
                    engine.abort()?;
                    engine.finish()?;
                }
                let job: Job = serde_json::from_slice(body).context("read the order")?;
                job.order.check()?;
                job.order.check_clones()?;
                (self.job, self.ended) = (Some(job), None);
                Ok(json!({}))
            }
            ("POST", "/start") => {
                let at: Value = serde_json::from_slice(body).context("read the start")?;
                let at_us = at["unix_us"].as_i64().context("read the start: expected unix_us")?;
                let job = self.job.as_ref().context("no order yet")?;
                ensure!(self.engine.is_none(), "started already");
                let wait = Duration::from_micros(u64::try_from(at_us - now_us()).unwrap_or(0));
                self.engine = Some(Engine::start(&job.order, job.shard, job.shards, Instant::now() + wait)?);
                Ok(json!({}))
            }
            ("GET", "/delta") => self.delta(),
            ("POST", "/pause") => self.engine()?.pause(true).map(|()| json!({})),
            ("POST", "/resume") => self.engine()?.pause(false).map(|()| json!({})),
            ("POST", "/stop") => self.engine()?.drain().map(|()| json!({})),
            ("POST", "/abort") => self.engine()?.abort().map(|()| json!({})),
            ("GET", "/journal") => {
                if let Some(mut engine) = self.engine.take() {
                    let (sent, failures) = engine.finish()?;
                    self.ended = Some((sent.unwrap_or_default(), failures));
                }
                let (sent, failures) = self.ended.as_ref().context("not started")?;
                let from: usize = query.strip_prefix("from=").and_then(|from| from.parse().ok()).unwrap_or(0);
                let part = &sent[from.min(sent.len())..(from + JOURNAL_PART).min(sent.len())];
                Ok(json!({ "sent": part, "total": sent.len(), "failures": failures }))
            }
            _ => anyhow::bail!("{method} {path} is not known: is the coordinator of another version?"),
        }
    }

    /// Whether an engine is at work, and its coordinator there.
    fn is_busy(&self) -> bool {
        let is_there = self.heard.is_some_and(|heard| heard.elapsed() < BUSY_FOR);
        is_there && self.engine.as_ref().is_some_and(|engine| !engine.is_over())
    }

    fn stop_if_forgotten(&mut self) {
        let is_forgotten = self.heard.is_some_and(|heard| heard.elapsed() > FORGOTTEN_AFTER);
        if let Some(engine) = self.engine.as_mut().filter(|engine| is_forgotten && !engine.is_over()) {
            eprintln!("the coordinator has asked for nothing for {} s: sending no more", FORGOTTEN_AFTER.as_secs());
            self.heard = None;
            let _ = engine.drain();
        }
    }

    fn engine(&mut self) -> Result<&mut Engine> {
        self.engine.as_mut().context("not started")
    }

    fn delta(&mut self) -> Result<Value> {
        let engine = self.engine()?;
        let status = engine.poll()?;
        Ok(json!({
            "delta": status.delta.to_json(engine.labels()),
            "elapsed_us": u64::try_from(status.elapsed.as_micros()).unwrap_or(u64::MAX),
            "in_flight": status.in_flight,
            "finished": status.finished,
        }))
    }
}
