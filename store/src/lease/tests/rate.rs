//! Rates on the node that leads.

use super::*;

#[tokio::test]
async fn the_headers_of_the_contract() {
    let (world, leases) = World::alone();
    let client = client(tier(vec![rate("per-second", "5/s", 5)], vec![], Some(20)));
    let grant = client.now(&world, &leases).expect("the first");
    let standings = grant.standings();
    let [per_second, concurrency] = &standings[..] else { panic!("{standings:?}") };
    assert_eq!((per_second.quota, per_second.window_seconds), (5, Some(1)));
    assert_eq!((per_second.remaining, per_second.reset_seconds), (4, Some(1)));
    assert_eq!((&*concurrency.name, concurrency.quota, concurrency.remaining), ("concurrency", 20, 19));
}

#[tokio::test]
async fn retry_after_is_whole_seconds_and_keeps_its_word() {
    let (world, leases) = World::alone();
    let client = client(tier(vec![rate("slow", "20/m", 2)], vec![], None));
    for _ in 0..2 {
        client.ask(&world, &leases).await.expect("the burst");
    }
    world.wait_ns(SECOND / 2);
    let refusal = refusal(client.ask(&world, &leases).await);
    assert_eq!((refusal.policy, &*refusal.violated[0]), (Policy::Rate, "slow"));
    assert_eq!(refusal.retry_after, Duration::from_secs(3));
    world.wait_ns(refusal.retry_after.as_nanos() as u64);
    client.ask(&world, &leases).await.expect("as was said");
}

#[tokio::test]
async fn all_limits_or_none_give_a_unit() {
    let (world, leases) = World::alone();
    let client = client(tier(vec![rate("wide", "5/s", 5), rate("narrow", "2/s", 2)], vec![], None));
    for _ in 0..2 {
        client.now(&world, &leases).expect("both have units");
    }
    for _ in 0..10 {
        let refusal = refusal(client.now(&world, &leases));
        assert_eq!(refusal.violated, ["narrow".into()]);
        assert_eq!(refusal.standings[0].remaining, 3, "nothing was taken from the other");
    }
}

#[tokio::test]
async fn dimensions_count_apart() {
    let (world, leases) = World::alone();
    let mut limit = rate("each", "1/s", 1);
    limit.per = vec![Dimension::Key];
    let mut client = client(tier(vec![limit], vec![], None));
    client.now(&world, &leases).expect("the first key");
    refusal(client.now(&world, &leases));
    client.key.number += 1;
    client.now(&world, &leases).expect("another key");
}

#[tokio::test]
async fn a_fresh_group_starts_full_and_every_later_term_empty() {
    let (world, leases) = World::alone();
    let client = client(tier(vec![rate("per-second", "5/s", 10)], vec![], None));
    client.now(&world, &leases).expect("a fresh group is full");
    world.wait_ns(100 * SECOND);
    world.elect(1, 2, false);
    world.wait_ns(OPENS);
    let mut asking = Box::pin(client.ask(&world, &leases));
    assert!(futures_util::poll!(&mut asking).is_pending(), "empty: it waits for its unit");
    world.wait_ns(SECOND / 5);
    asking.await.expect("one unit has come back");
    let mut asking = Box::pin(client.ask(&world, &leases));
    assert!(futures_util::poll!(&mut asking).is_pending(), "and no other");
    drop(asking);
    world.wait_ns(3 * SECOND);
    for _ in 0..10 {
        client.now(&world, &leases).expect("full again after burst / rate");
    }
    refusal(client.now(&world, &leases));
}

/// As after a hand-over that nobody took up: the same term, a later instant.
#[tokio::test]
async fn a_leadership_that_is_taken_up_again_in_its_term_goes_on_at_once() {
    let (world, leases) = World::alone();
    let client = client(tier(vec![rate("per-second", "5/s", 1)], vec![], Some(3)));
    world.elect(1, 2, false);
    world.wait_ns(OPENS + 3 * SECOND);
    client.now(&world, &leases).expect("open, and full again");
    world.depose();
    world.wait_ns(SECOND / 20);
    world.elect(1, 2, false);
    refusal(client.now(&world, &leases));
    world.wait_ns(SECOND / 5);
    client.now(&world, &leases).expect("its unit has come back");
}

#[tokio::test]
async fn a_new_leader_waits_for_the_end_of_what_its_predecessor_lent() {
    let (world, leases) = World::alone();
    let client = client(tier(vec![rate("per-second", "5/s", 10)], vec![], None));
    world.elect(1, 2, false);
    world.wait_ns(OPENS - SECOND / 100);
    let mut asking = Box::pin(client.ask(&world, &leases));
    assert!(futures_util::poll!(&mut asking).is_pending(), "it may not decide yet");
    world.wait_ns(SECOND / 4);
    asking.await.expect("a unit of its own time");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_does_not_start_full() {
    let (world, leases) = World::alone();
    let client = client(tier(vec![rate("per-second", "5/s", 10)], vec![], None));
    for _ in 0..10 {
        client.now(&world, &leases).expect("the burst");
    }
    drop(leases);
    let leases = world.start(1, 2);
    world.elect(1, 2, false);
    world.wait_ns(OPENS);
    assert!(matches!(client.ask(&world, &leases).await, Err(Denied::Unavailable(_))), "no unit came back");
}

/// A key within its limits was told 429 when the leader was lost.
#[tokio::test(start_paused = true)]
async fn the_loss_of_a_leader_is_no_refusal_on_the_new_one_nor_where_it_is_asked() {
    let (world, one) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate("fast", "2/s", 4)], vec![], None));
    let used_up = client_of_one_slow_unit();
    used_up.ask(&world, &one).await.expect("its unit");
    world.elect(1, 2, false);
    world.wait_ns(OPENS);
    for leases in [&one, &two] {
        let mut asking = Box::pin(client.ask(&world, leases));
        assert!(tokio::time::timeout(Duration::from_millis(500), &mut asking).await.is_err(), "it waits");
        world.wait_ns(SECOND / 2);
        asking.await.expect("the first unit that comes back");
        // No unit comes back in time, then all are somebody else's.
        assert!(matches!(client.ask(&world, leases).await, Err(Denied::Unavailable(_))));
        assert_eq!(refusal(used_up.ask(&world, leases).await).violated, ["hourly".into()], "kept in the state");
    }
    let mut asking = Box::pin(client.ask(&world, &one));
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut asking).await.is_err(), "it waits");
    world.wait_ns(2 * SECOND);
    while client.now(&world, &one).is_ok() {}
    assert!(matches!(asking.await, Err(Denied::Unavailable(_))), "it has waited for the new leader");
    assert_eq!(refusal(client.ask(&world, &one).await).violated, ["fast".into()], "it has not");
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_for_a_bucket_that_refills_are_bounded() {
    let (world, leases) = World::alone();
    let client = client(tier(vec![rate("fast", "1/s", 1)], vec![], None));
    world.elect(1, 2, false);
    world.wait_ns(OPENS);
    let mut waiting: Vec<_> = (0..group::MOST_REFILLING).map(|_| Box::pin(client.ask(&world, &leases))).collect();
    for asking in &mut waiting {
        assert!(futures_util::poll!(asking).is_pending());
    }
    assert!(matches!(client.ask(&world, &leases).now_or_never(), Some(Err(Denied::Unavailable(_)))));
    drop(waiting);
    assert!(client.ask(&world, &leases).now_or_never().is_none(), "there is place again");
}

fn client_of_one_slow_unit() -> Client {
    client(tier(vec![rate("hourly", "1/h", 1)], vec![], None))
}

#[tokio::test]
async fn a_refund_leaves_the_rate_spent() {
    let (world, leases) = World::alone();
    let client = client(tier(vec![rate("one", "1/s", 1)], vec![], None));
    client.now(&world, &leases).expect("the unit").refund();
    refusal(client.now(&world, &leases));
}

#[tokio::test]
async fn a_changed_limit_is_in_force_at_once_and_gives_no_fresh_burst() {
    let (world, leases) = World::alone();
    let with = |per_second: &str, burst, revision| {
        client(Tier { revision, ..tier(vec![rate("per-second", per_second, burst)], vec![], None) })
    };
    let (old, new) = (with("5/s", 10, 1), with("2/s", 4, 2));
    for _ in 0..8 {
        old.now(&world, &leases).expect("within the burst");
    }
    refusal(new.now(&world, &leases));
    world.wait_ns(SECOND / 2);
    new.now(&world, &leases).expect("the new rate");
    // A node whose view is older does not bring the old limit back.
    refusal(old.now(&world, &leases));
    let raised = with("5/s", 10, 3);
    for _ in 0..6 {
        raised.now(&world, &leases).expect("what was taken under the lower burst stays taken, the rest is there");
    }
    refusal(raised.now(&world, &leases));
}

#[tokio::test]
async fn peek_takes_nothing_and_says_what_would_be() {
    let (world, leases) = World::alone();
    let client = client(tier(vec![rate("one", "1/s", 1)], vec![], Some(1)));
    for _ in 0..3 {
        let standings = leases.peek(client.demand(&world)).await.expect("it would pass");
        assert_eq!((standings[0].remaining, standings[0].reset_seconds, standings[1].remaining), (1, None, 1));
    }
    let grant = client.now(&world, &leases).expect("the unit is still there");
    assert_eq!(refusal(leases.peek(client.demand(&world)).await).policy, Policy::Concurrency);
    drop(grant);
    assert_eq!(refusal(leases.peek(client.demand(&world)).await).policy, Policy::Rate);
    let levels = leases.levels(&client.key.account, &[], &[], world.wall()).await.expect("this node leads");
    assert_eq!((levels.concurrent, levels.rates[0].remaining), (Some(0), 0));
}

#[test]
fn threads_that_hammer_one_bucket_get_exactly_what_is_in_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let _enter = runtime.enter();
    let (world, leases) = World::alone();
    let client = client(tier(vec![rate("a", "1000/s", 1_000), rate("b", "1500/s", 1_500)], vec![], Some(3)));
    let granted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (world, leases, client, granted) = (&world, &leases, &client, &granted);
            scope.spawn(move || {
                let mut rounds = 0u64;
                while granted.load(Ordering::Relaxed) < 1_000 && rounds < 1_000_000 {
                    rounds += 1;
                    if client.now(world, leases).is_ok() {
                        granted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(granted.load(Ordering::Relaxed), 1_000);
    assert_eq!(refusal(client.now(&world, &leases)).violated, ["a".into()]);
    let levels = runtime.block_on(leases.levels(&client.key.account, &[], &[], world.wall())).expect("it leads");
    assert_eq!((levels.concurrent, levels.rates[1].remaining), (Some(0), 500));
}
