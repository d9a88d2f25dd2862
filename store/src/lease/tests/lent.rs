//! The rules of rate units on lease, one by one, as messages between a node and its leader.

use super::*;
use crate::{
    lease::{
        bucket::Wanted,
        few::Few,
        purse::{Found, Promise, Purses},
        wire::{Ahead, Answer, Ask, Decided, Decision, Lent, Report, WireDemand},
    },
    model::Gcra,
};

/// A node that speaks to the leader by hand.
struct Node {
    number: u64,
    incarnation: u64,
    /// Of all its demands.
    slot: Option<u16>,
    leader: Leases,
}

impl Node {
    fn new(leader: &Leases) -> Self {
        Self { number: 0, incarnation: 1, slot: None, leader: leader.clone() }
    }

    fn say(&mut self, demands: Vec<Wanted>, reports: Vec<Report>, ahead: Vec<Ahead>) -> Decided {
        self.number += 1;
        let full = self.number == 1;
        self.send(self.number, full, demands, reports, ahead).expect("a leader's answer")
    }

    fn send(
        &self,
        number: u64,
        full: bool,
        demands: Vec<Wanted>,
        reports: Vec<Report>,
        ahead: Vec<Ahead>,
    ) -> Option<Decided> {
        let demand =
            |wanted| WireDemand { account: 1, concurrency: None, rates: vec![wanted], look: false, slot: self.slot };
        let ask = Ask {
            group: GroupId::LEDGER,
            node: NodeId(9),
            incarnation: self.incarnation,
            number,
            full,
            held: vec![],
            demands: demands.into_iter().map(demand).collect(),
            reports,
            ahead,
        };
        match wire::decode(&self.leader.answer(&wire::encode(&ask))).expect("an answer") {
            Answer::Decided(decided) => Some(decided),
            _ => None,
        }
    }

    fn take(&mut self, wanted: Wanted) -> Option<Lent> {
        let decided = self.say(vec![wanted], vec![], vec![]);
        (decided.verdicts[0].decision == Decision::Granted).then(|| decided.lent[0])
    }
}

fn bucket(rate: &str, burst: u64, revision: u64) -> Wanted {
    let gcra = Gcra::new(rate.parse().expect("a rate"), burst);
    Wanted { name: 77, emission_ns: gcra.emission_ns, capacity_ns: gcra.capacity_ns, revision, since_ns: 0 }
}

fn report(lent: &Lent, term: u64, spent: u64, left: u64) -> Report {
    Report { name: lent.name, lease: lent.lease, term, spent, left, age_ns: 0 }
}

/// Another group may have let its burst through a moment ago, and a wish does not say which slot it is of.
#[tokio::test]
async fn a_bucket_that_came_from_another_group_is_empty_also_for_who_wishes_ahead() {
    let (world, leader) = World::alone();
    let mut node = Node::new(&leader);
    let ten = bucket("10/s", 10, 1);
    world.moved_ns.store(world.now_ns(), Ordering::Relaxed);
    assert!(node.say(vec![], vec![], vec![Ahead { wanted: ten, units: 5 }]).lent.is_empty());
    assert_eq!(node.say(vec![ten], vec![], vec![]).verdicts[0].decision, Decision::NotYet, "it says no slot either");
    node.slot = Some(7);
    assert!(node.take(ten).is_none(), "empty when it came");
    world.wait_ns(SECOND);
    assert!(!node.say(vec![], vec![], vec![Ahead { wanted: ten, units: 5 }]).lent.is_empty(), "known now, and full");
}

#[tokio::test]
async fn a_report_counts_once_however_often_it_comes() {
    let (world, leader) = World::alone();
    let mut node = Node::new(&leader);
    let two = bucket("2/s", 2, 1);
    let lent = node.take(two).expect("full");
    node.take(two).expect("the other");
    node.say(vec![], vec![report(&lent, 1, 1, 1)], vec![]);
    // Half a second for the first one's place; said again, it changes nothing.
    world.wait_ns(SECOND / 2);
    for _ in 0..3 {
        node.say(vec![], vec![report(&lent, 1, 1, 1)], vec![]);
    }
    node.take(two).expect("one unit has refilled");
    assert!(node.take(two).is_none());
}

#[tokio::test]
async fn a_message_that_comes_twice_or_late_lends_nothing() {
    let (_world, leader) = World::alone();
    let mut node = Node::new(&leader);
    let two = bucket("2/s", 2, 1);
    node.take(two).expect("full");
    assert_eq!(node.send(1, true, vec![two], vec![], vec![]), None, "its number was seen");
    node.take(two).expect("the other is still there");
}

#[tokio::test]
async fn units_that_are_not_reported_are_spent_when_their_lease_ends() {
    let (world, leader) = World::alone();
    let mut node = Node::new(&leader);
    let one = bucket("1/s", 1, 1);
    let lent = node.take(one).expect("full");
    world.wait_ns(group::LENT_FOR_NS);
    assert!(node.take(one).is_none(), "another's clock may be slower: the lease runs");
    // It ends 505 ms after it was given, and is spent then.
    world.wait_ns(SECOND / 100);
    assert!(node.take(one).is_none());
    // A report of a lease that has ended is not heard: neither spent twice nor returned.
    node.say(vec![], vec![report(&lent, 1, 0, 0)], vec![]);
    world.wait_ns(SECOND * 98 / 100);
    assert!(node.take(one).is_none(), "its time runs from the end of the lease");
    world.wait_ns(SECOND / 50);
    node.take(one).expect("a second after the lease's end");
}

#[tokio::test]
async fn unspent_units_come_back() {
    let (_world, leader) = World::alone();
    let mut node = Node::new(&leader);
    let one = bucket("1/s", 1, 1);
    let lent = node.take(one).expect("full");
    node.say(vec![], vec![report(&lent, 1, 0, 0)], vec![]);
    node.take(one).expect("at once");
}

#[tokio::test]
async fn a_lease_whose_answer_was_lost_comes_back_with_the_next_full_message() {
    let (_world, leader) = World::alone();
    let mut node = Node::new(&leader);
    let one = bucket("1/s", 1, 1);
    node.take(one).expect("full; but suppose this never arrived");
    node.number += 1;
    node.send(node.number, true, vec![], vec![], vec![]).expect("all that it holds is nothing");
    node.take(one).expect("the unit is back");
}

#[tokio::test]
async fn a_process_that_is_gone_has_spent_what_it_held() {
    let (world, leader) = World::alone();
    let mut node = Node::new(&leader);
    let one = bucket("1/s", 1, 1);
    node.take(one).expect("full");
    let mut next = Node { incarnation: 2, ..Node::new(&leader) };
    assert!(next.take(one).is_none());
    world.wait_ns(SECOND);
    next.take(one).expect("its time runs from when it was known to be gone");
}

#[tokio::test]
async fn a_report_from_an_earlier_term_is_not_heard() {
    let (world, leader) = World::alone();
    let mut node = Node::new(&leader);
    let one = bucket("1/s", 1, 1);
    let lent = node.take(one).expect("full");
    world.elect(1, 2, false);
    world.wait_ns(OPENS + SECOND);
    let mut node = Node { number: 0, ..node };
    let again = node.take(one).expect("full again");
    assert_ne!(lent.lease, again.lease, "no reign gives a number that another gave");
    node.say(vec![], vec![report(&lent, 1, 0, 0)], vec![]);
    assert!(node.take(one).is_none(), "the unit of this term is still out");
}

#[tokio::test]
async fn a_lowered_limit_takes_back_what_was_lent_under_the_old_one() {
    let (world, _leader) = World::alone();
    let two = world.start(2, 1);
    let with = |burst, revision| {
        let rate = format!("{burst}/s");
        client(Tier { revision, ..tier(vec![rate_of("x", &rate, burst)], vec![], None) })
    };
    let (old, new) = (with(1_000, 1), with(10, 2));
    for _ in 0..100 {
        old.ask(&world, &two).await.expect("within the burst");
        world.wait_ns(SECOND / 1_000);
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let held = || two.inner.groups.load()[0].purses.units();
    until("it holds a lease ahead of demand", || {
        world.wait_ns(SECOND / 1_000);
        let _ = old.ask(&world, &two).now_or_never();
        held() > 20
    })
    .await;
    let mut admitted = 0;
    for _ in 0..50 {
        admitted += u32::from(new.ask(&world, &two).await.is_ok());
    }
    assert!(admitted <= 10, "{admitted} admitted at once under a burst of 10");
}

fn rate_of(name: &str, rate: &str, burst: u64) -> Limit {
    super::rate(name, rate, burst)
}

#[tokio::test]
async fn a_node_spends_nothing_of_a_lease_that_has_ended() {
    let (world, _leader) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate_of("x", "1000/s", 1_000)], vec![], None));
    until("it holds a lease ahead of demand", || {
        world.wait_ns(SECOND / 1_000);
        let _ = client.ask(&world, &two).now_or_never();
        two.inner.groups.load().first().is_some_and(|group| group.purses.units() > 5)
    })
    .await;
    world.cut(2);
    client.ask(&world, &two).now_or_never().expect("from memory").expect("the lease runs");
    world.wait_ns(group::LENT_FOR_NS);
    assert!(client.ask(&world, &two).now_or_never().is_none(), "it must ask");
}

#[test]
fn a_report_that_came_after_the_leases_end_renews_nothing() {
    let wanted = bucket("10/s", 10, 1);
    let all: Few<Wanted> = [wanted].into_iter().collect();
    let lent = Lent { name: wanted.name, lease: 1, units: 5, revision: 1, prompt: false };
    let (ms, sent_ns, leader_ns) = (SECOND / 1_000, 7 * SECOND, 9 * SECOND);
    // The second message is sent 200 ms after the first and reaches the leader so much after it.
    let spends_at_550 = |came_ns: u64| {
        let purses = Purses::new();
        assert!(matches!(purses.take_all(&all, sent_ns), (Found::Ask, _)), "it holds none");
        purses.lent(&lent, 0, 1, sent_ns, leader_ns);
        let reports = purses.reports(1, true, false, sent_ns + 200 * ms);
        purses.reported(&reports, 1, sent_ns + 200 * ms, leader_ns + came_ns);
        matches!(purses.take_all(&all, sent_ns + 550 * ms), (Found::Spent(..), _))
    };
    assert!(spends_at_550(504 * ms), "renewed in time");
    assert!(!spends_at_550(505 * ms), "the leader counts its units as spent");
}

/// A request took a unit, its lease ended and another came, and then its quota refused it: the next lease had a unit more.
#[test]
fn a_unit_goes_back_to_the_lease_that_it_is_of_or_to_none() {
    let (wanted, newer) = (bucket("10/s", 10, 1), bucket("10/s", 10, 2));
    let all: Few<Wanted> = [wanted].into_iter().collect();
    let lent = |lease, revision| Lent { name: wanted.name, lease, units: 2, revision, prompt: false };
    let now = 7 * SECOND;
    let spent = |purses: &Purses, all: &Few<Wanted>| match purses.take_all(all, now) {
        (Found::Spent(_, leases), _) => Some(leases),
        _ => None,
    };
    let purses = Purses::new();
    assert!(spent(&purses, &all).is_none(), "it holds none");
    purses.lent(&lent(1, 1), 0, 1, now, now);
    let first = spent(&purses, &all).expect("two are there");
    purses.give_back(all.iter().zip(first.iter()));
    assert_eq!(purses.units(), 2, "its lease has it again");
    let first = spent(&purses, &all).expect("two are there");
    purses.lent(&lent(2, 1), 0, 1, now, now);
    let second = spent(&purses, &all).expect("two of the next");
    purses.give_back(all.iter().zip(first.iter()));
    assert_eq!(purses.units(), 1, "the first lease is over");
    // Nor when policies have changed since, and what this node held under the old ones was thrown away.
    let all_newer: Few<Wanted> = [newer].into_iter().collect();
    assert!(spent(&purses, &all_newer).is_none());
    purses.give_back(all.iter().zip(second.iter()));
    assert_eq!(purses.units(), 0);
    assert!(spent(&purses, &all_newer).is_none());
}

#[test]
fn a_promise_of_older_policies_that_nobody_wants_is_not_spent_by_others() {
    let (wanted, newer) = (bucket("10/s", 10, 1), bucket("10/s", 10, 2));
    let now = 7 * SECOND;
    let purses = Purses::new();
    let all: Few<Wanted> = [wanted].into_iter().collect();
    assert!(matches!(purses.take_all(&all, now), (Found::Ask, _)), "it holds none");
    purses.lent(&Lent { name: wanted.name, lease: 1, units: 2, revision: 1, prompt: false }, 2, 1, now, now);
    let promise = |revision| Promise { name: wanted.name, lease: 1, revision };
    purses.break_promise(&promise(1));
    assert!(matches!(purses.take_all(&all, now), (Found::Spent(..), _)), "it is whoever's comes next");
    let all_newer: Few<Wanted> = [newer].into_iter().collect();
    assert!(matches!(purses.take_all(&all_newer, now), (Found::Ask, _)));
    purses.break_promise(&promise(1));
    assert!(matches!(purses.take_all(&all_newer, now), (Found::Ask, _)), "it goes back");
    let reports = purses.reports(1, false, false, now);
    assert_eq!(reports.iter().map(|report| report.left).sum::<u64>(), 0, "{reports:?}");
}

#[tokio::test]
async fn steady_demand_is_served_from_memory() {
    let (world, _leader) = World::alone();
    let two = world.start(2, 1);
    let client = client(tier(vec![rate_of("x", "1000/s", 1_000)], vec![], Some(100)));
    let mut waited = 0;
    for n in 0..2_000 {
        let mut asking = Box::pin(client.ask(&world, &two));
        if futures_util::poll!(&mut asking).is_pending() {
            waited += u32::from(n > 100);
            asking.await.expect("below the limit");
        }
        world.wait_ns(SECOND / 500);
        // The background has its turn between two requests; it lingers for a millisecond.
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    assert!(waited < 20, "{waited} of 1,900 waited");
}
