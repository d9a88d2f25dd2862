//! The coordinator's side: workers as one fleet.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use super::{ORDER, TOKEN, worker::Job};
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

/// One of them.
struct Worker {
    url: String,
    /// Why nothing more is asked of it, and when that was found.
    lost: Option<(Duration, String)>,
}

/// Workers. One that does not answer any more is lost: the others go on, and the result says so and is no pass.
pub(crate) struct Remote {
    agent: ureq::Agent,
    bearer: String,
    /// Names this order to the workers.
    order: String,
    workers: Vec<Worker>,
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
        let workers = workers.iter().map(|worker| {
            let url = if worker.contains("://") { worker.clone() } else { format!("http://{worker}") };
            Worker { url: url.trim_end_matches('/').to_owned(), lost: None }
        });
        let mut remote = Self {
            agent: config.new_agent(),
            bearer: format!("Bearer {}", std::env::var(TOKEN).unwrap_or_default()),
            order: format!("{:016x}", fastrand::u64(..)),
            workers: workers.collect(),
            labels: Labels::default(),
            control: Arc::new(Control::new(Instant::now())),
            fetched: Instant::now(),
            finished: false,
            paused_at: None,
            in_flight: 0,
        };
        if let Err(error) = remote.hand_out(order) {
            // Some may have begun: nobody would see what they send.
            remote.tell_all("/abort");
            return Err(error);
        }
        Ok(remote)
    }

    fn hand_out(&mut self, order: &Order) -> Result<()> {
        let shards = self.workers.len() as u64;
        let mut offsets = Vec::new();
        for (shard, Worker { url, .. }) in (0..).zip(&self.workers) {
            let job = Job { order: order.clone(), shard, shards };
            self.post(url, "/order", &serde_json::to_value(job).context("write the order")?)?;
            offsets.push(self.clock_offset(url)?);
        }
        let start = Instant::now() + LEAD;
        self.control = Arc::new(Control::new(start));
        let start_us = self.control.unix_us(start);
        for (Worker { url, .. }, offset) in self.workers.iter().zip(offsets) {
            self.post(url, "/start", &json!({ "unix_us": start_us + offset }))?;
        }
        Ok(())
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
        read(&url, self.agent.get(&url).header("authorization", &self.bearer).header(ORDER, &self.order).call())
    }

    fn post(&self, url: &str, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{url}{path}");
        let request = self.agent.post(&url).header("authorization", &self.bearer).header(ORDER, &self.order);
        read(&url, request.send_json(body))
    }

    /// Tells all that are not lost, and finds who is.
    fn tell_all(&mut self, path: &str) {
        self.each(|remote, url| remote.post(url, path, &json!({})).map(drop));
    }

    /// Asks all that are not lost.
    fn each<T>(&mut self, ask: impl Fn(&Self, &str) -> Result<T>) -> Vec<T> {
        let asked: Vec<Option<Result<T>>> =
            self.workers.iter().map(|worker| worker.lost.is_none().then(|| ask(self, &worker.url))).collect();
        let elapsed = self.control.elapsed();
        let answers = self.workers.iter_mut().zip(asked).filter_map(|(worker, asked)| match asked? {
            Ok(answer) => Some(answer),
            Err(error) => {
                worker.lost = Some((elapsed, format!("{error:#}")));
                None
            }
        });
        answers.collect()
    }

    /// The whole journal of a worker, and what went wrong there.
    fn journal(&self, url: &str) -> Result<(Vec<Sent>, Vec<Failure>)> {
        let mut all = Vec::new();
        loop {
            let mut answer = self.get(url, &format!("/journal?from={}", all.len()))?;
            let part: Vec<Sent> = serde_json::from_value(answer["sent"].take()).context("read a worker's journal")?;
            let is_last = part.is_empty() || (all.len() + part.len()) as u64 >= answer["total"].as_u64().unwrap_or(0);
            all.extend(part);
            if is_last {
                let said: Vec<Failure> =
                    serde_json::from_value(answer["failures"].take()).context("read a worker's failures")?;
                let named = |said: Failure| Failure { what: format!("worker {url}: {}", said.what), ..said };
                return Ok((all, said.into_iter().map(named).collect()));
            }
        }
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
        let answers = self.each(|remote, url| {
            let mut answer = remote.get(url, "/delta")?;
            Ok((Delta::from_json(answer["delta"].take(), &remote.labels)?, answer))
        });
        (self.in_flight, self.finished) = (0, true);
        for (delta, answer) in answers {
            status.delta.add(&delta);
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
                self.tell_all("/pause");
                self.control.pause();
                self.paused_at = Some(Instant::now());
            }
            (false, Some(since)) => {
                self.tell_all("/resume");
                self.control.resume(since.elapsed());
                self.paused_at = None;
            }
            _ => {}
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        self.control.drain();
        self.tell_all("/stop");
        Ok(())
    }

    fn abort(&mut self) -> Result<()> {
        self.control.abort();
        self.tell_all("/abort");
        Ok(())
    }

    fn finish(&mut self) -> Result<(Option<Vec<Sent>>, Vec<Failure>)> {
        let (mut all, mut failures) = (Vec::new(), Vec::new());
        for (sent, said) in self.each(Self::journal) {
            all.extend(sent);
            failures.extend(said);
        }
        let mut is_whole = true;
        for Worker { url, lost } in &self.workers {
            let Some((at, why)) = lost else { continue };
            is_whole = false;
            // It may be there again, and still send.
            let _ = self.post(url, "/abort", &json!({}));
            let at = at.as_secs_f64();
            failures
                .push(Failure::new(format!("worker {url} was lost at {at:.1} s, and what it counted since: {why}")));
        }
        Ok((is_whole.then_some(all), failures))
    }
}
