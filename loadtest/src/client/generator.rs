//! One thread of clients.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use tokio::{sync::mpsc, task::LocalSet};

use super::{
    Control, Entry, Journal, Settings,
    answer::Answer,
    behaviour::{Behaviour, HANG_UP_WITHIN, SLOW_BYTES_PER_SECOND},
    connection::{Connection, Failure},
    journal,
    pool::Pool,
    timer::Timer,
};
use crate::{
    measure::{Class, Finished, Label, Labels, Recorder, Unsent},
    plan::{Arrival, Batch},
};

/// Sends without a pause before the answers get a turn.
const SENDS_IN_A_ROW: u32 = 16;
/// How long a drain or a pause may go unseen.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Sends of one request that its targets have not processed; then its client gives up.
const MAX_RESENDS: u32 = 10;
/// The handicap of the self-test comes before every so many sends.
const HANDICAP_EVERY: u64 = 64;

/// A thread of clients and what it has seen.
#[derive(Debug, Clone)]
pub(crate) struct Generator {
    /// Its number.
    pub(crate) thread: u16,
    /// What all have in common.
    pub(crate) settings: Arc<Settings>,
    /// What the run says.
    pub(crate) control: Arc<Control>,
    /// Where it counts.
    pub(crate) recorder: Arc<Mutex<Recorder>>,
    /// Where it keeps every request, if it is to.
    pub(crate) journal: Option<Arc<Mutex<Journal>>>,
    /// Names of outcomes.
    pub(crate) labels: Labels,
}

impl Generator {
    /// Sends all that comes until the channel ends, and waits for the answers. To be called on a thread of its own.
    ///
    /// # Errors
    /// The runtime could not be made.
    pub(crate) fn run(self, arrivals: mpsc::Receiver<Batch>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Looks at sockets and the timer between few tasks: a burst of answers must not make the next send late.
            .event_interval(16)
            .build()
            .context("start a generator's runtime")?;
        let local = LocalSet::new();
        runtime.block_on(local.run_until(async move {
            let clients = Rc::new(Clients {
                pool: RefCell::new(Pool::new(
                    self.settings.targets.len(),
                    usize::from(self.thread),
                    self.settings.eject,
                )),
                connections: self
                    .settings
                    .connections
                    .map(|connections| tokio::sync::Semaphore::new(connections.div_ceil(self.settings.threads.max(1)))),
                random: RefCell::new(fastrand::Rng::with_seed(self.settings.seed ^ u64::from(self.thread) << 32)),
                outcomes: RefCell::new(Outcomes::default()),
                of: self,
            });
            clients.dispatch(arrivals).await;
        }));
        Ok(())
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Clients {
    of: Generator,
    pool: RefCell<Pool>,
    /// This thread's share of the connections, when they are bounded.
    connections: Option<tokio::sync::Semaphore>,
    random: RefCell<fastrand::Rng>,
    outcomes: RefCell<Outcomes>,
}

impl Clients {
    async fn dispatch(self: Rc<Self>, mut arrivals: mpsc::Receiver<Batch>) {
        let timer = Timer::new();
        let (mut in_a_row, mut sent) = (0, 0u64);
        'all: while let Some(batch) = arrivals.recv().await {
            for arrival in batch {
                let due = Duration::from_nanos(arrival.due_ns);
                if !self.wait(&timer, due, &mut in_a_row).await {
                    break 'all;
                }
                sent += 1;
                if sent.is_multiple_of(HANDICAP_EVERY) && !self.of.settings.handicap.is_zero() {
                    std::thread::sleep(self.of.settings.handicap);
                }
                let lag = self.of.control.at(due).elapsed();
                let unsent = if lag > self.of.settings.send_within {
                    Some(Unsent::Late)
                } else if self.of.control.in_flight() >= self.of.settings.max_in_flight as u64 {
                    Some(Unsent::Full)
                } else {
                    None
                };
                if let Some(why) = unsent {
                    let mut recorder = self.of.recorder();
                    recorder.due(due, lag);
                    recorder.unsent(due, why);
                    continue;
                }
                self.of.control.add_in_flight(1);
                let clients = self.clone();
                tokio::task::spawn_local(async move {
                    clients.serve(arrival, due).await;
                    clients.of.control.add_in_flight(-1);
                });
            }
        }
        // What is in flight ends by itself: each request has its timeout.
        arrivals.close();
        while Rc::strong_count(&self) > 1 && !self.of.control.is_aborted() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until something is due; false when nothing more is to be sent.
    async fn wait(&self, timer: &Timer, due: Duration, in_a_row: &mut u32) -> bool {
        loop {
            let control = &self.of.control;
            if control.is_draining() {
                return false;
            }
            if control.is_paused() {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            let (now, at) = (Instant::now(), control.at(due));
            if now >= at {
                *in_a_row += 1;
                if *in_a_row >= SENDS_IN_A_ROW {
                    *in_a_row = 0;
                    tokio::task::yield_now().await;
                }
                return true;
            }
            *in_a_row = 0;
            timer.until(at.min(now + LOOK_EVERY)).await;
        }
    }

    /// One arrival, with its retries.
    async fn serve(&self, arrival: Arrival, mut due: Duration) {
        let mut at = self.of.control.at(due);
        let mut tries = 0;
        loop {
            if tries == 0 {
                self.of.recorder().due(due, at.elapsed());
            }
            // Never closed, so this is a permit.
            let permit = match &self.connections {
                Some(connections) => connections.acquire().await.ok(),
                None => None,
            };
            let started = Instant::now();
            self.of.recorder().sent(due, tries > 0);
            let answer = self.once(&arrival, started, due, at).await;
            drop(permit);
            tries += 1;
            let Some(wait) = self.of.settings.retry.wait(&answer, tries) else { return };
            if self.of.control.is_draining() {
                return;
            }
            let outcome = self.outcomes.borrow_mut().label(&self.of.labels, &answer);
            self.of.recorder().superseded(due, arrival.principal.tier, outcome);
            // A retry is a request of its own: due when its client wakes up.
            at = Instant::now() + wait;
            due = self.of.control.elapsed() + wait;
            tokio::time::sleep_until(at.into()).await;
        }
    }

    /// One request and its answer, recorded.
    async fn once(&self, arrival: &Arrival, started: Instant, due: Duration, at: Instant) -> Answer {
        let behaviour = self.of.settings.behaviours.choose(&mut self.random.borrow_mut());
        let mut target = self.pool.borrow_mut().choose(started);
        let journal = self.of.journal.as_deref().map(|journal| journal.lock().unwrap_or_else(PoisonError::into_inner));
        let number = match journal.map(|mut journal| journal.begin()) {
            Some(None) => {
                // The journal is full: an audit of a part would prove nothing, so the run ends here and says so.
                self.of.control.drain();
                return Answer::none("journal-full");
            }
            number => number.flatten(),
        };
        let mut others = if self.of.settings.eject.is_zero() { 0 } else { self.of.settings.targets.len() - 1 };
        let mut resends = 0;
        let answer = loop {
            let request = self.request(arrival, target, number, behaviour);
            let exchange = tokio::time::timeout(self.of.settings.timeout, self.exchange(request, target, behaviour));
            let answer = exchange.await.unwrap_or_else(|_| Answer::none("timeout"));
            if answer.unprocessed && resends < MAX_RESENDS {
                // As every client of HTTP/2 does (RFC 9113 §6.8): the target goes, or closed an idle connection.
                resends += 1;
                self.of.recorder().resent(due);
                target = self.pool.borrow_mut().choose(Instant::now());
                continue;
            }
            if !answer.refused {
                break answer;
            }
            let mut pool = self.pool.borrow_mut();
            pool.refused(target, Instant::now());
            if others == 0 {
                break answer;
            }
            // Nothing was sent: the next one gets it, as a load balancer does.
            others -= 1;
            target = pool.choose(Instant::now());
        };
        let ended = Instant::now();
        let class = match answer.status {
            _ if answer.hung_up => Class::HungUp,
            0 => Class::NoAnswer,
            status => Class::of(status),
        };
        let outcome = self.outcomes.borrow_mut().label(&self.of.labels, &answer);
        self.of.recorder().finished(&Finished {
            due,
            class,
            outcome,
            tier: arrival.principal.tier,
            corrected: ended.saturating_duration_since(at),
            service: ended.saturating_duration_since(started),
        });
        if let (Some(journal), Some(number)) = (&self.of.journal, number) {
            let entry = Entry {
                principal: arrival.principal.number,
                target: u16::try_from(target).unwrap_or(u16::MAX),
                status: answer.status,
                outcome,
                id: answer.id,
                sent_us: self.of.control.unix_us(started),
                ended_us: self.of.control.unix_us(ended),
            };
            journal.lock().unwrap_or_else(PoisonError::into_inner).end(number, entry);
        }
        answer
    }

    fn request(
        &self,
        arrival: &Arrival,
        target: usize,
        number: Option<usize>,
        behaviour: Behaviour,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(arrival.spec.body.clone()));
        *request.method_mut() = arrival.spec.method.clone();
        *request.uri_mut() = arrival.spec.uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.of.settings.targets[target].host.clone());
        for (name, value) in &arrival.spec.headers {
            headers.insert(name, value.clone());
        }
        if let Some(authorization) = &arrival.principal.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        if let Some(number) = number {
            let id = journal::client_id(self.of.settings.run, self.of.thread, number);
            headers.insert("x-request-id", HeaderValue::from_str(&id).expect("visible ASCII"));
        }
        if behaviour == Behaviour::NewConnection {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        request
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>, target: usize, behaviour: Behaviour) -> Answer {
        let slow = (behaviour == Behaviour::SlowReader).then_some(SLOW_BYTES_PER_SECOND);
        let keeps = behaviour == Behaviour::KeepAlive;
        let settings = &self.of.settings;
        let unprocessed = || Answer { unprocessed: true, ..Answer::none("connection-broken") };
        loop {
            let mut pooled = if keeps { self.pool.borrow_mut().take(target) } else { None };
            // One opens what all share; the others wait for it.
            let mut turn = None;
            if pooled.is_none() && keeps && settings.http2 {
                let opening = self.pool.borrow().opening(target);
                turn = Some(opening.lock_owned().await);
                pooled = self.pool.borrow_mut().take(target);
            }
            let is_fresh = pooled.is_none();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => {
                    let opened =
                        Connection::open(&settings.targets[target], settings.tls.as_ref(), settings.http2, slow).await;
                    match opened {
                        Ok(connection) => {
                            if let (Some(shared), true) = (connection.share(), keeps) {
                                self.pool.borrow_mut().share(target, shared);
                            }
                            connection
                        }
                        Err(why) => return Answer { refused: true, ..Answer::none(why) },
                    }
                }
            };
            drop(turn);
            if behaviour == Behaviour::HangUp {
                let within = HANG_UP_WITHIN.mul_f64(self.random.borrow_mut().f64());
                return match tokio::time::timeout(within, connection.send(request)).await {
                    Ok(Ok(response)) => {
                        Answer { hung_up: true, ..Answer::of(response.status().as_u16(), response.headers()) }
                    }
                    _ => Answer { hung_up: true, ..Answer::default() },
                };
            }
            let response = match connection.send(request).await {
                Ok(response) => response,
                // The peer had closed an idle connection: another one. At most as many turns as there are idle ones.
                Err(Failure::NotSent(again)) if !is_fresh => {
                    request = *again;
                    continue;
                }
                Err(Failure::NotSent(_) | Failure::Unprocessed) => return unprocessed(),
                Err(Failure::Broken(why)) => return Answer::none(why),
            };
            return match connection.read(response).await {
                Ok(answer) => {
                    if keeps {
                        self.pool.borrow_mut().give(target, connection);
                    }
                    answer
                }
                Err(Failure::Broken(why)) => Answer::none(why),
                Err(Failure::NotSent(_) | Failure::Unprocessed) => Answer::none("connection-broken"),
            };
        }
    }
}

/// The numbers of outcomes that this thread has seen.
#[derive(Default)]
struct Outcomes {
    plain: HashMap<u16, Label>,
    coded: HashMap<(u16, String), Label>,
}

impl Outcomes {
    fn label(&mut self, labels: &Labels, answer: &Answer) -> Label {
        if answer.hung_up {
            return *self.plain.entry(0).or_insert_with(|| labels.label("hung-up"));
        }
        let Some(code) = &answer.code else {
            return *self.plain.entry(answer.status).or_insert_with(|| labels.label(&answer.status.to_string()));
        };
        // The service chooses the codes: bounded by the bound of `Labels`, and here by forgetting all.
        if self.coded.len() > 1_000 {
            self.coded.clear();
        }
        *self.coded.entry((answer.status, code.clone())).or_insert_with(|| match answer.status {
            0 => labels.label(code),
            status => labels.label(&format!("{status} {code}")),
        })
    }
}
