//! The generators of this process: a thread that runs through the schedule, and threads of clients.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use super::{Fleet, Order, Status, is_usage};
use crate::{
    audit::Sent,
    client::{Control, Generator, Journal},
    exit::Failure,
    measure::{Delta, Labels, Recorder},
    plan::{Principal, feed},
};

/// Batches that wait for a thread: what the schedule is ahead, and all the memory that it takes.
const BATCHES_AHEAD: usize = 64;

/// Generators of this process.
pub(crate) struct Engine {
    control: Arc<Control>,
    labels: Labels,
    recorders: Vec<Arc<Mutex<Recorder>>>,
    journals: Vec<Arc<Mutex<Journal>>>,
    threads: Vec<JoinHandle<Result<()>>>,
    feeder: Option<JoinHandle<Result<u64>>>,
    principals: Vec<Arc<Principal>>,
    targets: Vec<Arc<str>>,
    paused_at: Option<Instant>,
    /// Added to the threads' numbers, so that no two workers give the same id.
    first_thread: u16,
}

impl Engine {
    /// Starts an order's part `shard` of `shards`; the first request is due at `start`.
    pub(crate) fn start(order: &Order, shard: u64, shards: u64, start: Instant) -> Result<Self> {
        raise_file_limit();
        let labels = Labels::default();
        let settings = Arc::new(order.settings()?);
        let (schedule, principals) = order.schedule(&labels)?;
        let control = Arc::new(Control::new(start));
        let first_thread = u16::try_from(shard).unwrap_or(0) * 64;
        let (mut senders, mut threads, mut recorders, mut journals) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for thread in 0..order.threads {
            let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
            let recorder = Arc::new(Mutex::new(Recorder::default()));
            let journal = order.audit.then(|| Arc::new(Mutex::new(Journal::default())));
            let generator = Generator {
                thread: first_thread + thread,
                settings: settings.clone(),
                control: control.clone(),
                recorder: recorder.clone(),
                journal: journal.clone(),
                labels: labels.clone(),
            };
            let builder = std::thread::Builder::new().name(format!("clients-{thread}"));
            threads.push(builder.spawn(move || generator.run(receiver)).context("start a thread of clients")?);
            senders.push(sender);
            recorders.push(recorder);
            journals.extend(journal);
        }
        let builder = std::thread::Builder::new().name("schedule".into());
        let feeder = builder.spawn(move || feed(schedule, &senders, shard, shards)).context("start the schedule")?;
        Ok(Self {
            control,
            labels,
            recorders,
            journals,
            threads,
            feeder: Some(feeder),
            principals,
            targets: settings.targets.iter().map(|target| target.authority.as_str().into()).collect(),
            paused_at: None,
            first_thread,
        })
    }

    /// Whether all threads have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    fn sent(&self) -> Vec<Sent> {
        let mut all = Vec::new();
        for (thread, journal) in (self.first_thread..).zip(&self.journals) {
            let journal = std::mem::take(&mut *journal.lock().unwrap_or_else(PoisonError::into_inner));
            let mut names: std::collections::HashMap<crate::measure::Label, Arc<str>> = Default::default();
            for (number, entry) in (0..).zip(journal.into_entries()) {
                let Some(entry) = entry else { continue };
                let principal = &self.principals[entry.principal as usize];
                let outcome =
                    names.entry(entry.outcome).or_insert_with(|| self.labels.name(entry.outcome).into()).clone();
                all.push(Sent {
                    thread,
                    number,
                    principal: entry.principal,
                    account: principal.account.clone(),
                    target: self.targets.get(usize::from(entry.target)).cloned().unwrap_or_else(|| "?".into()),
                    status: entry.status,
                    outcome,
                    id: entry.id,
                    sent_us: entry.sent_us,
                    ended_us: entry.ended_us,
                });
            }
        }
        all
    }
}

impl Fleet for Engine {
    fn poll(&mut self) -> Result<Status> {
        // Before the deltas are taken: what ends in between is in the next one.
        let finished = self.is_over();
        let mut delta = Delta::default();
        for recorder in &self.recorders {
            delta.add(&recorder.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        Ok(Status { delta, elapsed: self.control.elapsed(), in_flight: self.control.in_flight(), finished })
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
                self.control.pause();
                self.paused_at = Some(Instant::now());
            }
            (false, Some(since)) => {
                self.control.resume(since.elapsed());
                self.paused_at = None;
            }
            _ => {}
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        self.control.drain();
        Ok(())
    }

    fn abort(&mut self) -> Result<()> {
        self.control.abort();
        Ok(())
    }

    fn finish(&mut self) -> Result<(Option<Vec<Sent>>, Vec<Failure>)> {
        let mut failures = Vec::new();
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => failures.push(Failure::new("a thread of clients panicked: this is a bug")),
            }
        }
        match self.feeder.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => failures
                .push(Failure { what: format!("the schedule ended early: {error:#}"), is_usage: is_usage(&error) }),
            Some(Err(_)) => failures.push(Failure::new("the schedule's thread panicked: this is a bug")),
            Some(Ok(Ok(_))) | None => {}
        }
        if self.journals.iter().any(|journal| journal.lock().unwrap_or_else(PoisonError::into_inner).is_full()) {
            let what = format!("more than {} requests of a thread: too many to audit", Journal::MAX_ENTRIES);
            failures.push(Failure::new(what));
        }
        Ok((Some(self.sent()), failures))
    }
}

/// As many sockets as the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// How long before the first request everything is ready.
pub(crate) const LEAD: Duration = Duration::from_millis(300);
