//! What would be sent, without sending it.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Result;

use super::Order;
use crate::{
    measure::Labels,
    shape::{Curve, Form, Piece, draw},
};

/// Longest schedule that is drawn second by second.
const MAX_SECONDS: usize = 40_000_000;
/// A synthetic schedule with more requests than this is drawn from its curve alone.
const COUNTED: f64 = 20_000_000.0;

/// The picture and the totals.
pub(crate) fn dry_run(order: &Order) -> Result<String> {
    let mut out = String::new();
    let curve = order.curve()?;
    if let (None, Some(curve)) = (&order.trace, &curve)
        && curve.total() > COUNTED
    {
        out.push_str(&draw(curve, "requests/s"));
        let _ = writeln!(out, "{:.0} requests in {:.1} s, peak {:.1}/s", curve.total(), curve.seconds(), curve.peak());
        return Ok(out);
    }
    let labels = Labels::default();
    let (schedule, _) = order.schedule(&labels)?;
    let mut seconds: Vec<u32> = Vec::new();
    let (mut total, mut last_ns) = (0u64, 0);
    let mut routes: BTreeMap<String, u64> = BTreeMap::new();
    let mut tiers: BTreeMap<String, u64> = BTreeMap::new();
    let mut keys = std::collections::HashSet::new();
    for arrival in schedule {
        let arrival = arrival?;
        let second = usize::try_from(arrival.due_ns / 1_000_000_000).unwrap_or(usize::MAX);
        if second < MAX_SECONDS {
            if seconds.len() <= second {
                seconds.resize(second + 1, 0);
            }
            seconds[second] += 1;
        }
        total += 1;
        last_ns = arrival.due_ns;
        keys.insert(arrival.principal.number);
        *tiers.entry(labels.name(arrival.principal.tier)).or_default() += 1;
        let route = format!("{} {}", arrival.spec.method, first_segments(arrival.spec.uri.path()));
        if routes.len() < 1_000 || routes.contains_key(&route) {
            *routes.entry(route).or_default() += 1;
        }
    }
    let by_second = Curve::new(seconds.iter().map(|count| {
        let rate = f64::from(*count);
        Piece { seconds: 1.0, form: Form::Linear { from: rate, to: rate } }
    }));
    // The planned curve is smoother than the counts of seconds; a trace has only these.
    let picture = curve.filter(|_| order.trace.is_none()).unwrap_or(by_second);
    out.push_str(&draw(&picture, "requests/s"));
    let peak = seconds.iter().max().copied().unwrap_or(0);
    let length = picture.seconds().max(last_ns as f64 / 1e9);
    let _ = writeln!(
        out,
        "{total} requests in {length:.1} s: mean {:.1}/s, peak second {peak}, {} keys",
        total as f64 / length.max(1e-9),
        keys.len()
    );
    let mut routes: Vec<(String, u64)> = routes.into_iter().collect();
    routes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (name, count) in routes.iter().take(10) {
        let _ = writeln!(out, "  {:>6.2}%  {count:>10}  {name}", *count as f64 / total.max(1) as f64 * 100.0);
    }
    if tiers.len() > 1 {
        for (name, count) in &tiers {
            let _ = writeln!(out, "  {:>6.2}%  {count:>10}  tier {name}", *count as f64 / total.max(1) as f64 * 100.0);
        }
    }
    Ok(out)
}

/// The first two parts of a path: what follows is mostly an id.
fn first_segments(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).take(3).collect();
    match parts.as_slice() {
        [first, second, _] => format!("/{first}/{second}/…"),
        parts => format!("/{}", parts.join("/")),
    }
}
