//! Usage is the sum over the rows, however it is cut and wherever it lies.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    model::UsageCounters,
    state::{UsageBy, UsageQuery, UsageStep},
};

fn arbitrary_row() -> impl Strategy<Value = Row> {
    (0u64..1 << 40, 0i64..200_000, 0u8..3, 0u8..4, 0usize..4, 1u32..5, 0u64..5_000, any::<(bool, bool)>()).prop_map(
        |(number, second, account, key, kind, count, size, (open, settles))| Row {
            account: ["acme", "b", "b2"][usize::from(account)].into(),
            key_id: format!("key_{key}").as_str().into(),
            route: ["scan", "other", "", "scan2"][kind].into(),
            status: [200, 503, 429, 404][kind],
            outcome: [Outcome::Admitted, Outcome::UpstreamTimeout, Outcome::RateLimited, Outcome::NoRoute][kind],
            count,
            bytes_in: size,
            bytes_out: size * 2,
            cost: size % 7,
            duration_us: size * size,
            completion: if open && !settles { Completion::Open } else { Completion::Complete },
            settles,
            ..row(number, at(second))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn usage_equals_the_sum_over_the_rows(
        batches in prop::collection::vec((prop::collection::vec(arbitrary_row(), 1..30), any::<bool>()), 1..12),
        account in 0usize..3,
        step in 0usize..3,
        by in 0usize..4,
        since in 0i64..200_000,
        length in 0i64..200_000,
    ) {
        let mut rig = Rig::new(GroupId::LEDGER);
        for ((rows, checkpoint), batch) in batches.iter().zip(1..) {
            rig.rows(batch, rows);
            if *checkpoint {
                rig.checkpoint();
            }
        }
        let account = ["acme", "b", "b2"][account];
        let (step, width) = [(UsageStep::Minute, 60), (UsageStep::Hour, 3_600), (UsageStep::Day, 86_400)][step];
        let by = [None, Some(UsageBy::Route), Some(UsageBy::Key), Some(UsageBy::Status)][by];
        let (from, to) = (at(since), at(since + length));
        let start = |ts: Timestamp, width: i64| Timestamp::from_unix_seconds(ts.unix_seconds() / width * width);
        let mut sums: BTreeMap<(Timestamp, Option<String>), (UsageCounters, Vec<u64>)> = BTreeMap::new();
        for row in batches.iter().flat_map(|(rows, _)| rows).filter(|row| row.account.as_str() == account) {
            if row.ts >= start(from, width) && start(row.ts, 60) < to {
                let group = by.map(|by| match by {
                    UsageBy::Route => row.route.to_string(),
                    UsageBy::Key => row.key_id.to_string(),
                    UsageBy::Status => row.status.to_string(),
                });
                let sum = sums.entry((start(row.ts, width), group)).or_default();
                sum.0.add(row);
                if row.completion != Completion::Open {
                    sum.1.push(row.duration_us);
                }
            }
        }
        let query = UsageQuery { account: account.into(), since: from, until: to, step, by };
        let points = rig.state().usage(&query).expect("usage");
        prop_assert_eq!(points.len(), sums.len());
        for (point, ((start, group), (counters, mut durations))) in points.iter().zip(sums) {
            prop_assert_eq!((point.start, &point.group, point.counters), (start, &group, counters));
            durations.sort_unstable();
            for (q, found) in [(0.5, point.p50_us), (0.95, point.p95_us), (0.99, point.p99_us)] {
                let exact = durations.get((q * durations.len().saturating_sub(1) as f64) as usize).copied().unwrap_or(0);
                prop_assert!(found.abs_diff(exact) <= exact / 100 + 1, "{q}: {found}, exactly {exact}");
            }
        }
        let mut last: BTreeMap<String, Timestamp> = BTreeMap::new();
        for row in batches.iter().flat_map(|(rows, _)| rows).filter(|row| row.account.as_str() == account) {
            let used = last.entry(row.key_id.to_string()).or_default();
            *used = start(row.ts, 60).max(*used);
        }
        for key in ["key_0", "key_1", "key_2", "key_3", "key_"] {
            let used = rig.state().key_last_used(&account.into(), &key.into()).expect("read");
            prop_assert_eq!(used, last.get(key).copied());
        }
    }
}
