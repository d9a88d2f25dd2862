//! Traces and metrics at a collector that decodes them.

use std::fs;

use opentelemetry_proto::tonic::{
    metrics::v1::metric::Data,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use tests::{Cluster, Collector, Options, Upstream, attribute, client, get, send, until};

/// The spans of a trace, by kind.
fn of_trace(collector: &Collector, trace: u128, kind: SpanKind) -> Option<Span> {
    let is = |span: &Span| span.trace_id == trace.to_be_bytes() && span.kind == kind as i32;
    collector.spans().into_iter().find(is)
}

#[test]
fn a_collector_gets_the_spans_of_sampled_requests_and_the_metrics_also_after_it_was_down() {
    let collector = Collector::start(1);
    let upstream = Upstream::start();
    let directory = tempfile::tempdir().expect("a directory");
    let headers = directory.path().join("headers");
    fs::write(&headers, "authorization: Bearer of-the-collector\n").expect("written");
    let args = vec![
        format!("--otlp-endpoint={}/", collector.url),
        format!("--otlp-headers-file={}", headers.display()),
        "--otlp-metrics-seconds=1".to_owned(),
    ];
    let mut cluster = Cluster::new(1, &Options { args, ..Options::default() });
    cluster.start_all();
    let (node, admin) = (&cluster.nodes[0], cluster.nodes[0].admin());
    let key = admin.open_account(&upstream.url);

    // A client's own trace is continued, to the upstream and to the collector.
    let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128;
    let with_trace = |flags: &str, trace: u128| {
        let traceparent = format!("00-{trace:032x}-00f067aa0ba902b7-{flags}");
        let fields = [("x-api-key", key.as_str()), ("traceparent", traceparent.as_str())];
        send(&client(), "GET", &node.url("/echo?secret=1"), &fields, b"").expect("an answer")
    };
    // Not sampled by who began it: never exported, and the upstream is told so.
    let quiet = with_trace("00", trace + 1);
    let told = |answer: &tests::Answer| -> String {
        answer.body["headers"]["traceparent"].as_str().expect("a traceparent").to_owned()
    };
    assert!(told(&quiet).ends_with("-00"), "{}", told(&quiet));
    let answer = with_trace("01", trace);
    let server = until("the request's span", || of_trace(&collector, trace, SpanKind::Server));
    let call = until("the call's span", || of_trace(&collector, trace, SpanKind::Client));
    assert_eq!(server.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(call.parent_span_id, server.span_id);
    let call_id: String = call.span_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(told(&answer), format!("00-{trace:032x}-{call_id}-01"));
    let route = attribute(&server.attributes, "http.route");
    assert_eq!((server.name.as_str(), call.name.as_str()), (format!("GET {route}").as_str(), "GET"));
    assert!(!route.is_empty());
    assert_eq!(attribute(&server.attributes, "http.response.status_code"), "200");
    assert_eq!(attribute(&server.attributes, "url.path"), "/echo");
    assert_eq!(attribute(&server.attributes, "tollgate.outcome"), "admitted");
    assert_eq!(attribute(&server.attributes, "tollgate.request_id"), answer.header("x-request-id"));
    assert!(server.start_time_unix_nano <= call.start_time_unix_nano);
    assert!(call.end_time_unix_nano <= server.end_time_unix_nano && server.end_time_unix_nano < u64::MAX);

    // Refusals have one too, and no call; what the upstream fails at is an error.
    assert_eq!(get(&client(), &node.url("/"), "tg_live_nonsense").expect("an answer").status, 401);
    let refused =
        || collector.spans().into_iter().find(|span| span.name == "GET" && span.kind == SpanKind::Server as i32);
    let refused = until("the refusal's span", refused);
    assert_eq!(attribute(&refused.attributes, "tollgate.outcome"), "malformed-key");
    assert!(!collector.spans().iter().any(|span| span.parent_span_id == refused.span_id));
    assert_eq!(get(&client(), &node.url("/status/500"), &key).expect("an answer").status, 500);
    let failed = |span: &Span| span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32);
    until("both spans of the failure", || {
        (collector.spans().iter().filter(|span| failed(span)).count() == 2).then_some(())
    });

    // What came while it answered 503 was sent again.
    assert!(of_trace(&collector, trace + 1, SpanKind::Server).is_none());
    assert_eq!(collector.authorization(), "Bearer of-the-collector");
    assert_eq!(collector.resource("service.name"), "tollgate");
    let requests = || {
        let metrics = collector.metrics();
        let found = metrics.iter().find(|metric| metric.name == "http_server_request_duration_seconds")?;
        let Some(Data::Histogram(histogram)) = &found.data else { panic!("{found:?}") };
        for point in &histogram.data_points {
            assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
            assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        }
        let answered = |status: &str| -> u64 {
            let of_status = |labels: &[_]| attribute(labels, "http_response_status_code") == status;
            histogram.data_points.iter().filter(|point| of_status(&point.attributes)).map(|point| point.count).sum()
        };
        (answered("200") == 2 && answered("401") == 1 && answered("500") == 1).then_some(())
    };
    until("the requests in the metrics", requests);
    assert!(collector.metrics().iter().any(|metric| metric.name == "tollgate_ledger_term"), "the store's as well");
    let metrics = get(&client(), &admin.url("/metrics"), "").expect("an answer");
    let value = |name: &str| metrics.text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    assert_eq!(value("tollgate_otlp_export_failures_total "), Some(1.0));
    assert_eq!(value("tollgate_otlp_spans_dropped_total "), Some(0.0));
    assert!(!collector.has_seen(&key) && !collector.has_seen("secret"), "no key and no query leaves the node");

    // The last spans of a node that stops are sent before it ends.
    with_trace("01", trace + 2);
    cluster.nodes[0].stop();
    assert!(of_trace(&collector, trace + 2, SpanKind::Server).is_some());
}
