//! Over- and under-admission by rate limits and concurrency.

use std::collections::{BTreeMap, HashMap};

use super::{
    Verdict,
    policy::{Limit, Policies},
    row::Row,
    window,
};

/// Judges every limit of every account.
pub(crate) fn judge(rows: &[Row], policies: &BTreeMap<String, Policies>, slack_us: i64, verdict: &mut Verdict) {
    for (account, policies) in policies {
        // Rows that another tier decided are not this tier's.
        let own: Vec<&Row> =
            rows.iter().filter(|row| *row.account == **account && *row.tier == *policies.tier).collect();
        for limit in &policies.limits {
            verdict.limits_judged += 1;
            for (scope, rows) in scopes(&own, limit) {
                let admitted: Vec<(i64, i64)> =
                    rows.iter().filter(|row| row.is_admitted()).map(|row| (row.ts_us, row.admitted_by_us())).collect();
                if let Some(excess) = window::worst(&admitted, limit.burst, limit.per_us, slack_us) {
                    let what = format!(
                        "limit {:?} ({}, burst {}) of {scope}: {} admitted from {} to {} ({:.3} s), at most {:.1} may be",
                        limit.name,
                        limit.rate,
                        limit.burst,
                        excess.admitted,
                        time(excess.from_us),
                        time(excess.to_us),
                        (excess.to_us - excess.from_us) as f64 / 1e6,
                        excess.allowed
                    );
                    // A part of a unit too much is an admission too many.
                    verdict.note_over((excess.most.ceil() as u64).max(1), excess.to_us, &what);
                }
            }
        }
        under_admitted(&own, policies, verdict);
        if let Some(most) = policies.concurrency {
            concurrency(account, &own, most, verdict);
        }
    }
}

/// The rows of each thing that a limit counts apart.
fn scopes<'a>(rows: &[&'a Row], limit: &Limit) -> HashMap<String, Vec<&'a Row>> {
    let mut scopes: HashMap<String, Vec<&Row>> = HashMap::new();
    for row in rows {
        scopes.entry(scope(row, limit)).or_default().push(row);
    }
    scopes
}

fn scope(row: &Row, limit: &Limit) -> String {
    let part = |name: &String| match name.as_str() {
        "key" => format!("key {}", row.key),
        "route" => format!("route {}", row.route),
        _ => format!("account {}", row.account),
    };
    if limit.per.is_empty() {
        format!("account {}", row.account)
    } else {
        limit.per.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

/// More at once than may be. A request was certainly under way from the latest instant at which its upstream call can have
/// begun to the earliest at which that can have ended.
fn concurrency(account: &str, rows: &[&Row], most: u64, verdict: &mut Verdict) {
    let mut changes: Vec<(i64, i64)> = Vec::new();
    for row in rows.iter().filter(|row| row.is_admitted()) {
        let (from, to) = (row.admitted_by_us(), row.ts_us + row.upstream_us);
        if from < to {
            changes.extend([(from, 1), (to, -1)]);
        }
    }
    // An end before a start of the same instant.
    changes.sort_unstable();
    let (mut now, mut worst, mut at) = (0i64, 0i64, 0);
    for (time, change) in changes {
        now += change;
        if now > worst {
            (worst, at) = (now, time);
        }
    }
    let worst = worst.unsigned_abs();
    if worst > most {
        let what = format!("concurrency of account {account}: {worst} at once at {}, at most {most} may be", time(at));
        verdict.note_over(worst - most, at, &what);
    }
}

/// Refused by a rate although, by the rows, every limit of the request had units left at that time, counting each admission
/// as late as it can have been. A refusal that counts takes the unit that it should have had: ten of them beside two units
/// are two.
fn under_admitted(rows: &[&Row], policies: &Policies, verdict: &mut Verdict) {
    if policies.limits.is_empty() {
        return;
    }
    let mut levels: HashMap<(usize, String), Level> = HashMap::new();
    for (at, event, row) in events(rows) {
        let keys = || policies.limits.iter().enumerate().map(|(n, limit)| ((n, scope(row, limit)), limit));
        let mut least = f64::INFINITY;
        for (key, limit) in keys() {
            let level = levels.entry(key).or_insert(Level { units: limit.burst, at, under_way: 0.0 });
            level.advance(at, limit);
            match event {
                // May have taken its unit already.
                Event::Arrives => level.under_way += 1.0,
                Event::Admitted => {
                    level.under_way -= 1.0;
                    level.units -= 1.0;
                }
                Event::Refused => least = least.min(level.units - level.under_way),
            }
        }
        if matches!(event, Event::Refused) && least >= 1.0 {
            for (key, _) in keys() {
                levels.entry(key).and_modify(|level| level.units -= 1.0);
            }
            verdict.note_under(1, least, row.ts_us, &format!("{} of key {}", row.outcome, row.key));
        }
    }
}

/// Units of a limit that are certainly left.
struct Level {
    units: f64,
    at: i64,
    /// Requests that may have taken their unit, or not yet.
    under_way: f64,
}

impl Level {
    fn advance(&mut self, at: i64, limit: &Limit) {
        self.units = (self.units + limit.per_us * (at - self.at) as f64).min(limit.burst);
        self.at = at;
    }
}

/// What happens to a limit's units.
#[derive(Clone, Copy)]
enum Event {
    Arrives,
    Admitted,
    Refused,
}

/// In the order of their times.
fn events<'a>(rows: &[&'a Row]) -> Vec<(i64, Event, &'a Row)> {
    let mut events: Vec<(i64, Event, &Row)> = Vec::new();
    for row in rows {
        if row.is_admitted() {
            events.push((row.ts_us, Event::Arrives, row));
            events.push((row.admitted_by_us(), Event::Admitted, row));
        } else if *row.outcome == *"rate-limited" && !row.is_coalesced() {
            events.push((row.ts_us, Event::Refused, row));
        }
    }
    events.sort_by_key(|(at, event, _)| (*at, *event as u8));
    events
}

fn time(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map(|time| time.to_string()).unwrap_or_default()
}

/// For rows that are made in tests.
#[cfg(test)]
fn made(ts_us: i64, outcome: &str) -> Row {
    let text = |text: &str| std::sync::Arc::<str>::from(text);
    Row {
        id: ts_us as u128 + 1,
        ts_us,
        duration_us: 1_000,
        upstream_us: 1_000,
        account: text("acme"),
        key: text("key"),
        tier: text("free"),
        outcome: text(outcome),
        count: 1,
        ..Row::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies() -> BTreeMap<String, Policies> {
        let limit = Limit { name: "l".into(), per: vec!["key".into()], per_us: 5e-6, rate: "5/s".into(), burst: 3.0 };
        let policies = Policies { tier: "free".into(), limits: vec![limit], quotas: vec![], concurrency: Some(4) };
        BTreeMap::from([("acme".to_owned(), policies)])
    }

    #[test]
    fn one_too_many_is_found_and_what_may_be_is_not() {
        let mut rows: Vec<Row> = (0..3).map(|n| made(n, "admitted")).collect();
        rows.extend((1..20).map(|n| made(n * 200_000 + 10, "admitted")));
        let judged = |rows: &[Row]| {
            let mut verdict = Verdict::default();
            judge(rows, &policies(), 0, &mut verdict);
            verdict
        };
        assert_eq!(judged(&rows).over_admitted, 0);
        rows.push(made(300_000, "admitted"));
        let verdict = judged(&rows);
        assert_eq!(verdict.over_admitted, 1);
        assert!(verdict.findings[0].what.contains("key key: 5 admitted"), "{:?}", verdict.findings);
    }

    #[test]
    fn more_at_once_than_may_be_is_found() {
        let slow = |n: i64| Row { duration_us: 100_000, upstream_us: 99_000, ..made(n * 10_000_000 / 10, "admitted") };
        let mut rows: Vec<Row> = (0..4).map(|_| slow(0)).collect();
        let judged = |rows: &[Row]| {
            let mut verdict = Verdict::default();
            concurrency("acme", &rows.iter().collect::<Vec<_>>(), 4, &mut verdict);
            verdict.over_admitted
        };
        assert_eq!(judged(&rows), 0);
        rows.push(Row { ts_us: 50_000, ..slow(0) });
        assert_eq!(judged(&rows), 1);
        rows[4].ts_us = 99_000;
        assert_eq!(judged(&rows), 0);
    }

    #[test]
    fn many_refusals_beside_few_units_count_as_the_units() {
        let mut rows = vec![made(0, "admitted")];
        rows.extend((10..20).map(|n| made(n, "rate-limited")));
        let mut verdict = Verdict::default();
        judge(&rows, &policies(), 0, &mut verdict);
        assert_eq!(verdict.under_admitted, 2);
    }

    #[test]
    fn a_refusal_with_units_left_is_a_figure() {
        let rows = vec![
            made(0, "admitted"),
            made(10, "rate-limited"),
            made(20, "admitted"),
            made(30, "admitted"),
            made(5_000, "rate-limited"),
        ];
        let mut verdict = Verdict::default();
        judge(&rows, &policies(), 0, &mut verdict);
        assert_eq!((verdict.under_admitted, verdict.over_admitted), (1, 0));
        assert!(verdict.findings.iter().all(|finding| !finding.fails), "{:?}", verdict.findings);
    }
}
