//! Traces and metrics to an OpenTelemetry collector: OTLP over HTTP, protobuf. Off unless a collector is named.
//!
//! ```text
//! core ─▶ span ─▶ queue (bounded, drops are counted) ─▶ thread ─▶ POST /v1/traces
//!                              what /metrics says ────────┘ └───▶ POST /v1/metrics
//! ```
//!
//! A request's spans are made when it has ended, from what its entry knows anyway: one allocation, one place in the
//! queue, no lock and no wake-up. The thread encodes and sends, and is the only one that ever waits for the collector: a slow
//! one costs spans, never requests. Metrics are those of `/metrics`, read from the same text, so that the two never differ.
//!
//! OpenTelemetry's own SDK is not used for this: its span processor does not tell what it dropped, and its meters would count
//! everything a second time. Its protobuf types are.

mod encode;
mod export;
mod metrics;
mod span;

use std::{
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use ::metrics::{Counter, counter};

pub use export::{Exporter, StartError};
pub use span::{Span, Upstream};

use crate::{telemetry::OTLP_SPANS_DROPPED, tls::ClientFiles};

/// Requests whose spans may wait for the exporter; those of one more are dropped and counted.
const QUEUE_REQUESTS: usize = 8_192;

/// How to export.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The collector's base URL, like `http://127.0.0.1:4318`.
    pub endpoint: String,
    /// Fields of each export, such as a token; never logged.
    pub headers: Vec<(String, zeroize::Zeroizing<String>)>,
    /// The part of the traces that begin here that is exported, from 0 to 1; others follow whoever began them.
    pub sample_ratio: f64,
    /// How often metrics are exported; never for none.
    pub metrics_every: Option<Duration>,
    /// Whom to trust.
    pub tls: ClientFiles,
    /// `service.instance.id`.
    pub node: String,
    /// `cloud.region`; none when empty.
    pub region: String,
}

/// Where the data plane leaves the spans of its requests; all cores share one.
#[derive(Debug)]
pub struct Tracer {
    queue: SyncSender<Box<Span>>,
    /// Traces whose last 56 bits are below are sampled.
    below: u64,
    dropped: Counter,
}

/// Bits of a trace id that are random by W3C Trace Context level 2, and so those that sampling goes by.
const RANDOM_BITS: u32 = 56;

impl Tracer {
    /// Whether a trace that begins here is exported. By its id alone: nodes agree on it.
    pub fn samples(&self, trace_id: u128) -> bool {
        let random = u64::try_from(trace_id & ((1 << RANDOM_BITS) - 1)).expect("56 bits fit into 64");
        random < self.below
    }

    /// Hands the spans of a request over; drops and counts them when the queue is full.
    pub fn export(&self, span: Box<Span>) {
        match self.queue.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(span) | TrySendError::Disconnected(span)) => self.dropped.increment(span.count()),
        }
    }
}

/// Starts the exporter. `metrics` tells the metrics as Prometheus reads them. Install the process's recorder first.
///
/// # Errors
/// A file of TLS cannot be used, or there is no thread to be had.
pub fn start(
    settings: Settings,
    metrics: impl Fn() -> String + Send + 'static,
) -> Result<(Arc<Tracer>, Exporter), StartError> {
    let (queue, spans) = sync_channel(QUEUE_REQUESTS);
    let dropped = counter!(OTLP_SPANS_DROPPED);
    dropped.increment(0);
    let tracer = Tracer { queue, below: threshold(settings.sample_ratio), dropped };
    let exporter = Exporter::start(settings, spans, Box::new(metrics))?;
    Ok((Arc::new(tracer), exporter))
}

/// Reads a text as metrics, for fuzzing.
pub(crate) fn read_for_fuzz(text: &str) {
    let _ = metrics::read(text, metrics::Span { start: 0, now: 1 });
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "within 0 and 2^56, which an f64 has exactly"
)]
fn threshold(ratio: f64) -> u64 {
    (ratio.clamp(0.0, 1.0) * (1_u64 << RANDOM_BITS) as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(ratio: f64) -> (Tracer, std::sync::mpsc::Receiver<Box<Span>>) {
        let (queue, spans) = sync_channel(2);
        (Tracer { queue, below: threshold(ratio), dropped: Counter::noop() }, spans)
    }

    #[test]
    fn sampling_goes_by_the_trace_alone_and_by_its_share() {
        let sampled = |ratio| {
            let (tracer, _) = tracer(ratio);
            // Odd multiples spread evenly over the bits.
            (1..=10_000_u128).filter(|n| tracer.samples(n * 0x9E37_79B9_7F4A_7C15)).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 10_000));
        assert!((2_300..2_700).contains(&sampled(0.25)), "{}", sampled(0.25));
    }

    #[test]
    fn what_finds_no_place_is_dropped_at_once() {
        let (tracer, spans) = tracer(1.0);
        for _ in 0..5 {
            tracer.export(Box::default());
        }
        assert_eq!(spans.try_iter().count(), 2);
        drop(spans);
        tracer.export(Box::default());
    }
}
