//! Nodes that do not lead.

use super::*;

#[tokio::test]
async fn rates_hold_over_all_nodes() {
    let (world, one) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate("all", "10/s", 10)], vec![], None));
    let mut granted = 0;
    for _ in 0..15 {
        for leases in [&one, &two] {
            granted += u32::from(client.ask(&world, leases).await.is_ok());
        }
    }
    assert_eq!(granted, 10);
}

#[tokio::test]
async fn a_flood_is_refused_from_memory() {
    let (world, _one) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate("per-second", "1/s", 1)], vec![], None));
    client.ask(&world, &two).await.expect("the burst");
    let asks = world.asks.load(Ordering::Relaxed);
    for _ in 0..1_000 {
        let refused = refusal(client.ask(&world, &two).await);
        assert_eq!((refused.policy, refused.retry_after), (Policy::Rate, Duration::from_secs(1)));
        assert_eq!(refused.standings[0].remaining, 0);
    }
    let asked = world.asks.load(Ordering::Relaxed) - asks;
    assert!(asked <= 3, "{asked} messages (renewals) for a thousand refusals");
    world.wait_ns(SECOND);
    client.ask(&world, &two).await.expect("after Retry-After");
}

#[tokio::test]
async fn a_flood_above_the_concurrency_is_refused_from_memory() {
    let (world, _one) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![], vec![], Some(1)));
    let grant = client.ask(&world, &two).await.expect("the unit");
    refusal(client.ask(&world, &two).await);
    let asks = world.asks.load(Ordering::Relaxed);
    for _ in 0..1_000 {
        assert_eq!(refusal(client.ask(&world, &two).await).policy, Policy::Concurrency);
    }
    assert!(world.asks.load(Ordering::Relaxed) - asks <= 2);
    drop(grant);
    client.ask(&world, &two).await.expect("its own unit came back: the memory is void");
}

#[tokio::test]
async fn requests_that_wait_share_messages() {
    let (world, _one) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate("x", "1000/s", 500)], vec![], None));
    let asks = world.asks.load(Ordering::Relaxed);
    let granted = futures_util::future::join_all((0..400).map(|_| client.ask(&world, &two))).await;
    assert!(granted.iter().all(Result::is_ok));
    assert!(world.asks.load(Ordering::Relaxed) - asks <= 5);
}

#[tokio::test]
async fn no_leader_is_unavailable_and_never_a_refusal() {
    let (world, one) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate("x", "1/s", 1)], vec![], None));
    world.depose();
    for leases in [&one, &two] {
        assert!(matches!(client.ask(&world, leases).await, Err(Denied::Unavailable(_))));
    }
    world.elect(1, 2, false);
    world.cut(2);
    assert!(matches!(client.ask(&world, &two).await, Err(Denied::Unavailable(_))));
    world.heal();
    world.wait_ns(2 * SECOND);
    client.ask(&world, &two).await.expect("the leader is there again");
}

#[tokio::test]
async fn who_waits_for_a_new_leader_to_decide_is_not_refused() {
    let (world, _one) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate("x", "1000/s", 1_000)], vec![], None));
    world.elect(1, 2, false);
    let decides = async {
        // Some rounds of questions, before all that an earlier leader may have lent has ended.
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.wait_ns(SECOND);
    };
    let (granted, ()) = tokio::join!(client.ask(&world, &two), decides);
    granted.expect("it waited");
}

#[tokio::test]
async fn a_message_that_was_overtaken_is_not_acted_on() {
    let (_world, one) = World::alone();
    let ask = |number, full, held| {
        let ask = wire::Ask {
            group: GroupId::LEDGER,
            node: NodeId(2),
            incarnation: 5,
            number,
            full,
            held,
            demands: vec![],
            reports: vec![],
            ahead: vec![],
        };
        wire::decode::<wire::Answer>(&one.answer(&wire::encode(&ask))).expect("an answer")
    };
    assert_eq!(ask(1, false, vec![]), wire::Answer::SayAll);
    assert!(matches!(ask(3, true, vec![(7, 1)]), wire::Answer::Decided(_)));
    assert_eq!(ask(2, true, vec![(7, 9)]), wire::Answer::Stale);
    assert_eq!(ask(3, true, vec![(7, 9)]), wire::Answer::Stale);
    assert!(matches!(ask(4, false, vec![]), wire::Answer::Decided(_)));
}

#[tokio::test]
async fn levels_and_peeks_are_asked_of_the_leader() {
    let (world, one) = World::alone();
    let two = world.start(2, 1);
    let mut each = rate("each", "3/s", 3);
    each.per = vec![Dimension::Key, Dimension::Route];
    let client = client(tier(vec![rate("all", "5/s", 5), each], vec![], Some(9)));
    let _grant = client.now(&world, &one).expect("full");
    let route = [client.route.clone()];
    let levels = two.levels(&client.key.account, std::slice::from_ref(&client.key), &route, world.wall()).await;
    let levels = levels.expect("the leader answers");
    assert_eq!(levels.concurrent, Some(1));
    let seen: Vec<_> =
        levels.rates.iter().map(|l| (&*l.limit, l.key.is_some(), l.route.is_some(), l.remaining)).collect();
    assert_eq!(seen, [("all", false, false, 4), ("each", true, true, 2)]);
    let standings = two.peek(client.demand(&world)).await.expect("it would pass");
    assert_eq!(standings.iter().map(|s| s.remaining).collect::<Vec<_>>(), [4, 2, 8]);
}
