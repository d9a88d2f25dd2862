//! Quotas: slices of the replicated state.

use proptest::prelude::*;

use super::*;

fn daily(limit: u64) -> Client {
    client(tier(vec![], vec![quota("daily", limit)], None))
}

/// A request that was served: settled and its row applied.
async fn serve(world: &World, leases: &Leases, node: u64, client: &Client) -> Result<u64, Denied> {
    let mut grant = client.ask(world, leases).await?;
    let charges = grant.settle(client.bytes, 1);
    world.charge(node, 1, &client.key.account.id, &charges);
    Ok(charges.iter().map(|charge| charge.units).sum())
}

#[tokio::test]
async fn exactly_the_limit_is_served_in_a_period() {
    for silent in [false, true] {
        serve_a_period(silent).await;
    }
}

async fn serve_a_period(silent: bool) {
    let (world, leases) = World::alone();
    world.silent.store(silent, Ordering::Relaxed);
    let client = daily(250);
    for n in 1..=250u64 {
        let mut grant = client.ask(&world, &leases).await.expect("below the limit");
        assert_eq!(grant.standings()[0].remaining, 250 - n);
        world.charge(1, 1, &client.key.account.id, &grant.settle(0, 1));
        world.wait_ns(SECOND / 1_000);
    }
    let refused = refusal(client.ask(&world, &leases).await);
    assert_eq!((refused.policy, refused.violated), (Policy::Quota, vec!["daily".into()]));
    assert_eq!(refused.retry_after, Duration::from_secs(86_400), "midnight, rounded up");
    assert_eq!(refused.standings[0].period_end, Some(Timestamp::from_unix_seconds(START_UNIX + 86_400)));
    world.wait_ns(refused.retry_after.as_nanos() as u64);
    client.ask(&world, &leases).await.expect("a new day");
}

#[tokio::test]
async fn a_flood_above_the_quota_is_refused_from_memory() {
    let (world, leader) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate("x", "5000/s", 5_000)], vec![quota("daily", 3)], Some(5)));
    for leases in [&leader, &two] {
        while client.ask(&world, leases).await.is_ok() {}
        let (asks, reserves) = (world.asks.load(Ordering::Relaxed), world.reserves.load(Ordering::Relaxed));
        for _ in 0..1_000 {
            assert_eq!(refusal(client.ask(&world, leases).await).policy, Policy::Quota);
        }
        assert_eq!(world.reserves.load(Ordering::Relaxed), reserves);
        assert!(world.asks.load(Ordering::Relaxed) - asks <= 2);
    }
    let levels = leader.levels(&client.key.account, &[], &[], world.wall()).await.expect("it leads");
    until("refusals gave all back", || {
        // Units lent ahead go back when nobody has asked for a while.
        world.wait_ns(SECOND / 1_000);
        let levels = leader.levels(&client.key.account, &[], &[], world.wall()).now_or_never();
        levels.is_some_and(|levels| levels.is_ok_and(|l| l.concurrent == Some(0) && l.rates[0].remaining >= 4_997))
    })
    .await;
    drop(levels);
}

#[tokio::test]
async fn an_exhausted_quota_is_asked_again_at_most_every_quarter_second() {
    let (world, leases) = World::alone();
    let two = world.start(2, 1);
    let client = daily(2);
    let grant = client.ask(&world, &leases).await.expect("one");
    client.ask(&world, &leases).await.expect("two");
    refusal(client.ask(&world, &two).await);
    let reserves = world.reserves.load(Ordering::Relaxed);
    for _ in 0..100 {
        world.wait_ns(SECOND / 100);
        refusal(client.ask(&world, &two).await);
    }
    let asked = world.reserves.load(Ordering::Relaxed) - reserves;
    assert!((3..=5).contains(&asked), "{asked} times in a second");
    // What another gives back is found.
    grant.refund();
    leases.return_unspent().await;
    world.wait_ns(SECOND / 4);
    client.ask(&world, &two).await.expect("the unit that came back");
}

#[tokio::test(start_paused = true)]
async fn steady_traffic_never_waits_once_it_has_its_slice() {
    let (world, leases) = World::alone();
    let client = daily(1_000_000);
    let mut waited = 0;
    for n in 0..5_000 {
        let mut asking = Box::pin(client.ask(&world, &leases));
        match futures_util::poll!(&mut asking) {
            std::task::Poll::Ready(grant) => drop(grant.expect("below the limit")),
            std::task::Poll::Pending => {
                waited += u32::from(n > 100);
                asking.await.expect("below the limit");
            }
        }
        world.wait_ns(SECOND / 1_000);
        tokio::time::advance(Duration::from_millis(1)).await;
        // The background has its turn between two requests.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(waited, 0);
    let reserves = world.reserves.load(Ordering::Relaxed);
    assert!(reserves < 60, "{reserves} reservations for 5 seconds of 1,000 a second");
    let reserved = world.taken();
    assert!(reserved <= 5_000 + 10_000, "a slice is at most a hundredth of the limit: {reserved}");
}

#[tokio::test]
async fn what_a_node_holds_is_at_most_a_hundredth_of_the_limit() {
    let (world, leases) = World::alone();
    let client = daily(10_000);
    for served in 1..=2_000u64 {
        serve(&world, &leases, 1, &client).await.expect("below the limit");
        let held = world.taken() - served;
        // A slice, and the half of one that was left when it was fetched.
        assert!(held <= 150, "{held} units");
        world.wait_ns(SECOND / 1_000);
    }
}

#[tokio::test]
async fn one_request_asks_again_for_all() {
    let (world, leases) = World::alone();
    let client = daily(1);
    client.ask(&world, &leases).await.expect("the only unit");
    refusal(client.ask(&world, &leases).await);
    world.wait_ns(SECOND / 4);
    let mut asking = Box::pin(client.ask(&world, &leases));
    assert!(futures_util::poll!(&mut asking).is_pending());
    refusal(client.now(&world, &leases));
    refusal(asking.await);
}

#[tokio::test]
async fn a_late_request_is_charged_to_the_period_that_has_begun() {
    let (world, leases) = World::alone();
    let client = daily(5);
    let yesterday = client.demand(&world);
    let mut before = leases.acquire(yesterday).await.expect("yesterday");
    world.wait_ns(86_400 * SECOND);
    client.ask(&world, &leases).await.expect("today");
    let mut late = leases.acquire(yesterday).await.expect("a clock that is behind");
    let start = |grant: &mut Grant| grant.settle(0, 1)[0].period_start;
    assert_eq!((start(&mut before), start(&mut late)), (START_UNIX, START_UNIX + 86_400));
}

#[tokio::test]
async fn less_than_declared_gives_back_and_more_is_charged() {
    let (world, leases) = World::alone();
    let mut bytes = quota("bytes", 1_000);
    bytes.unit = Unit::ContentBytes;
    let mut client = client(tier(vec![], vec![bytes], None));
    client.bytes = 600;
    let mut grant = client.ask(&world, &leases).await.expect("600 of 1,000");
    refusal(client.ask(&world, &leases).await);
    assert_eq!(grant.settle(100, 1)[0].units, 100);
    // A second record: only what is added, and never less.
    assert_eq!(grant.settle(90, 1), []);
    assert_eq!(grant.settle(130, 1)[0].units, 30);
    drop(grant);
    client.ask(&world, &leases).await.expect("the rest came back to this node").refund();
    client.bytes = 870;
    let mut grant = client.ask(&world, &leases).await.expect("all that is left");
    assert_eq!(grant.settle(900, 1)[0].units, 900, "charged although nobody reserved the last 30");
    let overdrawn = leases.stats().iter().find(|(name, ..)| name.contains("overdrawn")).map(|(.., value)| *value);
    assert_eq!(overdrawn, Some(30.0));
}

#[tokio::test]
async fn a_demand_above_the_limit_is_refused_without_asking() {
    let (world, leases) = World::alone();
    let mut bytes = quota("bytes", 1_000);
    bytes.unit = Unit::ContentBytes;
    let mut client = client(tier(vec![], vec![bytes], None));
    client.bytes = 1_001;
    refusal(client.ask(&world, &leases).await);
    assert_eq!(world.reserves.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn overage_is_counted_and_never_refused() {
    let (world, leases) = World::alone();
    let mut allow = quota("daily", 3);
    allow.overage = Overage::Allow;
    let client = client(tier(vec![], vec![allow], None));
    for n in 0..20u64 {
        assert_eq!(serve(&world, &leases, 1, &client).await, Ok(1), "{n}");
    }
    assert_eq!(world.ledger.lock().expect("whole").values().map(|book| book.used).sum::<u64>(), 20);
}

#[tokio::test]
async fn a_lowered_limit_is_in_force_at_once() {
    let (world, leases) = World::alone();
    let old = daily(1_000_000);
    for _ in 0..200 {
        serve(&world, &leases, 1, &old).await.expect("below the limit");
        world.wait_ns(SECOND / 1_000);
    }
    assert!(world.taken() > 201, "it holds a slice");
    let new = daily(201);
    serve(&world, &leases, 1, &new).await.expect("one is left under the new limit");
    assert_eq!(refusal(new.ask(&world, &leases).await).policy, Policy::Quota);
    let raised = daily(203);
    for _ in 0..2 {
        serve(&world, &leases, 1, &raised).await.expect("raised: two more");
    }
    refusal(raised.ask(&world, &leases).await);
}

/// What is given back of them was reserved under a limit that nobody is served by any more.
#[tokio::test]
async fn units_taken_before_a_limit_was_lowered_are_not_served_again() {
    let (world, leases) = World::alone();
    let old = daily(1_000);
    let mut grants = Vec::new();
    for _ in 0..20 {
        grants.push(old.ask(&world, &leases).await.expect("below the limit"));
    }
    let new = daily(10);
    refusal(new.ask(&world, &leases).await);
    grants.drain(..5).for_each(Grant::refund);
    refusal(new.ask(&world, &leases).await);
}

#[tokio::test]
async fn without_a_quorum_it_is_unavailable_and_nothing_is_lost() {
    let (world, leases) = World::alone();
    let client = client(tier(vec![rate("one", "1/s", 1)], vec![quota("daily", 5)], Some(1)));
    world.no_quorum.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(matches!(client.ask(&world, &leases).await, Err(Denied::Unavailable(_))));
    }
    world.no_quorum.store(false, Ordering::Relaxed);
    client.ask(&world, &leases).await.expect("rate and concurrency were given back");
}

#[tokio::test]
async fn unspent_units_go_back_when_idle_and_when_the_node_stops() {
    let (world, leases) = World::alone();
    let client = daily(100_000);
    let settle = || async {
        for _ in 0..100 {
            serve(&world, &leases, 1, &client).await.expect("below the limit");
            world.wait_ns(SECOND / 1_000);
        }
    };
    settle().await;
    assert!(world.taken() > 100);
    world.wait_ns(3 * SECOND);
    until("the idle slice went back", || world.taken() == 100).await;
    settle().await;
    leases.return_unspent().await;
    assert_eq!(world.taken(), 200);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Used and reserved never exceed the limit, whatever nodes do; nor do admitted requests.
    #[test]
    fn the_quota_is_never_exceeded(
        limit in 1u64..400,
        steps in prop::collection::vec((0u64..400_000_000, 0usize..3, 0u8..12), 1..250),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (world, one) = World::alone();
            let mut nodes = [(1, one), (1, world.start(2, 1)), (1, world.start(3, 1))];
            let mut bytes = quota("bytes", limit * 10);
            bytes.unit = Unit::ContentBytes;
            let mut client = client(tier(vec![], vec![quota("daily", limit), bytes], None));
            let (mut open, mut admitted) = (Vec::new(), BTreeMap::<i64, u64>::new());
            for (wait, node, what) in steps {
                world.wait_ns(wait);
                match what {
                    // Killed and started again: what it had reserved stays reserved, its requests are gone.
                    0 => {
                        open.retain(|(owner, _): &(usize, Grant)| *owner != node);
                        let incarnation = nodes[node].0 + 1;
                        nodes[node] = (incarnation, world.start(node as u64 + 1, incarnation));
                    }
                    1 => nodes[node].1.return_unspent().await,
                    2 => world.wait_ns(20_000 * SECOND),
                    3 | 4 if !open.is_empty() => open.swap_remove(0).1.refund(),
                    5 | 6 if !open.is_empty() => {
                        let (owner, mut grant) = open.swap_remove(0);
                        let charges = grant.settle(wait % 30, 1);
                        for charge in charges.iter().filter(|charge| &*charge.quota == "daily") {
                            *admitted.entry(charge.period_start).or_default() += charge.units;
                        }
                        let account = &client.key.account.id;
                        world.charge(owner as u64 + 1, nodes[owner].0, account, &charges[..1]);
                    }
                    _ => {
                        client.bytes = wait % 40;
                        if let Ok(grant) = client.ask(&world, &nodes[node].1).await {
                            open.push((node, grant));
                        }
                    }
                }
                for ((_, name, _), book) in world.ledger.lock().expect("whole").iter() {
                    let most = if &**name == "daily" { limit } else { limit * 10 };
                    prop_assert!(book.taken() <= most, "{book:?}");
                }
            }
            for (period, admitted) in admitted {
                prop_assert!(admitted <= limit, "{admitted} in {period}");
            }
            Ok(())
        })?;
    }
}

/// An account that leaves its group leaves nothing unsettled there, if its requests end soon.
#[tokio::test]
async fn slots_are_quiet_when_requests_with_quota_units_have_ended() {
    let (world, leases) = World::alone();
    let client = daily(10_000);
    let slots = 0..crate::model::SLOTS;
    let quiet = |settles| leases.are_quiet(GroupId::LEDGER, &slots, settles);
    // Reservations that are under way end, and what is left goes back.
    let is_soon_quiet = async |settles| {
        for _ in 0..100 {
            if quiet(settles).await {
                return true;
            }
            tokio::task::yield_now().await;
        }
        false
    };
    let (mut grant, refunded) = (client.ask(&world, &leases).await.expect("one"), client.ask(&world, &leases).await);
    assert!(is_soon_quiet(false).await);
    assert_eq!(world.taken(), 2, "both requests have a unit");
    assert!(!is_soon_quiet(true).await);
    refunded.expect("another").refund();
    assert!(!is_soon_quiet(true).await, "the first is under way");
    world.charge(1, 1, &client.key.account.id, &grant.settle(0, 1));
    assert!(!is_soon_quiet(true).await, "its row may not be committed yet");
    drop(grant);
    assert!(is_soon_quiet(true).await);
    let books = world.ledger.lock().expect("whole").clone();
    assert_eq!(books.values().map(|book| (book.used, book.taken())).collect::<Vec<_>>(), [(1, 1)]);
}
