use proptest::prelude::*;

use super::*;
use crate::model::Rate;

fn wanted(name: u64, rate: &str, burst: u64) -> Wanted {
    let gcra = Gcra::new(rate.parse::<Rate>().expect("a rate"), burst);
    Wanted { name, emission_ns: gcra.emission_ns, capacity_ns: gcra.capacity_ns, revision: 1 }
}

fn first(mut taken: Few<Taken>) -> Taken {
    taken.take().next().expect("one was taken")
}

const NOW: u64 = 1_000_000_000_000;

#[test]
fn a_unit_whose_place_has_passed_gives_nothing_back() {
    let (buckets, one) = (Buckets::new(None), wanted(1, "1/s", 1));
    let first = buckets.take_all([one].iter(), NOW).map(first).expect("full");
    let later = NOW + 5_000_000_000;
    buckets.take_all([one].iter(), later).expect("full again");
    buckets.give_back(&first, later);
    buckets.take_all([one].iter(), later).expect_err("two within no time would be more than the burst");
}

#[test]
fn two_returns_do_not_count_the_same_time_twice() {
    let (buckets, one) = (Buckets::new(None), wanted(1, "1/s", 2));
    let take = |now| buckets.take_all([one].iter(), now).map(first);
    let (first, second) = (take(NOW).expect("one"), take(NOW).expect("two"));
    buckets.give_back(&first, NOW);
    // The second unit has moved to the first one's place, which has passed by now.
    let later = NOW + 1_000_000_000;
    for _ in 0..2 {
        take(later).expect("full");
    }
    buckets.give_back(&second, later);
    take(later).expect_err("nothing came back");
}

#[test]
fn full_buckets_are_forgotten_and_remembered_as_full() {
    let buckets = Buckets::new(None);
    for round in 0..20u64 {
        let now = NOW + round * 2_000_000_000;
        for name in 0..5_000u64 {
            // Spread over the shards as hashes are.
            let name = (name + round * 5_000).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            buckets.take_all([wanted(name, "5/s", 1)].iter(), now).expect("full");
        }
    }
    assert!(buckets.len() < 80_000, "{} of 100,000 buckets kept", buckets.len());
}

#[test]
fn an_unknown_bucket_of_a_later_reign_was_empty_when_it_began() {
    let (buckets, one) = (Buckets::new(Some(NOW)), wanted(1, "1/s", 3));
    assert_eq!(buckets.look(&one, NOW + 999_999_999).1.map(|refused| refused.retry_after_ns), Some(1));
    buckets.take_all([one].iter(), NOW + 1_000_000_000).expect("one second, one unit");
    buckets.take_all([one].iter(), NOW + 1_000_000_000).expect_err("and no more");
}

proptest! {
    /// However takes and returns mix, the units kept fit the bucket: their times pass the algorithm from the start.
    #[test]
    fn returns_never_admit_more(
        burst in 1u64..6,
        steps in prop::collection::vec((0u64..2_000_000_000, prop::option::of(any::<prop::sample::Index>())), 1..150),
    ) {
        let (buckets, one) = (Buckets::new(None), wanted(1, "1/s", burst));
        let (mut now, mut kept) = (NOW, Vec::<(u64, Taken)>::new());
        for (wait, give_back) in steps {
            now += wait / 3;
            match give_back {
                Some(which) if !kept.is_empty() => {
                    let (_, unit) = kept.remove(which.index(kept.len()));
                    buckets.give_back(&unit, now);
                }
                _ => if let Ok(taken) = buckets.take_all([one].iter(), now) {
                    kept.push((now, first(taken)));
                }
            }
            let mut tat = 0;
            for (at, _) in &kept {
                tat = one.gcra().take(tat, *at, 1).expect("the units kept are within burst and rate");
            }
        }
    }
}
