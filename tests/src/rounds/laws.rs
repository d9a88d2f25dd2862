//! The laws, from outside: what clients saw, and what rows say. Each holds for every history that keeps the promise, however
//! slow the machine, because of an answered request only this is used: it was admitted between its send and its answer.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::Received;

/// The clock of a bucket may be fast by one part in so many.
const DRIFT: f64 = 1e-3;

/// P1: every answered id has its row, none has two. `answered` are those whose rows are promised; the rows lost, and the
/// ids that are there twice.
pub fn rows<'a>(answered: impl Iterator<Item = &'a Received>, rows: &[Value]) -> (Vec<String>, Vec<String>) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for id in rows.iter().filter_map(|row| row["request_id"].as_str()) {
        *seen.entry(id).or_default() += 1;
    }
    let lost = answered.filter(|answer| !seen.contains_key(answer.id.as_str()));
    let lost = lost.map(|answer| format!("{} ({} of node {})", answer.id, answer.status, answer.target + 1)).collect();
    let twice = seen.iter().filter(|(_, count)| **count > 1).map(|(id, _)| (*id).to_owned()).collect();
    (lost, twice)
}

/// P2 for rates: in any window of `t` seconds at most `burst + rate * t` are admitted. A request whose send and answer are
/// in a window was admitted in it. How many too many, and where.
pub fn rate(admitted: &[(Instant, Instant)], per_second: f64, burst: f64) -> Option<(u64, String)> {
    let mut by_end = admitted.to_vec();
    by_end.sort_unstable_by_key(|(_, answered)| *answered);
    let mut worst: Option<(u64, String)> = None;
    for (from, _) in admitted {
        let mut count = 0.0;
        for (_, answered) in by_end.iter().filter(|(sent, _)| sent >= from) {
            count += 1.0;
            let window = answered.duration_since(*from).as_secs_f64();
            let allowed = burst + per_second * window * (1.0 + DRIFT);
            let over = (count - allowed - 1e-6).ceil().max(0.0) as u64;
            if over > worst.as_ref().map_or(0, |(over, _)| *over) {
                worst = Some((over, format!("{count} in {window:.3} s, at most {allowed:.2} are allowed")));
            }
        }
    }
    worst
}

/// P2 for concurrency: whoever was answered after an upstream that takes `takes` was under way from `takes` before its
/// answer to `takes` after its send, if these overlap. The most at once.
pub fn at_once(admitted: &[(Instant, Instant)], takes: Duration) -> usize {
    let mut changes: BTreeMap<Instant, i64> = BTreeMap::new();
    for (sent, answered) in admitted {
        let (Some(from), until) = (answered.checked_sub(takes), *sent + takes) else { continue };
        if from < until {
            *changes.entry(from).or_default() += 1;
            *changes.entry(until).or_default() -= 1;
        }
    }
    let (mut now, mut most) = (0, 0);
    for change in changes.values() {
        now += change;
        most = most.max(now);
    }
    usize::try_from(most).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answers(times_ms: &[(u64, u64)]) -> Vec<(Instant, Instant)> {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        times_ms.iter().map(|(sent, answered)| (at(*sent), at(*answered))).collect()
    }

    #[test]
    fn one_admitted_too_many_is_seen_and_a_full_burst_is_none() {
        // 10 a second, burst 2.
        let kept = answers(&[(0, 1), (0, 2), (100, 101), (200, 203), (300, 301)]);
        assert_eq!(rate(&kept, 10.0, 2.0), None);
        let broken = answers(&[(0, 1), (0, 2), (3, 5), (100, 101)]);
        assert_eq!(rate(&broken, 10.0, 2.0).expect("three in 5 ms").0, 1);
        // Nobody can tell when a slow one was admitted.
        let slow = answers(&[(0, 1), (0, 2), (3, 400), (100, 101)]);
        assert_eq!(rate(&slow, 10.0, 2.0), None);
    }

    #[test]
    fn requests_that_were_surely_under_way_together_are_counted() {
        let takes = Duration::from_millis(100);
        assert_eq!(at_once(&answers(&[(0, 101), (50, 152), (101, 203)]), takes), 2);
        assert_eq!(at_once(&answers(&[(0, 101), (50, 152), (90, 192)]), takes), 3);
        // Too slow to tell.
        assert_eq!(at_once(&answers(&[(0, 300), (50, 250), (90, 300)]), takes), 0);
    }

    #[test]
    fn a_lost_and_a_doubled_row_are_seen() {
        let now = Instant::now();
        let answer = |id: &str| Received {
            target: 0,
            id: id.to_owned(),
            status: 200,
            code: String::new(),
            detail: String::new(),
            at: now,
            took: Duration::ZERO,
        };
        let row = |id: &str| json!({ "request_id": id });
        let answered = [answer("a"), answer("b")];
        assert_eq!(rows(answered.iter(), &[row("a"), row("b")]), (vec![], vec![]));
        let (lost, twice) = rows(answered.iter(), &[row("a"), row("c"), row("c")]);
        assert_eq!((lost.len(), twice), (1, vec!["c".to_owned()]));
    }
}
