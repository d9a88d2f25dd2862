//! The thread that sends: batches of spans as they come, metrics at their time.

use std::{
    cell::Cell,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use ::metrics::{Counter, counter};
use backon::{BlockingRetryable, ExponentialBuilder};
use http::header;
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    metrics::v1::{ResourceMetrics, ScopeMetrics},
    resource::v1::Resource,
    trace::v1::{self as proto, ResourceSpans, ScopeSpans},
};
use prost::Message;

use super::{Settings, Span, encode, metrics};
use crate::{
    telemetry::{OTLP_EXPORT_FAILURES, OTLP_SPANS, OTLP_SPANS_DROPPED},
    tls,
};

/// How often the queue is looked at: requests never wake the thread.
const TICK: Duration = Duration::from_millis(200);
/// Requests whose spans make one message.
const BATCH_REQUESTS: usize = 512;
/// Longest time for a message and its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same for the last ones of a node that stops.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);
/// A message that the collector does not take is sent so often, with a longer pause each time; then it is dropped.
const TRIES: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Why there is no exporter.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// TLS towards the collector.
    #[error("TLS to the collector: {0}")]
    Tls(#[from] tls::Error),
    /// The thread.
    #[error("start the exporter's thread: {0}")]
    Thread(#[from] io::Error),
}

/// The running exporter.
#[derive(Debug)]
pub struct Exporter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Exporter {
    pub(super) fn start(
        settings: Settings,
        spans: Receiver<Box<Span>>,
        metrics: Box<dyn Fn() -> String + Send>,
    ) -> Result<Self, StartError> {
        let tls = match settings.endpoint.starts_with("https://") {
            true => tls::for_agents(&settings.tls)?,
            false => ureq::tls::TlsConfig::builder().build(),
        };
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .proxy(None)
            .tls_config(tls);
        let stop = Arc::<AtomicBool>::default();
        let (exported, dropped) = (counter!(OTLP_SPANS), counter!(OTLP_SPANS_DROPPED));
        let failures = counter!(OTLP_EXPORT_FAILURES);
        exported.increment(0);
        failures.increment(0);
        let worker = Worker {
            agent: config.build().new_agent(),
            resource: encode::resource(&settings),
            start: unix_nanos(),
            settings,
            spans,
            metrics,
            stop: stop.clone(),
            exported,
            dropped,
            failures,
            failing: Cell::new(false),
        };
        let thread = thread::Builder::new().name("tollgate-otlp".to_owned()).spawn(move || worker.run())?;
        Ok(Self { stop, thread })
    }

    /// Sends what waits, in one try, and ends.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let _ = self.thread.join();
    }
}

struct Worker {
    agent: ureq::Agent,
    resource: Resource,
    start: u64,
    settings: Settings,
    spans: Receiver<Box<Span>>,
    metrics: Box<dyn Fn() -> String + Send>,
    stop: Arc<AtomicBool>,
    exported: Counter,
    dropped: Counter,
    failures: Counter,
    /// The collector did not take the last message: told once.
    failing: Cell<bool>,
}

/// The collector did not take a message.
struct Refused {
    why: String,
    /// It may be sent again.
    for_now: bool,
}

impl Worker {
    fn run(self) {
        let mut metrics_at = self.settings.metrics_every.map(|every| Instant::now() + every);
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            let batch = self.batch();
            let full = batch.len() >= BATCH_REQUESTS;
            if !batch.is_empty() {
                self.send_spans(&batch);
            }
            if metrics_at.is_some_and(|at| stopping || at <= Instant::now()) {
                self.send_metrics();
                metrics_at = self.settings.metrics_every.map(|every| Instant::now() + every);
            }
            if stopping && !full {
                return;
            }
            if !full {
                thread::park_timeout(TICK);
            }
        }
    }

    fn batch(&self) -> Vec<Span> {
        self.spans.try_iter().take(BATCH_REQUESTS).map(|span| *span).collect()
    }

    fn send_spans(&self, batch: &[Span]) {
        let mut spans: Vec<proto::Span> = Vec::with_capacity(2 * batch.len());
        for span in batch {
            span.encode(&mut spans);
        }
        let count = spans.len() as u64;
        let scope_spans = vec![ScopeSpans { scope: Some(encode::scope()), spans, ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        let taken = self.send("/v1/traces", &ExportTraceServiceRequest { resource_spans });
        if taken { &self.exported } else { &self.dropped }.increment(count);
    }

    fn send_metrics(&self) {
        let at = metrics::Span { start: self.start, now: unix_nanos() };
        let metrics = metrics::read(&(self.metrics)(), at);
        let scope_metrics = vec![ScopeMetrics { scope: Some(encode::scope()), metrics, ..ScopeMetrics::default() }];
        let resource = Some(self.resource.clone());
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
        self.send("/v1/metrics", &ExportMetricsServiceRequest { resource_metrics });
    }

    /// Whether the collector has taken it.
    fn send(&self, path: &str, message: &impl Message) -> bool {
        let body = message.encode_to_vec();
        let pauses = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_factor(2.0).with_max_times(TRIES - 1);
        let sent = (|| self.post(path, &body))
            .retry(pauses)
            // A pause ends early when the node stops.
            .sleep(thread::park_timeout)
            .when(|refused: &Refused| refused.for_now && !self.stop.load(Ordering::Acquire))
            .notify(|refused, _| self.failed(refused))
            .call();
        match sent {
            Ok(()) if self.failing.take() => {
                tracing::info!(endpoint = self.settings.endpoint, "the collector takes traces and metrics again");
            }
            Ok(()) => {}
            Err(refused) => {
                self.failed(&refused);
                return false;
            }
        }
        true
    }

    fn failed(&self, refused: &Refused) {
        self.failures.increment(1);
        if !self.failing.replace(true) {
            let (endpoint, why) = (&self.settings.endpoint, &refused.why);
            tracing::warn!(
                endpoint,
                why,
                "the collector does not take traces or metrics; what finds no place in the queue is dropped"
            );
        }
    }

    fn post(&self, path: &str, body: &[u8]) -> Result<(), Refused> {
        let timeout = if self.stop.load(Ordering::Acquire) { LAST_TIMEOUT } else { TIMEOUT };
        let mut request = self
            .agent
            .post(format!("{}{path}", self.settings.endpoint))
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .config()
            .timeout_global(Some(timeout))
            .build();
        for (name, value) in &self.settings.headers {
            request = request.header(name, value.as_str());
        }
        let status = request.send(body).map_err(|error| Refused { why: error.to_string(), for_now: true })?.status();
        if status.is_success() {
            return Ok(());
        }
        // OTLP, "Retryable response codes".
        let for_now = [429, 502, 503, 504].contains(&status.as_u16());
        Err(Refused { why: format!("it answers {status}"), for_now })
    }
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
