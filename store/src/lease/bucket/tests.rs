use super::*;
use crate::model::Rate;

fn wanted(name: u64, rate: &str, burst: u64) -> Wanted {
    let gcra = Gcra::new(rate.parse::<Rate>().expect("a rate"), burst);
    Wanted { name, emission_ns: gcra.emission_ns, capacity_ns: gcra.capacity_ns, revision: 1, since_ns: 0 }
}

fn shards() -> &'static Shards {
    Box::leak(Box::new(Shards::new(std::sync::Arc::new(|_| debt::Newest::default()))))
}

fn buckets(empty_at_ns: Option<u64>) -> Buckets<'static> {
    shards().of(1, empty_at_ns)
}

const NOW: u64 = 1_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

#[test]
fn what_has_refilled_since_a_unit_was_taken_is_not_given_back_again() {
    let (buckets, one) = (buckets(None), wanted(1, "1/s", 1));
    let take = |now| buckets.take_all([one].iter(), now).map(|_| ());
    take(NOW).expect("full");
    take(NOW + SECOND).expect("full again");
    buckets.give_back(&one, NOW, NOW + SECOND);
    take(NOW + SECOND).expect_err("two within no time would be more than the burst");
    buckets.give_back(&one, NOW + SECOND, NOW + SECOND);
    take(NOW + SECOND).expect("at once, all of it comes back");
}

#[test]
fn a_unit_taken_under_another_limit_does_not_come_back() {
    let (buckets, many) = (buckets(None), wanted(1, "100/s", 100));
    for _ in 0..100 {
        buckets.take_all([many].iter(), NOW).expect("full");
    }
    let few = Wanted { revision: 2, ..wanted(1, "1/s", 1) };
    buckets.take_all([few].iter(), NOW).expect_err("a hundred were taken, one is allowed");
    buckets.give_back(&many, NOW, NOW);
    buckets.take_all([few].iter(), NOW).expect_err("99 were let through");
    // Nor what was to be taken beside a limit that refuses.
    let other = wanted(2, "1/s", 1);
    buckets.take_all([other].iter(), NOW).expect("full");
    buckets.take_all([few, other].iter(), NOW + SECOND).expect("refilled");
    buckets.take_all([many, other].iter(), NOW + SECOND).expect_err("both are empty");
    buckets.take_all([few].iter(), NOW + SECOND).expect_err("nothing came back");
}

#[test]
fn units_out_count_against_the_burst_until_they_are_settled() {
    let (buckets, one) = (buckets(None), wanted(1, "2/s", 2));
    buckets.lend_all([one].iter(), NOW).expect("full");
    // The bucket has not been spent from, yet it never has more than the burst with what is out.
    let later = NOW + 10 * SECOND;
    buckets.take_all([one].iter(), later).expect("the other");
    assert_eq!(buckets.take_all([one].iter(), later).map(|_| ()), Err(Short::Refused));
    // Spent a moment ago: its time runs from then.
    buckets.settle(1, 1, 0, later - SECOND / 4);
    assert_eq!(buckets.take_all([one].iter(), later).map(|_| ()), Err(Short::Refused));
    buckets.take_all([one].iter(), later + SECOND / 2).expect("half a second for one unit");
    assert_eq!(buckets.take_all([one].iter(), later + SECOND / 2).map(|_| ()), Err(Short::Refused));
}

#[test]
fn nothing_is_lent_ahead_from_the_lower_half_of_a_burst() {
    let (buckets, one) = (buckets(None), wanted(1, "10/s", 10));
    assert_eq!(buckets.lend_ahead(&one, 100, NOW), 5);
    assert_eq!(buckets.lend_ahead(&one, 100, NOW), 0);
    let single = wanted(2, "5/s", 1);
    assert_eq!(buckets.lend_ahead(&single, 100, NOW), 0);
}

#[test]
fn full_buckets_are_forgotten_and_remembered_as_full() {
    let buckets = buckets(None);
    for round in 0..20u64 {
        let now = NOW + round * 2 * SECOND;
        for name in 0..5_000u64 {
            // Spread over the shards as hashes are.
            let name = (name + round * 5_000).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            buckets.take_all([wanted(name, "5/s", 1)].iter(), now).expect("full");
        }
    }
    assert!(buckets.shards.len() < 80_000, "{} of 100,000 buckets kept", buckets.shards.len());
}

/// A thread that has read its clock before others swept does not find a forgotten bucket full then: it would take a unit that
/// was taken.
#[test]
fn an_earlier_reading_of_the_clock_takes_nothing_twice() {
    let (buckets, one) = (buckets(None), wanted(1, "1/s", 1));
    buckets.take_all([one].iter(), NOW).expect("full");
    for name in 0..5_000u64 {
        buckets.take_all([wanted(2 + name, "5/s", 1)].iter(), NOW + SECOND).expect("full");
    }
    buckets.take_all([one].iter(), NOW + SECOND / 2).expect("at the instant of the sweep");
    buckets.take_all([one].iter(), NOW + 2 * SECOND - 1).expect_err("a second after that, not after its own");
    buckets.take_all([one].iter(), NOW + 2 * SECOND).expect("and then");
}

#[test]
fn who_acts_in_an_earlier_term_takes_by_the_later_one_and_gives_nothing_back_to_it() {
    let (shards, one) = (shards(), wanted(1, "2/s", 2));
    let (earlier, later) = (shards.of(1, None), shards.of(2, Some(NOW)));
    earlier.take_all([one].iter(), NOW).expect("full");
    earlier.lend_all([one].iter(), NOW).expect("full");
    later.take_all([one].iter(), NOW).expect_err("begun empty");
    earlier.take_all([one].iter(), NOW).expect_err("it is over");
    earlier.settle(1, 0, 1, NOW);
    earlier.give_back(&one, NOW, NOW);
    assert_eq!(earlier.change(1, |_| ()), None);
    later.take_all([one].iter(), NOW + SECOND / 2 - 1).expect_err("nothing came back");
    later.take_all([one].iter(), NOW + SECOND / 2).expect("half a second for one unit");
}

#[test]
fn a_bucket_with_units_out_is_not_forgotten() {
    let (buckets, one) = (buckets(None), wanted(1, "1/s", 1));
    buckets.lend_all([one].iter(), NOW).expect("full");
    let later = NOW + 100 * SECOND;
    for name in 0..5_000u64 {
        buckets.take_all([wanted(2 + name, "5/s", 1)].iter(), later).expect("full");
    }
    assert_eq!(buckets.take_all([one].iter(), later).map(|_| ()), Err(Short::Refused));
}

#[test]
fn an_unknown_bucket_of_a_later_reign_was_empty_when_it_began() {
    let (buckets, one) = (buckets(Some(NOW)), wanted(1, "2/s", 3));
    assert_eq!(buckets.look(&one, NOW + SECOND / 2 - 1).refused.map(|refused| refused.retry_after_ns), Some(1));
    buckets.take_all([one].iter(), NOW + SECOND / 2).expect("half a second, one unit");
    assert_eq!(buckets.take_all([one].iter(), NOW + SECOND / 2).map(|_| ()), Err(Short::Refused));
}

#[test]
fn a_bucket_that_comes_from_another_group_is_empty_when_it_comes() {
    let buckets = buckets(None);
    let moved = Wanted { since_ns: NOW, ..wanted(1, "2/s", 2) };
    buckets.take_all([moved].iter(), NOW).expect_err("the other group may have let the whole burst through");
    buckets.take_all([moved].iter(), NOW + SECOND / 2).expect("half a second for one unit");
    buckets.take_all([moved].iter(), NOW + SECOND / 2).expect_err("and for one alone");
    buckets.take_all([wanted(2, "2/s", 2)].iter(), NOW).expect("one that was always here is full");
}
