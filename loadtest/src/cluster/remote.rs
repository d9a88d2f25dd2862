//! The coordinator's side: workers as one fleet.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use super::{TOKEN, worker::Job};
use crate::{
    audit::Sent,
    client::Control,
    exit::{Failure, Usage},
    measure::{Delta, Labels},
    run::{Fleet, Order, Status},
};

/// Longest time for one answer of a worker.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often deltas are fetched.
const FETCH_EVERY: Duration = Duration::from_secs(1);
/// How long before the first request all workers know of it.
const LEAD: Duration = Duration::from_secs(2);
/// Looks at a worker's clock; the one with the shortest way counts.
const CLOCK_LOOKS: usize = 5;
/// Largest answer: a part of a journal.
const MAX_ANSWER_BYTES: u64 = 256 * 1024 * 1024;

/// Workers.
pub(crate) struct Remote {
    agent: ureq::Agent,
    bearer: String,
    urls: Vec<String>,
    labels: Labels,
    control: Arc<Control>,
    fetched: Instant,
    finished: bool,
    paused_at: Option<Instant>,
    in_flight: u64,
}

impl Remote {
    /// Hands an order out and starts it everywhere at the same instant.
    pub(crate) fn start(workers: &[String], order: &Order) -> Result<Self> {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).proxy(None).build();
        let urls = workers.iter().map(|worker| {
            let url = if worker.contains("://") { worker.clone() } else { format!("http://{worker}") };
            url.trim_end_matches('/').to_owned()
        });
        let mut remote = Self {
            agent: config.new_agent(),
            bearer: format!("Bearer {}", std::env::var(TOKEN).unwrap_or_default()),
            urls: urls.collect(),
            labels: Labels::default(),
            control: Arc::new(Control::new(Instant::now())),
            fetched: Instant::now(),
            finished: false,
            paused_at: None,
            in_flight: 0,
        };
        let shards = remote.urls.len() as u64;
        let mut offsets = Vec::new();
        for (shard, url) in (0..).zip(&remote.urls) {
            let job = Job { order: order.clone(), shard, shards };
            remote.post(url, "/order", &serde_json::to_value(job).context("write the order")?)?;
            offsets.push(remote.clock_offset(url)?);
        }
        let start = Instant::now() + LEAD;
        remote.control = Arc::new(Control::new(start));
        let start_us = remote.control.unix_us(start);
        for (url, offset) in remote.urls.iter().zip(offsets) {
            remote.post(url, "/start", &json!({ "unix_us": start_us + offset }))?;
        }
        Ok(remote)
    }

    /// How far a worker's clock is ahead of ours, microseconds.
    fn clock_offset(&self, url: &str) -> Result<i64> {
        let now_us =
            || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(0);
        let mut best = (i64::MAX, 0);
        for _ in 0..CLOCK_LOOKS {
            let before = now_us();
            let theirs = self.get(url, "/clock")?["unix_us"].as_i64().context("read a worker's clock")?;
            let after = now_us();
            best = best.min((after - before, theirs - (before + (after - before) / 2)));
        }
        Ok(best.1)
    }

    fn get(&self, url: &str, path: &str) -> Result<Value> {
        let url = format!("{url}{path}");
        read(&url, self.agent.get(&url).header("authorization", &self.bearer).call())
    }

    fn post(&self, url: &str, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{url}{path}");
        read(&url, self.agent.post(&url).header("authorization", &self.bearer).send_json(body))
    }

    fn tell_all(&self, path: &str) -> Result<()> {
        self.urls.iter().try_for_each(|url| self.post(url, path, &json!({})).map(drop))
    }
}

fn read(url: &str, sent: Result<http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
    let mut response = sent.with_context(|| format!("ask the worker {url}"))?;
    let text = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string();
    let value: Value = serde_json::from_str(&text.with_context(|| format!("read the worker's answer {url}"))?)
        .with_context(|| format!("{url} is no worker"))?;
    if !response.status().is_success() {
        let what = format!("worker {url}: {}", value["error"].as_str().unwrap_or("refused"));
        return Err(if value["is_usage"] == true { Usage::error(what) } else { anyhow!(what) });
    }
    Ok(value)
}

impl Fleet for Remote {
    fn poll(&mut self) -> Result<Status> {
        let mut status = Status { elapsed: self.control.elapsed(), in_flight: self.in_flight, ..Status::default() };
        if self.finished || self.fetched.elapsed() < FETCH_EVERY {
            status.finished = self.finished;
            return Ok(status);
        }
        self.fetched = Instant::now();
        (self.in_flight, self.finished) = (0, true);
        for url in &self.urls {
            // A worker that is lost takes its counts with it: the run's figures would be a part of the truth.
            let mut answer = self.get(url, "/delta").context("a worker was lost, and its figures with it")?;
            status.delta.add(&Delta::from_json(answer["delta"].take(), &self.labels)?);
            self.in_flight += answer["in_flight"].as_u64().unwrap_or(0);
            self.finished &= answer["finished"].as_bool().unwrap_or(false);
        }
        (status.in_flight, status.finished) = (self.in_flight, self.finished);
        Ok(status)
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    fn pause(&mut self, pause: bool) -> Result<()> {
        match (pause, self.paused_at) {
            (true, None) => {
                self.tell_all("/pause")?;
                self.control.pause();
                self.paused_at = Some(Instant::now());
            }
            (false, Some(since)) => {
                self.tell_all("/resume")?;
                self.control.resume(since.elapsed());
                self.paused_at = None;
            }
            _ => {}
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        self.control.drain();
        self.tell_all("/stop")
    }

    fn abort(&mut self) -> Result<()> {
        self.control.abort();
        self.tell_all("/abort")
    }

    fn finish(&mut self) -> Result<(Vec<Sent>, Vec<Failure>)> {
        let (mut all, mut failures) = (Vec::new(), Vec::new());
        for url in &self.urls {
            let mut from = 0;
            loop {
                let mut answer = self.get(url, &format!("/journal?from={from}"))?;
                let part: Vec<Sent> =
                    serde_json::from_value(answer["sent"].take()).context("read a worker's journal")?;
                let total = answer["total"].as_u64().unwrap_or(0);
                from += part.len();
                let is_last = part.is_empty() || from as u64 >= total;
                all.extend(part);
                if is_last {
                    let said: Vec<Failure> =
                        serde_json::from_value(answer["failures"].take()).context("read a worker's failures")?;
                    let named = |said: Failure| Failure { what: format!("worker {url}: {}", said.what), ..said };
                    failures.extend(said.into_iter().map(named));
                    break;
                }
            }
        }
        Ok((all, failures))
    }
}
