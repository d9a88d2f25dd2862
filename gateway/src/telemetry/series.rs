//! Histograms with labels that are known only as requests come: a core's handles, found again without the recorder.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::Method;
use metrics::{Histogram, histogram};
use store::model::Name;

use super::{DURATION, UPSTREAM};

/// Series of a histogram, a core; what comes beyond them is recorded without labels.
const MAX_SERIES: usize = 1_000;

/// What makes a series, and its handle in the recorder.
pub(super) trait Labels: Eq + Hash {
    /// Its histogram; with none, the one of what has no labels.
    fn histogram(labels: Option<&Self>) -> Histogram;
}

/// A histogram's series of one core. A lock that nobody else wants costs some 10 ns.
#[derive(Debug)]
pub(super) struct Series<K>(Mutex<HashMap<K, Histogram>>);

impl<K> Default for Series<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Labels> Series<K> {
    pub(super) fn record(&self, labels: K, value: Duration) {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(histogram) = series.get(&labels) {
            return histogram.record(value);
        }
        if series.len() >= MAX_SERIES {
            return K::histogram(None).record(value);
        }
        let histogram = K::histogram(Some(&labels));
        histogram.record(value);
        series.insert(labels, histogram);
    }
}

/// Labels of a request's duration, by OpenTelemetry's names. No account's: a tenth of a million of them would be as many series.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) route: Option<Name>,
    pub(super) method: &'static str,
    pub(super) status: u16,
}

impl Labels for Request {
    fn histogram(labels: Option<&Self>) -> Histogram {
        let Some(labels) = labels else { return histogram!(DURATION) };
        let status = labels.status.to_string();
        match &labels.route {
            Some(route) => histogram!(
                DURATION,
                "http_request_method" => labels.method,
                "http_response_status_code" => status,
                "http_route" => route.to_string()
            ),
            None => {
                histogram!(DURATION, "http_request_method" => labels.method, "http_response_status_code" => status)
            }
        }
    }
}

impl Labels for Name {
    fn histogram(labels: Option<&Self>) -> Histogram {
        match labels {
            Some(upstream) => histogram!(UPSTREAM, "upstream" => upstream.to_string()),
            None => histogram!(UPSTREAM),
        }
    }
}

/// A method as a label: one of the known, or `_OTHER`, so that no client makes series.
pub(crate) fn method_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn request(route: Option<&str>, status: u16) -> Request {
        Request { route: route.map(Name::from), method: method_of(&Method::GET), status }
    }

    #[test]
    fn requests_are_told_apart_by_route_method_and_status_up_to_the_bound() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let text = metrics::with_local_recorder(&recorder, || {
            let series = Series::default();
            series.record(request(Some("scan"), 200), Duration::from_millis(1));
            series.record(request(Some("scan"), 200), Duration::from_millis(1));
            series.record(request(Some("scan"), 502), Duration::from_millis(1));
            series.record(request(None, 401), Duration::from_millis(1));
            for number in 0..2 * MAX_SERIES {
                series.record(request(Some(&format!("route-{number}")), 200), Duration::from_millis(1));
            }
            recorder.handle().render()
        });
        let count = |labels: &str| {
            let line = format!("{DURATION}_count{labels} ");
            text.lines().find_map(|one| one.strip_prefix(&line)?.parse::<usize>().ok())
        };
        let scan = |status| {
            let labels =
                [("http_request_method", "GET"), ("http_response_status_code", status), ("http_route", "scan")];
            count(&format!("{{{}}}", labels.map(|(name, value)| format!("{name}=\"{value}\"")).join(",")))
        };
        assert_eq!((scan("200"), scan("502")), (Some(2), Some(1)), "{text}");
        assert_eq!(count("{http_request_method=\"GET\",http_response_status_code=\"401\"}"), Some(1));
        assert_eq!(count(""), Some(MAX_SERIES + 3), "beyond the bound without labels");
    }

    #[test]
    fn a_method_of_a_clients_own_is_other() {
        let made_up = Method::from_bytes(b"BREW").expect("a token");
        assert_eq!((method_of(&Method::PATCH), method_of(&made_up)), ("PATCH", "_OTHER"));
    }
}
