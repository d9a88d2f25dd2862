//! Overrides, resets, shadows, and the calendar.

use super::*;
use crate::model::{Overage, Period};

fn limit(name: &str, rate: &str, expires_at: Option<Timestamp>) -> Limit {
    Limit {
        name: name.into(),
        per: vec![Dimension::Route, Dimension::Key, Dimension::Route],
        rate: rate.parse().expect("a rate"),
        burst: 3,
        expires_at,
        shadow: false,
    }
}

fn quota(name: &str, limit: u64, expires_at: Option<Timestamp>) -> Quota {
    Quota {
        name: name.into(),
        unit: Unit::Requests,
        limit,
        period: Period::Day,
        timezone: "Europe/Berlin".into(),
        overage: Overage::Block,
        expires_at,
        anchor_day: None,
        thresholds: None,
        shadow: false,
    }
}

#[test]
fn overrides_replace_by_name_or_add_and_end_at_their_time() {
    let end = Timestamp::from_unix_seconds(1_000);
    let tier = Tier {
        limits: vec![limit("a", "5/s", None), limit("b", "6/s", None)],
        quotas: vec![quota("daily", 10, None)],
        revision: 7,
        ..Tier::default()
    };
    let overrides = Overrides {
        limits: vec![limit("b", "60/s", Some(end)), limit("c", "1/s", Some(end))],
        quotas: vec![quota("daily", 100, Some(end)), quota("other", 1, None)],
    };
    let policies = Policies::compile(&tier, Some(&overrides), 9);
    let at = |seconds| {
        let now = Timestamp::from_unix_seconds(seconds);
        let limits: Vec<_> = policies.limits_at(now).map(|p| format!("{} {}", p.limit.name, p.limit.rate)).collect();
        let quotas: Vec<_> = policies.quotas_at(now).map(|p| format!("{} {}", p.name, p.limit)).collect();
        (limits.join(", "), quotas.join(", "))
    };
    assert_eq!(at(999), ("a 5/s, b 60/s, c 1/s".into(), "daily 100, other 1".into()));
    assert_eq!(at(1_000), ("a 5/s, b 6/s".into(), "daily 10, other 1".into()));
    assert_eq!(policies.revision, 9);
}

#[test]
fn a_changed_rate_keeps_the_bucket_and_other_dimensions_have_another() {
    let compiled = |limit: &Limit| LimitPolicy::new(limit, 0, Source::Tier);
    let (old, new) = (compiled(&limit("a", "5/s", None)), compiled(&limit("a", "1/s", None)));
    assert_eq!(old.bucket(1, 2, 3), new.bucket(1, 2, 3));
    for (account, key, route) in [(9, 2, 3), (1, 9, 3), (1, 2, 9)] {
        assert_ne!(old.bucket(1, 2, 3), old.bucket(account, key, route));
    }
    let per_account = compiled(&Limit { per: vec![Dimension::Account], ..limit("a", "5/s", None) });
    assert_eq!(per_account.bucket(1, 2, 3), per_account.bucket(1, 8, 9));
    assert_ne!(per_account.fingerprint, old.fingerprint);
}

#[test]
fn a_keys_own_policies_replace_by_name_count_alone_and_end_at_their_time() {
    let end = Timestamp::from_unix_seconds(1_000);
    let tier =
        Tier { limits: vec![limit("a", "5/s", None)], quotas: vec![quota("daily", 10, None)], ..Tier::default() };
    let base = Policies::compile(&tier, None, 3);
    let own = Overrides { limits: vec![limit("a", "9/s", Some(end))], quotas: vec![quota("daily", 7, Some(end))] };
    let of_key = |id: &str| base.of_key(&id.into(), &own, 8);
    let (one, two) = (of_key("key_1"), of_key("key_2"));
    let before = Timestamp::from_unix_seconds(999);
    let limit_of = |policies: &Policies, now| {
        let policy = policies.limits_at(now).next().expect("it has one");
        (policy.limit.rate.units, policy.source, policy.revision, policy.bucket(1, 2, 3))
    };
    let (shared, first, second) = (limit_of(&base, before), limit_of(&one, before), limit_of(&two, before));
    assert_eq!((first.0, first.1, first.2), (9, Source::Key, 8));
    assert!(first.3 != shared.3 && first.3 != second.3, "each its own bucket");
    assert_eq!(limit_of(&one, end), shared, "what it replaced is in force again");
    let counter = |policies: &Policies, now| policies.quotas_at(now).next().expect("it has one").counter.clone();
    assert_ne!(counter(&one, before), counter(&two, before));
    assert_eq!(counter(&one, end), counter(&base, before));
}

#[test]
fn a_reset_begins_anew_for_the_policy_that_it_names_alone() {
    let tier = Tier {
        limits: vec![limit("a", "5/s", None), limit("b", "5/s", None)],
        quotas: vec![quota("daily", 10, None)],
        ..Tier::default()
    };
    let names = |resets: &[(&str, u32)]| {
        let reset = |(policy, count): &(&str, u32)| Reset { policy: (*policy).into(), count: *count, at: Timestamp(0) };
        let resets: Vec<Reset> = resets.iter().map(reset).collect();
        let policies = Policies::compile_reset(&tier, None, &resets, 0);
        let buckets: Vec<u64> = policies.limits.iter().map(|policy| policy.bucket(1, 2, 3)).collect();
        (buckets, policies.quotas[0].counter.clone())
    };
    let (never, once, twice) = (names(&[]), names(&[("a", 1)]), names(&[("a", 2), ("daily", 1)]));
    assert!(never.0[0] != once.0[0] && once.0[0] != twice.0[0] && never.0[0] != twice.0[0]);
    assert_eq!((never.0[1], &never.1), (twice.0[1], &once.1));
    assert_ne!(never.1, twice.1);
}

#[test]
fn shadows_are_not_among_what_may_refuse() {
    let shadow = Limit { shadow: true, ..limit("s", "1/s", None) };
    let tier = Tier {
        limits: vec![limit("a", "5/s", None), shadow],
        quotas: vec![Quota { shadow: true, ..quota("q", 1, None) }],
        ..Tier::default()
    };
    let policies = Policies::compile(&tier, None, 0);
    let now = Timestamp(0);
    assert_eq!(policies.limits_at(now).map(|policy| policy.limit.name.to_string()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(policies.shadow_limits_at(now).map(|p| p.limit.name.to_string()).collect::<Vec<_>>(), ["s"]);
    let quota = policies.quotas_at(now).next().expect("it is counted");
    assert_eq!((quota.overage, quota.shadow), (Overage::Allow, true));
    assert_eq!(policies.setting("s", now).as_str(), "1/s burst 3");
    assert_eq!(policies.setting("q", now).as_str(), "1/day");
}

#[test]
fn remembered_bounds_are_the_calendars() {
    let policy = QuotaPolicy::new(&quota("daily", 1, None), 0, Source::Tier, None);
    // Two days around each daylight-saving change of Europe/Berlin in 2026, hour by hour, twice.
    for first in ["2026-03-28T00:30:00Z", "2026-10-24T00:30:00Z"] {
        let first: Timestamp = first.parse().expect("a time");
        for hour in (0..72).chain((0..72).rev()) {
            let at = first.plus_seconds(hour * 3_600);
            assert_eq!(Ok(policy.bounds(at)), Period::Day.bounds_in(&policy.zone, at));
        }
    }
    let before_1970 = Timestamp::from_unix_seconds(-5);
    assert_eq!(Ok(policy.bounds(before_1970)), Period::Day.bounds_in(&policy.zone, before_1970));
    assert_eq!(policy.bounds(Timestamp(i64::MAX)).end, Timestamp(i64::MAX));
}
