//! Clients that send requests until they are stopped, and what they were answered.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;
use ureq::Agent;

use crate::{Node, client, get};

/// The answer that may have no row.
const REDUCED: &str = "temporary-reduced-capacity";

/// After any answer but a 200, and none.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// One answer that a client received.
#[derive(Debug, Clone)]
pub struct Received {
    /// Which of the load's URLs it came from.
    pub target: usize,
    /// Its `x-request-id`; empty where it had none.
    pub id: String,
    /// Its status.
    pub status: u16,
    /// The problem's code; empty where it was none.
    pub code: String,
    /// The problem's words for it.
    pub detail: String,
    /// When its head had come.
    pub at: Instant,
    /// From the request to its head.
    pub took: Duration,
}

impl Received {
    /// When its request was sent.
    pub fn sent(&self) -> Instant {
        self.at - self.took
    }
}

/// What all clients of a load received.
#[derive(Debug, Default)]
pub struct Report {
    /// Answers, in no order.
    pub received: Vec<Received>,
    /// Requests without an answer: no connection, or one that ended.
    pub errors: u64,
}

impl Report {
    /// Adds another report's answers.
    pub fn add(&mut self, other: Self) {
        self.received.extend(other.received);
        self.errors += other.errors;
    }

    /// Ids whose rows must be there: of all answers but 503 `temporary-reduced-capacity`.
    pub fn acknowledged(&self) -> HashSet<&str> {
        let promised = self.received.iter().filter(|answer| answer.code != REDUCED);
        promised.map(|answer| answer.id.as_str()).collect()
    }

    /// How many answers of each status and code.
    pub fn counts(&self) -> BTreeMap<(u16, &str), usize> {
        let mut counts = BTreeMap::new();
        for answer in &self.received {
            *counts.entry((answer.status, answer.code.as_str())).or_default() += 1;
        }
        counts
    }

    /// Answers other than 200 by their problem's words: which target gave how many.
    pub fn failures(&self) -> BTreeMap<(usize, &str), usize> {
        let mut failures = BTreeMap::new();
        for answer in self.received.iter().filter(|answer| answer.status != 200) {
            *failures.entry((answer.target, answer.detail.as_str())).or_default() += 1;
        }
        failures
    }

    /// The longest time between two instants in which a target gave no 200.
    pub fn longest_gap(&self, target: usize, from: Instant, until: Instant) -> Duration {
        let ours = self.received.iter().filter(|answer| answer.target == target && answer.status == 200);
        let mut times: Vec<Instant> = ours.map(|answer| answer.at).filter(|at| (from..until).contains(at)).collect();
        times.extend([from, until]);
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// The time in the middle of what a target's 200s took.
    pub fn median(&self, target: usize) -> Duration {
        let ours = self.received.iter().filter(|answer| answer.target == target && answer.status == 200);
        let mut times: Vec<Duration> = ours.map(|answer| answer.took).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    /// Checks what the log says of this load: every acknowledged id exactly once, no id twice, and no answer that a node
    /// without its store could have mistaken for a bad key.
    ///
    /// # Errors
    /// Says what is missing or there twice, and what the answers were.
    pub fn check(&self, rows: &[Value]) -> Result<(), String> {
        let mut ids = HashSet::new();
        let twice: Vec<&str> =
            rows.iter().filter_map(|row| row["request_id"].as_str()).filter(|id| !ids.insert(*id)).collect();
        let lost: Vec<&str> = self.acknowledged().into_iter().filter(|id| !ids.contains(id)).collect();
        let forbidden = self.received.iter().filter(|answer| matches!(answer.status, 401 | 403 | 429)).count();
        if twice.is_empty() && lost.is_empty() && forbidden == 0 {
            return Ok(());
        }
        Err(format!(
            "{} of {} acknowledged rows lost {:?}, {} ids twice {:?}, {forbidden} answers of 401, 403 or 429; answers {:?}",
            lost.len(),
            self.acknowledged().len(),
            &lost[..lost.len().min(5)],
            twice.len(),
            &twice[..twice.len().min(5)],
            self.counts(),
        ))
    }
}

/// Running clients.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    successes: Arc<Vec<AtomicU64>>,
    clients: Vec<JoinHandle<Report>>,
}

impl Load {
    /// Starts `clients` threads for each URL, each with its own connection, sending GETs with `key` as fast as they are answered.
    pub fn start(urls: &[String], key: &str, clients: usize) -> Self {
        Self::paced(urls, key, clients, Duration::ZERO)
    }

    /// The same, with a pause after each answer.
    pub fn paced(urls: &[String], key: &str, clients: usize, pause: Duration) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let successes = Arc::new(urls.iter().map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
        let mut threads = Vec::new();
        for (target, url) in urls.iter().enumerate() {
            for _ in 0..clients {
                let (stop, successes) = (Arc::clone(&stop), Arc::clone(&successes));
                let (url, authorization) = (url.clone(), format!("Bearer {key}"));
                threads.push(std::thread::spawn(move || {
                    let mut report = Report::default();
                    let agent = agent();
                    while !stop.load(Ordering::Relaxed) {
                        match send(&agent, target, &url, &authorization) {
                            Some(answer) => {
                                if answer.status == 200 {
                                    successes[target].fetch_add(1, Ordering::Relaxed);
                                }
                                let pause = if answer.status == 200 { pause } else { pause.max(REFUSED_PAUSE) };
                                if !pause.is_zero() {
                                    std::thread::sleep(pause);
                                }
                                report.received.push(answer);
                            }
                            None => {
                                report.errors += 1;
                                // Nobody listens: do not take the cores from who starts.
                                std::thread::sleep(REFUSED_PAUSE);
                            }
                        }
                    }
                    report
                }));
            }
        }
        Self { stop, successes, clients: threads }
    }

    /// 200s that a target has given so far.
    pub fn successes(&self, target: usize) -> u64 {
        self.successes[target].load(Ordering::Relaxed)
    }

    /// Waits until a target has given so many more 200s.
    pub fn wait_more(&self, target: usize, more: u64) {
        let goal = self.successes(target) + more;
        crate::until(&format!("{more} more answers of target {target}"), || {
            (self.successes(target) >= goal).then_some(())
        });
    }

    /// Ends the clients after the request that each is in.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        for client in self.clients {
            report.add(client.join().expect("a client does not panic"));
        }
        report
    }
}

/// Sends requests through all nodes in turn until so many were let through, or nine in a row were refused for want of units;
/// how many were let through.
///
/// # Panics
/// At any other answer than a 200, a 429, or a 503 while a leader changes; and when there is none.
pub fn spend(nodes: &[Node], key: &str, most: u64) -> u64 {
    let (agent, mut admitted, mut refused) = (client(), 0, 0);
    for node in nodes.iter().cycle() {
        if admitted >= most || refused >= 9 {
            break;
        }
        let answer = get(&agent, &node.url("/"), key).expect("an answer");
        match answer.status {
            200 => (admitted, refused) = (admitted + 1, 0),
            429 => refused += 1,
            503 => {}
            status => panic!("{status}: {:?}", answer.body),
        }
    }
    admitted
}

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(10))).build().into()
}

fn send(agent: &Agent, target: usize, url: &str, authorization: &str) -> Option<Received> {
    let start = Instant::now();
    let mut response = agent.get(url).header("authorization", authorization).call().ok()?;
    let at = Instant::now();
    let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let status = response.status().as_u16();
    // From the head on it counts as received, also when the body's end is lost.
    let body = response.body_mut().read_to_vec().unwrap_or_default();
    let problem = if status == 200 { Value::Null } else { serde_json::from_slice(&body).unwrap_or(Value::Null) };
    let text = |field: &str| problem[field].as_str().unwrap_or_default().to_owned();
    Some(Received { target, id, status, code: text("code"), detail: text("detail"), at, took: at - start })
}
