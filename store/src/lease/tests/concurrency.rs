//! Requests at once, over nodes, losses and takeovers.

use super::*;

fn limited(limit: u32) -> Client {
    client(tier(vec![], vec![], Some(limit)))
}

async fn in_use(world: &World, leases: &Leases, client: &Client) -> u64 {
    let levels = leases.levels(&client.key.account, &[], &[], world.wall()).await.expect("somebody leads");
    levels.concurrent.expect("it is limited")
}

#[tokio::test]
async fn a_unit_comes_back_when_its_grant_ends() {
    let (world, leases) = World::alone();
    let client = limited(2);
    let first = client.now(&world, &leases).expect("one");
    let second = client.now(&world, &leases).expect("two");
    let refused = refusal(client.now(&world, &leases));
    assert_eq!((refused.policy, refused.retry_after), (Policy::Concurrency, Duration::from_secs(1)));
    assert_eq!(refused.violated, ["concurrency".into()]);
    drop(first);
    client.now(&world, &leases).expect("one came back").refund();
    drop(second);
    assert_eq!(in_use(&world, &leases, &client).await, 0);
}

#[tokio::test]
async fn the_cluster_shares_one_count() {
    let (world, leader) = World::alone();
    let (two, three) = (world.start(2, 1), world.start(3, 1));
    let client = limited(3);
    let mut grants = Vec::new();
    for leases in [&leader, &two, &three] {
        grants.push(client.ask(&world, leases).await.expect("three in all"));
    }
    for leases in [&leader, &two, &three] {
        assert_eq!(refusal(client.ask(&world, leases).await).policy, Policy::Concurrency);
    }
    // Given back on node 2, taken on node 3.
    grants.remove(1);
    world.wait_ns(SECOND / 100);
    until("the unit is there again", || in_use(&world, &leader, &client).now_or_never() == Some(2)).await;
    grants.push(client.ask(&world, &three).await.expect("the unit of node 2"));
    grants.clear();
    until("all came back", || in_use(&world, &leader, &client).now_or_never() == Some(0)).await;
}

#[tokio::test]
async fn units_of_a_node_that_is_gone_come_back_after_their_lease() {
    let (world, leader) = World::alone();
    let two = world.start(2, 1);
    let client = limited(1);
    let grant = client.ask(&world, &two).await.expect("the unit");
    world.cut(2);
    assert!(!grant.has_lapsed());
    world.wait_ns(group::UNITS_LEASE_NS - SECOND / 100);
    assert!(grant.has_lapsed(), "its node must end it before the leader gives the unit to another");
    refusal(client.now(&world, &leader));
    world.wait_ns(SECOND / 4);
    client.now(&world, &leader).expect("the lease has run out");
}

/// The leader had let its units go to others, and the node went on with them once it was heard of again.
#[tokio::test]
async fn what_has_lapsed_stays_lapsed_when_the_leader_is_heard_of_again() {
    let (world, leader) = World::alone();
    let two = world.start(2, 1);
    let client = limited(16);
    let grant = client.ask(&world, &two).await.expect("a unit");
    // Ended, one stays with node 2, idle.
    drop(client.ask(&world, &two).await.expect("a unit"));
    world.cut(2);
    world.wait_ns(group::UNITS_LEASE_NS + SECOND / 4);
    let others: Vec<_> = (0..16).map(|_| client.now(&world, &leader).expect("all are free")).collect();
    world.heal();
    // It is heard of again, and may spend none of what was its own, idle or not.
    for _ in 0..2 {
        assert_eq!(refusal(client.ask(&world, &two).await).policy, Policy::Concurrency);
    }
    assert!(grant.has_lapsed(), "its unit is another's now");
    assert_eq!(grant.lapses_after(), Some(Duration::ZERO));
    drop(others);
    world.wait_ns(SECOND / 100);
    let again = client.ask(&world, &two).await.expect("units are there again");
    assert!(!again.has_lapsed());
    drop((grant, again));
    let left = || in_use(&world, &leader, &client).now_or_never();
    until("what stays is idle", || left().is_some_and(|units| units <= 2)).await;
}

/// Its idle units were let go while the leader remembered the node for its rate units: what it said then was taken for all.
#[tokio::test]
async fn a_node_whose_units_were_let_go_says_all_that_it_holds() {
    let (world, leader) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate("one", "1000/s", 1_000)], vec![], Some(2)));
    let grants = [client.ask(&world, &two).await.expect("one"), client.ask(&world, &two).await.expect("two")];
    world.wait_ns(group::UNITS_LEASE_NS + SECOND / 4);
    // The leader notes it with the first request that it would have to refuse.
    let own = client.now(&world, &leader).expect("two units are free");
    world.asks.store(0, Ordering::Relaxed);
    let asked = client.ask(&world, &two).await;
    assert_eq!(refusal(asked).policy, Policy::Concurrency, "its two requests have not ended yet");
    assert!(grants.iter().all(Grant::has_lapsed));
    drop((grants, own));
    until("all came back", || in_use(&world, &leader, &client).now_or_never() == Some(0)).await;
}

#[tokio::test]
async fn a_restarted_node_holds_nothing() {
    let (world, leader) = World::alone();
    let two = world.start(2, 1);
    let client = limited(1);
    std::mem::forget(client.ask(&world, &two).await.expect("the unit"));
    drop(two);
    let two = world.start(2, 2);
    world.wait_ns(SECOND / 100);
    client.ask(&world, &two).await.expect("its old incarnation's requests are gone");
    drop(leader);
}

#[tokio::test]
async fn a_lost_answer_leaks_no_unit() {
    let (world, leader) = World::alone();
    let two = world.start(2, 1);
    let client = limited(4);
    client.ask(&world, &two).await.expect("so far so good");
    world.lose_answers.store(true, Ordering::Relaxed);
    for _ in 0..4 {
        assert!(matches!(client.ask(&world, &two).await, Err(Denied::Unavailable(_))));
    }
    world.lose_answers.store(false, Ordering::Relaxed);
    let grants: Vec<_> = (0..4).map(|_| client.ask(&world, &two)).collect();
    for grant in grants {
        grant.await.expect("node 2 has said what it truly holds");
    }
    until("all came back", || in_use(&world, &leader, &client).now_or_never() == Some(0)).await;
}

#[tokio::test]
async fn a_new_leader_counts_what_the_others_hold_before_it_grants() {
    let (world, one) = World::alone();
    let (two, three) = (world.start(2, 1), world.start(3, 1));
    let client = limited(3);
    let on_one = client.now(&world, &one).expect("the leader's own");
    let on_three = client.ask(&world, &three).await.expect("a third node's");
    world.wait_ns(SECOND);
    world.elect(2, 2, false);
    // Waits until both have told node 2, which each does by itself.
    let on_two = client.ask(&world, &two).await.expect("the last of three");
    assert_eq!(refusal(client.ask(&world, &two).await).policy, Policy::Concurrency);
    assert_eq!(in_use(&world, &two, &client).await, 3);
    drop((on_one, on_three));
    until("both said so", || in_use(&world, &two, &client).now_or_never() == Some(1)).await;
    drop(on_two);
}

#[tokio::test]
async fn a_node_that_leads_again_forgets_what_it_knew_of_others() {
    let (world, one) = World::alone();
    let (two, three) = (world.start(2, 1), world.start(3, 1));
    let client = limited(2);
    let on_two = client.ask(&world, &two).await.expect("one of two");
    world.elect(3, 2, false);
    client.ask(&world, &three).await.expect("node 3 has heard of all");
    drop(on_two);
    until("node 3 was told", || in_use(&world, &three, &client).now_or_never() == Some(0)).await;
    world.elect(1, 3, false);
    let grants = [client.ask(&world, &one).await, client.ask(&world, &one).await];
    assert!(grants.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_refusal_by_a_rate_holds_no_unit_for_another_node() {
    let (world, one) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate("one", "1/s", 1)], vec![], Some(1)));
    client.now(&world, &one).expect("the rate's only unit");
    assert_eq!(refusal(client.ask(&world, &two).await).policy, Policy::Rate);
    assert_eq!(in_use(&world, &one, &client).await, 0);
}

#[tokio::test]
async fn a_new_leader_does_not_wait_for_ever_for_a_dead_node() {
    let (world, one) = World::alone();
    let two = world.start(2, 1);
    let client = limited(1);
    std::mem::forget(client.now(&world, &one).expect("it dies with this"));
    world.cut(1);
    world.elect(2, 2, false);
    let waiting = client.ask(&world, &two);
    let clock = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.wait_ns(group::UNITS_LEASE_NS + SECOND / 10);
    };
    let (granted, ()) = tokio::join!(waiting, clock);
    granted.expect("after the lease of the dead node's units");
}

#[tokio::test]
async fn a_request_that_is_given_up_leaves_nothing_behind() {
    let (world, leader) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate("one", "1/s", 1)], vec![quota("daily", 10)], Some(1)));
    for patience in [0, 1, 2, 3, 5, 8] {
        let mut asking = Box::pin(client.ask(&world, &two));
        for _ in 0..patience {
            if let std::task::Poll::Ready(grant) = futures_util::poll!(&mut asking) {
                grant.expect("there are units").refund();
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(asking);
        until("the rate's unit is back", || {
            world.wait_ns(SECOND / 1_000);
            leader.peek(client.demand(&world)).now_or_never().is_some_and(|peeked| peeked.is_ok())
        })
        .await;
        until("the unit is back", || in_use(&world, &leader, &client).now_or_never() == Some(0)).await;
    }
}

#[test]
fn threads_never_see_more_than_the_limit_at_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let _enter = runtime.enter();
    let (world, leases) = World::alone();
    let (client, running) = (limited(3), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    if let Ok(grant) = client.now(&world, &leases) {
                        assert!(running.fetch_add(1, Ordering::SeqCst) < 3);
                        running.fetch_sub(1, Ordering::SeqCst);
                        drop(grant);
                    }
                }
            });
        }
    });
    assert_eq!(runtime.block_on(in_use(&world, &leases, &client)), 0);
}
