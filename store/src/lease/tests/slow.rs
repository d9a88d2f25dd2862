//! Rates that refill slowly: reserved in the replicated state.

use super::*;

#[tokio::test]
async fn a_change_of_leader_neither_empties_nor_fills_a_slow_bucket() {
    let (world, one) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate("daily", "100/d", 100)], vec![], None));
    for _ in 0..40 {
        client.ask(&world, &one).await.expect("within the burst");
    }
    world.elect(2, 2, false);
    world.wait_ns(OPENS);
    let mut admitted = 0;
    while client.ask(&world, &two).await.is_ok() {
        admitted += 1;
    }
    assert!((60 - 100 / 16 - 1..=60).contains(&admitted), "{admitted} of 60, less a slice");
}

#[tokio::test]
async fn a_burst_of_one_is_not_lost_to_a_slice() {
    let (world, one) = World::alone();
    let client = client(tier(vec![rate("hourly", "1/h", 1)], vec![], None));
    client.ask(&world, &one).await.expect("the unit");
    refusal(client.ask(&world, &one).await);
    world.elect(1, 2, false);
    world.wait_ns(OPENS);
    refusal(client.ask(&world, &one).await);
    world.wait_ns(3_601 * SECOND);
    client.ask(&world, &one).await.expect("an hour later");
}

#[tokio::test]
async fn what_was_refilled_long_ago_is_not_owed_after_a_change() {
    let (world, one) = World::alone();
    let client = client(tier(vec![rate("hourly", "10/h", 10)], vec![], None));
    for _ in 0..10 {
        client.ask(&world, &one).await.expect("the burst");
    }
    world.wait_ns(7_200 * SECOND);
    let owed = || world.ledger.lock().expect("whole").iter().next_back().map(|(_, book)| book.taken());
    until("the debt was written anew", || owed() == Some(1)).await;
    world.elect(1, 2, false);
    world.wait_ns(OPENS);
    for _ in 0..10 {
        client.ask(&world, &one).await.expect("it was full");
    }
    refusal(client.ask(&world, &one).await);
}

/// The limit changed and nobody had asked the old leader since: the new one took the old limit's time for its own.
#[tokio::test]
async fn a_limit_that_changed_just_before_the_leader_keeps_the_units_taken() {
    for (before, after, left) in [("100/d", "100/h", 60), ("100/h", "100/d", 60), ("100/h", "50/d", 10)] {
        let (world, one) = World::alone();
        let two = world.start(2, 1);
        let with = |text: &str, revision| {
            let units = text.split('/').next().expect("units").parse().expect("a number");
            client(Tier { revision, ..tier(vec![rate("slow", text, units)], vec![], None) })
        };
        let (old, new) = (with(before, 1), with(after, 2));
        for _ in 0..40 {
            old.ask(&world, &one).await.expect("within the burst");
        }
        world.elect(2, 2, false);
        world.wait_ns(OPENS);
        let mut admitted = 0;
        while new.ask(&world, &two).await.is_ok() {
            admitted += 1;
        }
        assert!((left - 100 / 16 - 1..=left).contains(&admitted), "{before}, {after}: {admitted} of {left}");
    }
}

#[tokio::test]
async fn without_a_quorum_a_slow_bucket_is_unavailable_and_never_spent_from() {
    let (world, one) = World::alone();
    let client = client(tier(vec![rate("daily", "2/d", 2)], vec![], None));
    world.no_quorum.store(true, Ordering::Relaxed);
    assert!(matches!(client.ask(&world, &one).await, Err(Denied::Unavailable(_))));
    world.no_quorum.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        client.ask(&world, &one).await.expect("nothing was spent");
    }
    refusal(client.ask(&world, &one).await);
}

#[tokio::test]
async fn followers_share_a_slow_bucket() {
    let (world, one) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate("daily", "20/d", 20)], vec![], None));
    let mut admitted = 0;
    for _ in 0..30 {
        for leases in [&one, &two] {
            admitted += u32::from(client.ask(&world, leases).await.is_ok());
        }
    }
    assert_eq!(admitted, 20);
}
