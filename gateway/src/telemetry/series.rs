//! Histograms with labels that are known only as requests come: a core's handles, found again without the recorder.
//!
//! A request finds its handle by a few numbers and one look into a table that is never written, only replaced: no lock, no text
//! that is hashed or copied.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use http::Method;
use metrics::{Histogram, histogram};
use store::{model::Name, view::RouteView};

use super::{DURATION, UPSTREAM};

/// Series of a histogram, a core; what comes beyond them is recorded without labels.
const MAX_SERIES: usize = 1_000;

type Table<K> = HashMap<K, Histogram, RandomState>;

/// A histogram's series of one core.
#[derive(Debug)]
struct Series<K> {
    table: ArcSwap<Table<K>>,
    /// A new series takes a copy of the table with it: as often as there are series, and no more.
    adding: Mutex<()>,
}

impl<K> Default for Series<K> {
    fn default() -> Self {
        Self { table: ArcSwap::default(), adding: Mutex::default() }
    }
}

impl<K: Eq + Hash + Clone> Series<K> {
    /// `histogram` looks the handle up in the recorder: with labels, or the one of what has none.
    fn record(&self, key: &K, value: Duration, histogram: impl Fn(bool) -> Histogram) {
        match self.table.load().get(key) {
            Some(histogram) => histogram.record(value),
            None => self.add(key, histogram).record(value),
        }
    }

    #[cold]
    fn add(&self, key: &K, histogram: impl Fn(bool) -> Histogram) -> Histogram {
        let _alone = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table.load();
        if table.len() >= MAX_SERIES && !table.contains_key(key) {
            return histogram(false);
        }
        let mut table = Table::clone(&table);
        let histogram = table.entry(key.clone()).or_insert_with(|| histogram(true)).clone();
        self.table.store(table.into());
        histogram
    }
}

/// Durations of requests by route, method and status, by OpenTelemetry's names. Not by account: a tenth of a million of them
/// would be as many series.
#[derive(Debug, Default)]
pub(super) struct Requests(Series<(Option<u64>, &'static str, u16)>);

impl Requests {
    pub(super) fn record(&self, route: Option<&RouteView>, method: &'static str, status: u16, value: Duration) {
        let key = (route.map(|route| route.number), method, status);
        self.0.record(&key, value, |labelled| {
            let status = status.to_string();
            match route {
                _ if !labelled => histogram!(DURATION),
                Some(route) => histogram!(
                    DURATION,
                    "http_request_method" => method,
                    "http_response_status_code" => status,
                    "http_route" => route.route.name.to_string()
                ),
                None => histogram!(DURATION, "http_request_method" => method, "http_response_status_code" => status),
            }
        });
    }
}

/// Durations of upstreams, by their names.
#[derive(Debug, Default)]
pub(super) struct Upstreams(Series<Name>);

impl Upstreams {
    pub(super) fn record(&self, upstream: &Name, value: Duration) {
        self.0.record(upstream, value, |labelled| match labelled {
            true => histogram!(UPSTREAM, "upstream" => upstream.to_string()),
            false => histogram!(UPSTREAM),
        });
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
    use std::hash::BuildHasher;

    use foldhash::fast::FixedState;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use store::model::Route;

    use super::*;

    fn route(name: &str) -> RouteView {
        let route = Route { name: name.into(), ..Route::default() };
        // As the store makes them: of the name alone.
        let number = FixedState::with_seed(1).hash_one(name);
        RouteView { route, upstream: None, slot: 0, number }
    }

    #[test]
    fn requests_are_told_apart_by_route_method_and_status_up_to_the_bound() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let text = metrics::with_local_recorder(&recorder, || {
            let series = Requests::default();
            let record = |route: Option<&RouteView>, status| {
                series.record(route, method_of(&Method::GET), status, Duration::from_millis(1));
            };
            record(Some(&route("scan")), 200);
            record(Some(&route("scan")), 200);
            record(Some(&route("scan")), 502);
            record(None, 401);
            for number in 0..2 * MAX_SERIES {
                record(Some(&route(&format!("route-{number}"))), 200);
            }
            record(Some(&route("scan")), 502);
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
        assert_eq!((scan("200"), scan("502")), (Some(2), Some(2)), "{text}");
        assert_eq!(count("{http_request_method=\"GET\",http_response_status_code=\"401\"}"), Some(1));
        assert_eq!(count(""), Some(MAX_SERIES + 3), "beyond the bound without labels");
    }

    #[test]
    fn a_method_of_a_clients_own_is_other() {
        let made_up = Method::from_bytes(b"BREW").expect("a token");
        assert_eq!((method_of(&Method::PATCH), method_of(&made_up)), ("PATCH", "_OTHER"));
    }
}
