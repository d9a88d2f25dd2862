//! An OpenTelemetry collector, as far as it is needed: takes OTLP over HTTP, decodes it, keeps what it got.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    routing::post,
};
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::Metric,
    trace::v1::Span,
};
use prost::Message;
use tokio::{net::TcpListener, runtime::Runtime};

/// A running collector; it ends when dropped.
#[derive(Debug)]
pub struct Collector {
    /// `http://host:port`.
    pub url: String,
    got: Arc<Got>,
    _runtime: Runtime,
}

#[derive(Debug, Default)]
struct Got {
    spans: Mutex<Vec<Span>>,
    metrics: Mutex<Vec<Metric>>,
    resource: Mutex<Vec<KeyValue>>,
    authorization: Mutex<String>,
    bytes: Mutex<Vec<u8>>,
    refuse: AtomicU32,
}

impl Collector {
    /// Starts one that answers the first messages with 503.
    pub fn start(refuse: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the collector");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let got = Arc::new(Got { refuse: AtomicU32::new(refuse), ..Got::default() });
        let router =
            Router::new().route("/v1/traces", post(traces)).route("/v1/metrics", post(metrics)).with_state(got.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, got, _runtime: runtime }
    }

    /// The spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.got.spans.lock().expect("no panic").clone()
    }

    /// The newest metrics.
    pub fn metrics(&self) -> Vec<Metric> {
        self.got.metrics.lock().expect("no panic").clone()
    }

    /// A text of the resource's attributes.
    pub fn resource(&self, key: &str) -> String {
        attribute(&self.got.resource.lock().expect("no panic"), key)
    }

    /// The last message's `Authorization`.
    pub fn authorization(&self) -> String {
        self.got.authorization.lock().expect("no panic").clone()
    }

    /// Whether a text is in anything that it was sent.
    pub fn has_seen(&self, text: &str) -> bool {
        self.got.bytes.lock().expect("no panic").windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// An attribute as text; empty when it is not there.
pub fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|one| one.key == key).and_then(|one| one.value.clone()?.value);
    match found {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => other.map(|other| format!("{other:?}")).unwrap_or_default(),
    }
}

impl Got {
    fn take(&self, headers: &HeaderMap, body: &Bytes) -> Result<(), StatusCode> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        assert_eq!(text(header::CONTENT_TYPE), "application/x-protobuf");
        *self.authorization.lock().expect("no panic") = text(header::AUTHORIZATION);
        self.bytes.lock().expect("no panic").extend_from_slice(body);
        let refused = self.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if refused.is_ok() { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok(()) }
    }
}

async fn traces(State(got): State<Arc<Got>>, headers: HeaderMap, body: Bytes) -> Result<(), StatusCode> {
    got.take(&headers, &body)?;
    let message = ExportTraceServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    for of in message.resource_spans {
        *got.resource.lock().expect("no panic") = of.resource.unwrap_or_default().attributes;
        got.spans.lock().expect("no panic").extend(of.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    Ok(())
}

async fn metrics(State(got): State<Arc<Got>>, headers: HeaderMap, body: Bytes) -> Result<(), StatusCode> {
    got.take(&headers, &body)?;
    let message = ExportMetricsServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let scopes = message.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
    *got.metrics.lock().expect("no panic") = scopes.flat_map(|scope| scope.metrics).collect();
    Ok(())
}
