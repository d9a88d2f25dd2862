//! Ledgers: rows, their order and their joins, sealing, retention, quotas, profiles.

use proptest::prelude::*;

use super::*;
use crate::{
    model::{Charge, Profile, Reservation},
    state::{ReadError, RowQuery, StateError, ledger::SETTLED_CLASS},
};

pub(super) fn ledger() -> Rig {
    Rig::new(GroupId::LEDGER)
}

fn all(limit: usize) -> RowQuery {
    RowQuery { limit, ..RowQuery::default() }
}

/// Every page of a query.
fn pages(state: &State, query: &RowQuery) -> Vec<Row> {
    let (mut query, mut rows) = (query.clone(), Vec::new());
    loop {
        let page = state.rows(&query).expect("a page");
        assert!(page.rows.len() <= query.limit);
        rows.extend(page.rows);
        match page.next_cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => return rows,
        }
    }
}

pub(super) fn charged(row: Row, units: u64) -> Row {
    Row { charges: vec![Charge { quota: "daily".into(), period_start: 0, units }], ..row }
}

pub(super) fn reserve(node: u64, incarnation: u64, units: i64) -> ColdCommand {
    let (node, account, quota) = (NodeId(node), "acme".into(), "daily".into());
    let limit = 100;
    ColdCommand::Reserve(vec![Reservation {
        node,
        incarnation,
        account,
        quota,
        period_start: 0,
        units,
        limit,
        watch: None,
        look_at: None,
    }])
}

#[test]
fn a_retried_batch_lands_once_also_after_a_restart_and_in_any_order() {
    let mut rig = ledger();
    let batch = |number: u64| batch_of(1, 1, number, &[row(number, at(number as i64))]);
    for number in [1, 3, 2] {
        assert_eq!(rig.command(batch(number)), Reply::Rows(true));
    }
    assert_eq!(rig.command(batch(3)), Reply::Rows(false));
    rig.checkpoint();
    rig.restart();
    assert_eq!(rig.command(batch(1)), Reply::Rows(false));
    assert_eq!(rig.command(batch_of(1, 2, 1, &[row(9, at(9))])), Reply::Rows(true), "another incarnation");
    assert_eq!(rig.command(batch_of(2, 1, 1, &[row(10, at(10))])), Reply::Rows(true), "another node");
    assert_eq!(pages(rig.state(), &all(10)).len(), 5);
}

#[test]
fn a_block_that_does_not_read_stops_the_replica_and_names_its_entry() {
    let mut rig = ledger();
    rig.rows(1, &[row(1, at(0))]);
    rig.checkpoint();
    let Command::Rows(mut batch) = batch_of(1, 1, 2, &[row(2, at(0))]) else { panic!("no batch of rows") };
    batch.block = batch.block.slice(..batch.block.len() - 1);
    let payload = Payload::Command(Command::Rows(batch).encode());
    let entry = Entry { id: LogId { term: 1, index: 2 }, payload };
    let error = rig.state().apply(&[entry]).expect_err("damaged");
    assert!(matches!(error, StateError::Block { index: 2, .. }), "{error}");
    let after = rig.state().apply(&[Entry { id: LogId { term: 1, index: 2 }, payload: Payload::Blank }]);
    assert!(matches!(after, Err(StateError::Failed(_))));
    assert!(rig.state().checkpoint(&mut |_| Ok(())).is_err(), "nothing of it becomes durable");
}

#[test]
fn an_entry_that_comes_twice_stops_the_replica() {
    let mut rig = ledger();
    rig.payload(Payload::Blank);
    let entry = Entry { id: LogId { term: 1, index: 1 }, payload: Payload::Blank };
    assert!(matches!(rig.state().apply(&[entry]), Err(StateError::Order { last: 1, found: 1 })));
}

#[test]
fn rows_are_listed_newest_first_and_filtered() {
    let mut rig = ledger();
    let other = |number, second| Row {
        account: "b".into(),
        status: 429,
        outcome: Outcome::RateLimited,
        ..row(number, at(second))
    };
    rig.rows(1, &[row(1, at(10)), other(2, 30)]);
    rig.checkpoint();
    rig.rows(2, &[row(3, at(20)), row(4, at(5)), other(5, 20)]);
    let ids = |query: RowQuery| {
        pages(rig.state(), &query).iter().map(|row| row.request_id.0 as u64 & 0xff).collect::<Vec<_>>()
    };
    assert_eq!(ids(all(2)), [2, 5, 3, 1, 4], "by arrival; of the same arrival the later one first");
    assert_eq!(ids(RowQuery { account: Some("b".into()), ..all(1) }), [2, 5]);
    assert_eq!(ids(RowQuery { status: Some(200), ..all(1) }), [3, 1, 4]);
    assert_eq!(ids(RowQuery { outcome: Some(Outcome::RateLimited), since: Some(at(21)), ..all(9) }), [2]);
    assert_eq!(ids(RowQuery { since: Some(at(10)), until: Some(at(20)), ..all(9) }), [1]);
    assert_eq!(ids(RowQuery { route: Some("none".into()), ..all(9) }), [0u64; 0]);
    assert!(matches!(rig.state().rows(&RowQuery { cursor: Some("x".into()), ..all(1) }), Err(ReadError::Cursor)));
    let found = rig.state().row(id(at(30), 2)).expect("read").expect("there");
    assert_eq!(found, other(2, 30));
    assert_eq!(rig.state().row(id(at(30), 3)).expect("read"), None);
}

#[test]
fn an_open_row_is_joined_with_its_settling_record_wherever_that_lies() {
    let mut rig = ledger();
    let open = |number| Row { completion: Completion::Open, bytes_out: 0, cost: 0, ..charged(row(number, at(5)), 1) };
    let settles = |number| Row {
        settles: true,
        completion: Completion::ClientAbort,
        bytes_out: 777,
        duration_us: 9_000_000,
        cost: 4,
        ..charged(row(number, at(5)), 3)
    };
    rig.rows(1, &[open(1), open(2), open(3)]);
    rig.rows(2, &[settles(1), row(9, at(3_600))]);
    rig.checkpoint();
    rig.rows(3, &[settles(2)]);
    let whole = |number| {
        let mut row = Row {
            completion: Completion::ClientAbort,
            bytes_out: 777,
            duration_us: 9_000_000,
            cost: 4,
            ..open(number)
        };
        row.charges.extend(settles(number).charges);
        row
    };
    let expected = [row(9, at(3_600)), open(3), whole(2), whole(1)];
    assert_eq!(pages(rig.state(), &all(2)), expected);
    assert_eq!(rig.state().row(id(at(5), 1)).expect("read"), Some(whole(1)));
    assert_eq!(rig.state().row(id(at(5), 3)).expect("read"), Some(open(3)));
    rig.cold(ColdCommand::Seal { from: 1, to: 3 });
    assert_eq!(pages(rig.state(), &all(3)), expected);
    rig.checkpoint();
    rig.restart();
    assert_eq!(pages(rig.state(), &all(3)), expected);
}

#[test]
fn sealing_changes_no_row_and_its_leavings_go() {
    let mut rig = ledger();
    let midnight = 86_400;
    for number in 0..40i64 {
        // Around midnight, so that two files take turns; every third batch is in a file before it is sealed.
        let rows = [row(number as u64 * 2, at(midnight - 20 + number)), row(number as u64 * 2 + 1, at(number))];
        rig.rows(number as u64 + 1, &rows);
        if number % 3 == 0 {
            rig.checkpoint();
        }
    }
    let (rows, twin) = (pages(rig.state(), &all(7)), rig.twin());
    assert_eq!(rows.len(), 80);
    let halfway = rig.state().rows(&all(40)).expect("a page").next_cursor;
    rig.cold(ColdCommand::Seal { from: 1, to: 35 });
    assert_eq!(pages(rig.state(), &all(7)), rows);
    assert_eq!(pages(rig.state(), &RowQuery { cursor: halfway, ..all(9) }), rows[40..], "cursors stay good");
    assert_eq!(rig.state().stats().blocks, 5 + 2);
    rig.checkpoint();
    rig.payload(Payload::Blank);
    rig.checkpoint();
    assert_eq!(pages(rig.state(), &all(7)), rows);
    rig.restart();
    assert_eq!(pages(rig.state(), &all(7)), rows);
    assert_eq!(rows, pages(twin.state(), &all(7)));
    let replica = rig.state().read();
    let file = replica.storage.read_rows((DAY, 0)).expect("read").expect("there");
    assert_eq!(file.block(1).expect("read"), None, "the block of entry 1 was joined and removed");
    assert!(file.block(41).expect("read").is_some(), "the sealing entry has the joined one");
}

#[test]
fn sealable_entries_are_proposed_until_none_are_left() {
    let mut rig = ledger();
    assert_eq!(rig.state().sealable(), None);
    for number in 0..10u64 {
        rig.rows(number + 1, &[row(number, at(number as i64 * 20))]);
    }
    let (from, to) = rig.state().sealable().expect("old ones");
    assert_eq!((from, to), (1, 7), "a minute before the newest");
    rig.cold(ColdCommand::Seal { from, to });
    assert_eq!(rig.state().sealable(), None);
    rig.rows(11, &[row(11, at(10_000))]);
    let (from, to) = rig.state().sealable().expect("old ones");
    assert_eq!((from, to), (8, 10));
}

#[test]
fn retention_drops_whole_days() {
    let mut rig = ledger();
    let day = 86_400;
    let open = Row { completion: Completion::Open, ..row(1, at(0)) };
    let settles = Row { settles: true, ..row(1, at(0)) };
    rig.rows(1, &[open, row(2, at(1))]);
    rig.rows(2, &[settles, row(3, at(day))]);
    rig.checkpoint();
    rig.rows(3, &[row(4, at(2 * day))]);
    assert_eq!(rig.state().stats().row_files, 3, "two days, and the settling records of one");
    assert_eq!(rig.state().droppable(at(32 * day)), Some((DAY + 2, 0)));
    assert_eq!(rig.cold(ColdCommand::DropBefore { day: DAY + 1, class: 0 }), Reply::Done);
    let left = [row(4, at(2 * day)), row(3, at(day))];
    assert_eq!(pages(rig.state(), &all(9)), left);
    assert_eq!(rig.state().row(id(at(1), 2)).expect("read"), None);
    rig.checkpoint();
    assert_eq!(rig.state().stats().row_files, 3, "one gone, one new");
    assert_eq!(rig.state().droppable(at(31 * day)), Some((DAY + 1, SETTLED_CLASS)), "settling records follow");
    rig.cold(ColdCommand::DropBefore { day: DAY + 1, class: SETTLED_CLASS });
    rig.checkpoint();
    assert_eq!(rig.state().stats().row_files, 2);
    assert_eq!(rig.state().droppable(at(31 * day)), None);
    rig.restart();
    assert_eq!(pages(rig.state(), &all(9)), left);
    assert_eq!(rig.rows(4, &[row(5, at(2))]), Reply::Rows(true), "a row that late is still taken");
    assert_eq!(pages(rig.state(), &all(9)).len(), 3);
    rig.checkpoint();
    rig.restart();
    assert_eq!(pages(rig.state(), &all(9)).len(), 3);
    rig.cold(ColdCommand::DropBefore { day: DAY + 1, class: 7 });
    assert_eq!(pages(rig.state(), &all(9)).len(), 3, "another class");
}

/// What the leader would propose at a time, until there is nothing more to drop.
fn drop_all(rig: &mut Rig, now: Timestamp) -> Vec<(i32, u16)> {
    let mut dropped = Vec::new();
    while let Some((day, class)) = rig.state().droppable(now) {
        assert_eq!(rig.cold(ColdCommand::DropBefore { day, class }), Reply::Done);
        rig.checkpoint();
        dropped.push((day, class));
        assert!(dropped.len() < 9, "{dropped:?}");
    }
    dropped
}

#[test]
fn rows_stay_as_many_days_as_their_tier_said() {
    let mut rig = ledger();
    let day = 86_400;
    let of = |number, days| Row { retention_days: days, ..row(number, at(0)) };
    let read = |row: Row| Row { retention_days: 0, ..row };
    let open = |number, days| Row { completion: Completion::Open, bytes_out: 0, ..of(number, days) };
    let settles = |number, days| Row { settles: true, ..of(number, days) };
    rig.rows(1, &[open(1, 7), of(2, 7)]);
    rig.rows(2, &[open(3, 0), of(4, 0)]);
    rig.rows(3, &[open(5, 90)]);
    rig.rows(4, &[settles(1, 7)]);
    rig.rows(5, &[settles(3, 0)]);
    rig.rows(6, &[settles(5, 90)]);
    rig.checkpoint();
    let left = |rig: &Rig| {
        let mut rows = pages(rig.state(), &all(9));
        rows.sort_by_key(|row| row.request_id);
        rows
    };
    let numbers = |numbers: &[u64]| numbers.iter().map(|number| read(of(*number, 0))).collect::<Vec<_>>();
    assert_eq!(left(&rig), numbers(&[1, 2, 3, 4, 5]), "settled, wherever they are");
    assert_eq!(drop_all(&mut rig, at(7 * day)), []);
    assert_eq!(drop_all(&mut rig, at(8 * day)), [(DAY + 1, 7)]);
    assert_eq!(left(&rig), numbers(&[3, 4, 5]));
    // By a replicated command alone: a replica that replays the log has the same, and so has one that restarts.
    rig.restart();
    assert_eq!(left(&rig), numbers(&[3, 4, 5]));
    assert_eq!(drop_all(&mut rig, at(31 * day)), [(DAY + 1, 0)]);
    assert_eq!(left(&rig), numbers(&[5]), "with what settled it, which other classes have outlived");
    assert_eq!(drop_all(&mut rig, at(90 * day)), []);
    // A row of a day that is over for its class alone goes with that class.
    assert_eq!(rig.rows(7, &[of(6, 7), of(7, 7)]), Reply::Rows(true));
    assert_eq!(drop_all(&mut rig, at(91 * day)), [(DAY + 1, 90), (DAY + 84, 7), (DAY + 61, SETTLED_CLASS)]);
    assert_eq!(left(&rig), []);
    assert_eq!(rig.state().stats().row_files, 0, "nothing is left behind");
}

#[test]
fn quotas_are_reserved_charged_and_forfeited() {
    let mut rig = ledger();
    let (acme, daily) = ("acme".into(), "daily".into());
    let now = |rig: &Rig| {
        let now = rig.state().quota(&acme, &daily, 0).expect("read");
        assert!(rig.state().quotas(&acme).expect("read").iter().all(|one| *one == now));
        (now.used, now.reserved, now.unsettled)
    };
    assert_eq!(now(&rig), (0, 0, 0));
    rig.cold(ColdCommand::NodeStarted { node: NodeId(1), incarnation: 1 });
    assert_eq!(rig.cold(reserve(1, 1, 30)), Reply::Granted(vec![30]));
    assert_eq!(rig.cold(reserve(2, 1, 90)), Reply::Granted(vec![70]));
    rig.checkpoint();
    rig.command(batch_of(1, 1, 1, &[charged(row(1, at(0)), 4), charged(row(2, at(0)), 6), row(3, at(0))]));
    assert_eq!(now(&rig), (10, 90, 0));
    rig.cold(ColdCommand::NodeStarted { node: NodeId(1), incarnation: 2 });
    assert_eq!(now(&rig), (10, 70, 20));
    assert_eq!(rig.cold(reserve(1, 2, 5)), Reply::Granted(vec![0]));
    assert_eq!(rig.cold(reserve(2, 1, -40)), Reply::Granted(vec![0]));
    assert_eq!(rig.cold(reserve(1, 2, 50)), Reply::Granted(vec![40]));
    rig.restart();
    assert_eq!(now(&rig), (10, 70, 20));
    rig.command(batch_of(1, 1, 2, &[charged(row(4, at(1)), 20)]));
    assert_eq!(now(&rig), (30, 70, 0), "a late block of the dead incarnation settles what was forfeited");
}

#[test]
fn staging_a_profile_keeps_the_published_one_and_the_new_one() {
    let mut rig = ledger();
    let mut stage = |stage: &str, published: &str| {
        let profile = Profile { name: stage.to_uppercase(), ..Profile::default() };
        let (stage, published) = (stage.to_owned(), published.to_owned());
        rig.cold(ColdCommand::StageProfile { account: "acme".into(), stage, published, profile })
    };
    stage("a", "");
    stage("b", "a");
    stage("c", "a");
    let wanted: Vec<_> = ["a", "b", "c"].map(|stage| ("acme".into(), stage.to_owned())).into();
    let found = rig.state().profiles(&wanted).expect("read");
    let names: Vec<_> = found.iter().map(|found| found.as_ref().map(|profile| profile.name.as_str())).collect();
    assert_eq!(names, [Some("A"), None, Some("C")]);
}

#[test]
fn a_follower_sees_every_row_once_in_the_order_of_commits_whatever_is_sealed() {
    let mut rig = ledger();
    let query = RowQuery::default();
    // The second batch's rows arrived before the first one's.
    rig.rows(1, &[row(1, at(50)), row(2, at(51))]);
    let from = rig.state().next_record();
    rig.rows(2, &[row(3, at(10)), row(4, at(60))]);
    rig.rows(3, &[row(5, at(20))]);
    let ids = |followed: &crate::state::Followed| {
        followed.rows.iter().map(|row| row.request_id.0 as u64 & 0xff).collect::<Vec<_>>()
    };
    let all = rig.state().rows_from(0, &query, 100).expect("read");
    assert_eq!((ids(&all), all.next), (vec![1, 2, 3, 4, 5], 5));
    assert_eq!(ids(&rig.state().rows_from(from, &query, 100).expect("read")), [3, 4, 5]);
    rig.cold(ColdCommand::Seal { from: 1, to: rig.log.len() as u64 });
    rig.checkpoint();
    let (mut next, mut seen) = (0, Vec::new());
    while next < rig.state().next_record() {
        let some = rig.state().rows_from(next, &query, 2).expect("read");
        assert!(some.next > next && some.rows.len() <= 2);
        seen.extend(ids(&some));
        next = some.next;
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    let none = RowQuery { account: Some("other".into()), ..RowQuery::default() };
    let followed = rig.state().rows_from(0, &none, 100).expect("read");
    assert_eq!((followed.rows.len(), followed.next), (0, 5));
}

#[test]
fn changes_of_one_account_at_the_same_time_do_not_drop_each_others_profiles() {
    let mut rig = ledger();
    let ulid = |ms: u64, random: u128| ulid::Ulid::from_parts(ms, random).to_string();
    let stage = |stage: &str, published: &str| crate::model::Staged {
        account: "acme".into(),
        stage: stage.to_owned(),
        published: published.to_owned(),
        profile: Profile { name: stage.to_uppercase(), ..Profile::default() },
    };
    let (first, mine, other) = (ulid(1_000, 1), ulid(50_000, 2), ulid(50_100, 3));
    // Both have read that the first one is published; mine is published while the other is staged.
    rig.cold(ColdCommand::StageProfiles(vec![stage(&first, "")]));
    rig.cold(ColdCommand::StageProfiles(vec![stage(&mine, &first), stage(&other, &first)]));
    let there = |rig: &Rig, stage: &str| rig.state().profile(&"acme".into(), stage).expect("read").is_some();
    assert!(there(&rig, &first) && there(&rig, &mine) && there(&rig, &other));
    let later = ulid(90_000, 4);
    rig.cold(ColdCommand::StageProfiles(vec![stage(&later, &other)]));
    assert!(!there(&rig, &first) && !there(&rig, &mine) && there(&rig, &other) && there(&rig, &later));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Pages show every row that was there at the start exactly once and in order, whatever happens between two of them.
    #[test]
    fn pages_cover_all_rows_once_in_order_while_others_come(
        batches in prop::collection::vec(prop::collection::vec(0i64..400, 1..9), 1..20),
        more in prop::collection::vec((prop::collection::vec(0i64..400, 1..4), 0u8..5), 0..12),
        limit in 1usize..20,
    ) {
        let mut rig = ledger();
        let (mut number, mut batch) = (0, 0);
        let mut rows = |seconds: &[i64]| -> Vec<Row> {
            seconds.iter().map(|second| { number += 1; row(number, at(second * 600)) }).collect()
        };
        let mut there = Vec::new();
        for seconds in &batches {
            let rows = rows(seconds);
            there.extend(rows.iter().map(|row| (row.ts, row.request_id)));
            batch += 1;
            rig.rows(batch, &rows);
        }
        let (mut query, mut listed) = (all(limit), Vec::new());
        let mut more = more.iter();
        loop {
            let page = rig.state().rows(&query).expect("a page");
            listed.extend(page.rows.iter().map(|row| (row.ts, row.request_id)));
            query.cursor = page.next_cursor;
            if query.cursor.is_none() {
                break;
            }
            if let Some((seconds, what)) = more.next() {
                batch += 1;
                let rows = rows(seconds);
                rig.rows(batch, &rows);
                match what {
                    0 => rig.checkpoint(),
                    1 => drop(rig.cold(ColdCommand::Seal { from: 1, to: batch / 2 })),
                    2 => rig.restart(),
                    _ => {}
                }
            }
        }
        prop_assert!(listed.windows(2).all(|pair| pair[0].0 >= pair[1].0), "newest first");
        let before: std::collections::BTreeSet<_> = there.iter().copied().collect();
        let seen: Vec<_> = listed.iter().copied().filter(|place| before.contains(place)).collect();
        prop_assert_eq!(seen.len(), there.len());
        prop_assert_eq!(seen.into_iter().collect::<std::collections::BTreeSet<_>>(), before);
    }
}
