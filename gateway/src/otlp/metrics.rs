//! The metrics of `/metrics` as OTLP has them, read from the text (Prometheus' format 0.0.4) that this process itself has made.
//!
//! A line that is not understood is left out: better one metric less than none.
//!
//! Read here because nothing that is kept does it: `prometheus-parse` parts labels at commas and braces inside of their values and
//! brings a regex engine and a calendar, `openmetrics-parser` has a licence that binaries linked with it would have to follow, and the
//! exporter's own protobuf needs `protoc` to build and knows nothing of the store's numbers.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum, metric::Data,
        number_data_point::Value,
    },
};

use super::encode::attribute;

/// The instants that cumulative values are of, nanoseconds of Unix time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) now: u64,
}

/// A histogram's series while its lines are read.
#[derive(Debug, Default)]
struct Series {
    /// Upper bound and count of all below; the last bound is infinite.
    buckets: Vec<(f64, u64)>,
    sum: f64,
    count: u64,
}

/// A metric while its lines are read.
#[derive(Debug, Default)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    numbers: Vec<(Vec<(String, String)>, f64)>,
    histograms: BTreeMap<Vec<(String, String)>, Series>,
}

/// Reads the text.
pub(super) fn read(text: &str, span: Span) -> Vec<Metric> {
    let mut found = Vec::new();
    let mut family = Family::default();
    // Help may stand before the kind, and is of the metric that it names.
    let mut help = ("", "");
    for line in text.lines() {
        if let Some((name, text)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = (name, text);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            found.extend(family.finish(span));
            family = Family { name, kind, help: if help.0 == name { help.1 } else { "" }, ..Family::default() };
        } else if !line.starts_with('#') && !line.is_empty() {
            family.sample(line);
        }
    }
    found.extend(family.finish(span));
    found
}

impl Family<'_> {
    fn sample(&mut self, line: &str) -> Option<()> {
        let (series, value) = line.rsplit_once(' ')?;
        let value: f64 = value.parse().ok()?;
        let (name, mut labels) = match series.split_once('{') {
            None => (series, Vec::new()),
            Some((name, rest)) => (name, labels(rest)?),
        };
        let part = name.strip_prefix(self.name)?;
        if self.kind != "histogram" {
            if part.is_empty() {
                self.numbers.push((labels, value));
            }
            return Some(());
        }
        let bound = labels.iter().position(|(key, _)| key == "le").map(|at| labels.remove(at).1);
        let series = self.histograms.entry(labels).or_default();
        match (part, bound) {
            ("_bucket", Some(bound)) => series.buckets.push((bound.parse().ok()?, whole(value))),
            ("_sum", None) => series.sum = value,
            ("_count", None) => series.count = whole(value),
            _ => {}
        }
        Some(())
    }

    fn finish(self, span: Span) -> Option<Metric> {
        let monotonic = self.kind == "counter";
        let numbers = self.numbers.into_iter().map(|(labels, value)| NumberDataPoint {
            attributes: attributes(&labels),
            start_time_unix_nano: if monotonic { span.start } else { 0 },
            time_unix_nano: span.now,
            value: Some(Value::AsDouble(value)),
            ..NumberDataPoint::default()
        });
        let cumulative = AggregationTemporality::Cumulative as i32;
        let data = match self.kind {
            "counter" => Data::Sum(Sum {
                data_points: numbers.collect(),
                aggregation_temporality: cumulative,
                is_monotonic: true,
            }),
            "gauge" => Data::Gauge(Gauge { data_points: numbers.collect() }),
            "histogram" => Data::Histogram(Histogram {
                data_points: self.histograms.into_iter().map(|(labels, series)| series.point(&labels, span)).collect(),
                aggregation_temporality: cumulative,
            }),
            _ => return None,
        };
        let unit = if self.name.ends_with("_seconds") || self.name.ends_with("_seconds_total") {
            "s"
        } else if self.name.ends_with("_bytes") || self.name.ends_with("_bytes_total") {
            "By"
        } else {
            "1"
        };
        Some(Metric {
            name: self.name.to_owned(),
            description: self.help.to_owned(),
            unit: unit.to_owned(),
            data: Some(data),
            ..Metric::default()
        })
    }
}

impl Series {
    /// OTLP counts each bucket alone, Prometheus all below a bound.
    fn point(mut self, labels: &[(String, String)], span: Span) -> HistogramDataPoint {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let below = self.buckets.iter().map(|(_, count)| *count);
        let counts =
            std::iter::once(0).chain(below.clone()).zip(below).map(|(lower, upper)| upper.saturating_sub(lower));
        HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: span.start,
            time_unix_nano: span.now,
            count: self.count,
            sum: Some(self.sum),
            bucket_counts: counts.collect(),
            explicit_bounds: self.buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite()).collect(),
            ..HistogramDataPoint::default()
        }
    }
}

fn attributes(labels: &[(String, String)]) -> Vec<KeyValue> {
    labels.iter().map(|(key, value)| attribute(key, value.as_str())).collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts; a cast of a float saturates")]
fn whole(value: f64) -> u64 {
    value as u64
}

/// `key="value",…}`, with `\\`, `\"` and `\n` in values.
fn labels(mut rest: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if rest == "}" {
            return Some(found);
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        rest = loop {
            match chars.next()? {
                (at, '"') => break &after[at + 1..],
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        found.push((key.to_owned(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Span = Span { start: 1, now: 2 };

    #[test]
    fn counters_gauges_and_histograms_keep_their_values_labels_and_bounds() {
        let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total{of=\"x\\\"y\\\\\",by=\"}\"} 3\na_total 4\n\n\
                    # TYPE b_bytes gauge\nb_bytes 1.5\n\
                    # HELP c_seconds Times.\n# TYPE c_seconds histogram\n\
                    c_seconds_bucket{le=\"0.1\"} 2\nc_seconds_bucket{le=\"1\"} 5\nc_seconds_bucket{le=\"+Inf\"} 6\n\
                    c_seconds_sum 7.5\nc_seconds_count 6\n";
        let metrics = read(text, AT);
        assert_eq!(
            metrics.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
            ["a_total", "b_bytes", "c_seconds"]
        );
        assert_eq!(metrics.iter().map(|one| one.unit.as_str()).collect::<Vec<_>>(), ["1", "By", "s"]);
        assert_eq!(metrics[0].description, "Things.");
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
        assert_eq!(sum.data_points[0].attributes, [attribute("of", "x\"y\\"), attribute("by", "}")]);
        assert_eq!(sum.data_points[1].value, Some(Value::AsDouble(4.0)));
        let Some(Data::Gauge(gauge)) = &metrics[1].data else { panic!("{:?}", metrics[1]) };
        assert_eq!(gauge.data_points[0].value, Some(Value::AsDouble(1.5)));
        let Some(Data::Histogram(histogram)) = &metrics[2].data else { panic!("{:?}", metrics[2]) };
        let point = &histogram.data_points[0];
        assert_eq!(
            (point.bucket_counts.as_slice(), point.explicit_bounds.as_slice()),
            (&[2, 3, 1][..], &[0.1, 1.0][..])
        );
        assert_eq!((point.count, point.sum), (6, Some(7.5)));
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        let text = "x 1\n# TYPE\n# TYPE a gauge\na{\na{b=\"\na one\nb 2\na{b=\"\\\n \na 1\n# TYPE c strange\nc 1\n";
        let metrics = read(text, AT);
        let [Metric { data: Some(Data::Gauge(gauge)), .. }] = &metrics[..] else { panic!("{metrics:?}") };
        assert_eq!(gauge.data_points.len(), 1);
    }
}
