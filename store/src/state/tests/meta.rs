//! Group 0: scripts of writes, and what they answer.

use std::sync::{Arc, Mutex};

use super::*;
use crate::{
    model::{AuditChain, AuditNote, AuditObject, AuditRecord, CommandError, KeyState, Once, WriteConflict},
    state::{Change, codec, meta::COUNT, tables::Table},
};

fn refused(op: u32, kind: &str, id: &str, conflict: WriteConflict) -> Reply {
    Reply::Refused(CommandError::Conflict { op, kind: kind.into(), id: id.into(), conflict })
}

fn dangling(kind: &str, id: &str) -> WriteConflict {
    WriteConflict::Dangling { kind: kind.into(), id: id.into() }
}

fn in_use(kind: &str, id: &str) -> WriteConflict {
    WriteConflict::InUse { kind: kind.into(), id: id.into() }
}

fn furnished() -> Rig {
    let mut rig = Rig::new(GroupId::META);
    let ops = vec![tier("free"), put_account("acme", "free"), put_key(key("key_1", "acme", "s1"))];
    assert_eq!(rig.meta(ops), Reply::Written(1));
    rig
}

fn revoked(id: &str, account: &str, secret: &str) -> Key {
    Key { state: KeyState::Revoked, revoked_at: Some(at(9)), ..key(id, account, secret) }
}

#[test]
fn objects_get_the_entrys_index_as_revision_and_keep_when_they_were_made() {
    let mut rig = furnished();
    let mut changed = account("acme", "free");
    changed.created_at = at(500);
    changed.region = "eu".into();
    assert_eq!(rig.meta(vec![MetaOp::PutAccount { account: changed, expect: Expect::Revision(1) }]), Reply::Written(2));
    let found = rig.state().account(&"acme".into()).expect("read").expect("there");
    assert_eq!((found.revision, found.created_at, found.region.as_str()), (2, at(1), "eu"));
    let key = rig.state().key_by_hash(&KeyHash::of("s1")).expect("read").expect("there");
    assert_eq!((key.id.as_str(), key.revision), ("key_1", 1));
    assert_eq!(rig.state().keys(&"acme".into(), None, 10).expect("read"), [key]);
}

#[test]
fn expectations_are_held_against_what_is_there() {
    let mut rig = furnished();
    let put = |expect| vec![MetaOp::PutTier { tier: Tier { name: "free".into(), ..Tier::default() }, expect }];
    assert_eq!(rig.meta(put(Expect::Absent)), refused(0, "tier", "free", WriteConflict::Exists));
    let stale = WriteConflict::Revision { expected: 7, current: 1 };
    assert_eq!(rig.meta(put(Expect::Revision(7))), refused(0, "tier", "free", stale));
    assert_eq!(rig.meta(put(Expect::Present)), Reply::Written(4));
    let delete = |expect| vec![MetaOp::DeleteRoute { name: "none".into(), expect }];
    assert_eq!(rig.meta(delete(Expect::Present)), refused(0, "route", "none", WriteConflict::Missing));
    assert_eq!(rig.meta(delete(Expect::Revision(1))), refused(0, "route", "none", WriteConflict::Missing));
    assert_eq!(rig.meta(delete(Expect::Any)), Reply::Written(7), "nothing expected, nothing to do");
}

#[test]
fn references_are_held_and_used_objects_stay() {
    let mut rig = furnished();
    assert_eq!(rig.meta(vec![put_account("b", "gold")]), refused(0, "account", "b", dangling("tier", "gold")));
    let orphan = put_key(key("key_2", "nobody", "s2"));
    assert_eq!(rig.meta(vec![orphan]), refused(0, "key", "key_2", dangling("account", "nobody")));
    assert_eq!(rig.meta(vec![route("scan", "up")]), refused(0, "route", "scan", dangling("upstream", "up")));
    assert_eq!(rig.meta(vec![upstream("up"), route("scan", "up")]), Reply::Written(5), "later ones see earlier ones");
    let delete_tier = || MetaOp::DeleteTier { name: "free".into(), expect: Expect::Any };
    let delete_upstream = || MetaOp::DeleteUpstream { name: "up".into(), expect: Expect::Any };
    assert_eq!(rig.meta(vec![delete_tier()]), refused(0, "tier", "free", in_use("account", "acme")));
    assert_eq!(rig.meta(vec![delete_upstream()]), refused(0, "upstream", "up", in_use("route", "scan")));
    rig.checkpoint();
    assert_eq!(rig.meta(vec![delete_tier()]), refused(0, "tier", "free", in_use("account", "acme")));
    let ops = vec![tier("gold"), put_account("acme", "gold"), delete_tier()];
    assert_eq!(rig.meta(ops), Reply::Written(9), "the account has left the tier");
    let ops = vec![MetaOp::DeleteRoute { name: "scan".into(), expect: Expect::Any }, delete_upstream()];
    assert_eq!(rig.meta(ops), Reply::Written(10));
    assert!(rig.state().upstreams().expect("read").is_empty() && rig.state().routes().expect("read").is_empty());
}

#[test]
fn revoked_keys_stay_revoked_and_hashes_are_nobody_elses() {
    let mut rig = furnished();
    let other = put_key(key("key_2", "acme", "s1"));
    assert_eq!(rig.meta(vec![other]), refused(0, "key", "key_2", WriteConflict::Exists));
    assert_eq!(rig.meta(vec![put_key(revoked("key_1", "acme", "s1"))]), Reply::Written(3));
    let again = put_key(key("key_1", "acme", "s1"));
    assert_eq!(rig.meta(vec![again]), refused(0, "key", "key_1", WriteConflict::Revoked));
    let renamed = Key { name: "old".into(), revoked_at: None, ..revoked("key_1", "acme", "s1") };
    assert_eq!(rig.meta(vec![put_key(renamed)]), Reply::Written(5));
    let found = rig.state().key(&"key_1".into()).expect("read").expect("there");
    assert_eq!((found.name.as_str(), found.revoked_at), ("old", Some(at(9))));
}

#[test]
fn an_account_goes_with_its_tombstoned_keys_but_not_with_live_ones() {
    let mut rig = furnished();
    let delete = || vec![MetaOp::DeleteAccount { id: "acme".into(), expect: Expect::Present }];
    assert_eq!(rig.meta(delete()), refused(0, "account", "acme", in_use("key", "key_1")));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    rig.state().subscribe(Box::new(move |changes| log.lock().expect("whole").extend_from_slice(changes)));
    rig.checkpoint();
    assert_eq!(rig.meta(vec![put_key(revoked("key_1", "acme", "s1"))]), Reply::Written(3));
    assert_eq!(rig.meta(delete()), Reply::Written(4));
    assert_eq!(rig.state().key(&"key_1".into()).expect("read"), None);
    assert_eq!(rig.state().key_by_hash(&KeyHash::of("s1")).expect("read"), None);
    assert_eq!(rig.state().keys(&"acme".into(), None, 9).expect("read"), []);
    assert_eq!(rig.state().accounts(None, 9).expect("read"), []);
    let gone = [Change::KeyGone { id: "key_1".into(), hash: KeyHash::of("s1") }, Change::AccountGone("acme".into())];
    assert_eq!(seen.lock().expect("whole")[1..], gone);
    let delete_tier = vec![MetaOp::DeleteTier { name: "free".into(), expect: Expect::Any }];
    assert_eq!(rig.meta(delete_tier), Reply::Written(5), "nobody is in it");
}

#[test]
fn a_refused_entry_leaves_nothing() {
    let mut rig = furnished();
    let before = rig.state().accounts(None, 100).expect("read");
    let (audit, tiers) = (rig.state().audit(None, 100).expect("read"), rig.state().tiers().expect("read"));
    let told = Arc::new(Mutex::new(0));
    let count = Arc::clone(&told);
    rig.state().subscribe(Box::new(move |changes| *count.lock().expect("whole") += changes.len()));
    let ops = vec![
        tier("gold"),
        put_account("acme", "gold"),
        put_account("b", "gold"),
        put_key(key("key_9", "b", "s9")),
        put_account("c", "missing"),
    ];
    assert_eq!(rig.meta(ops), refused(4, "account", "c", dangling("tier", "missing")));
    assert_eq!(rig.state().accounts(None, 100).expect("read"), before);
    assert_eq!(rig.state().audit(None, 100).expect("read"), audit);
    assert_eq!(rig.state().tiers().expect("read"), tiers);
    assert_eq!(rig.state().key_by_hash(&KeyHash::of("s9")).expect("read"), None);
    assert_eq!(*told.lock().expect("whole"), 0);
    assert_eq!(rig.state().applied().last.expect("applied").index, 2, "it is applied all the same");
}

#[test]
fn the_audit_has_what_was_and_what_is_newest_first() {
    let mut rig = furnished();
    rig.checkpoint();
    rig.meta(vec![put_account("acme", "free"), tier("gold")]);
    let lines = rig.state().audit(None, 2).expect("read");
    let short =
        |line: &AuditRecord| (line.revision, line.line, line.action.clone(), line.kind.clone(), line.id.clone());
    assert_eq!(
        lines.iter().map(short).collect::<Vec<_>>(),
        [(2, 1, "put".into(), "tier".into(), "gold".into()), (2, 0, "put".into(), "account".into(), "acme".into())]
    );
    let older = rig.state().audit(Some((2, 0)), 10).expect("read");
    assert_eq!(older.len(), 3);
    assert_eq!(older[1].after, lines[1].before, "the account as the first entry left it");
    assert!(older[1].before.is_empty() && lines[1].after.len() == 32 && lines[1].after != lines[1].before);
    let Some(AuditObject::Account(account)) = lines[1].object_before() else { panic!("an account") };
    assert_eq!((account.id.as_str(), account.revision), ("acme", 1));
    assert_eq!((lines[0].object_before(), older[1].object_before()), (None, None));
    assert!(matches!(lines[0].object_after(), Some(AuditObject::Tier(tier)) if tier.revision == 2));
}

fn verified(rig: &Rig) -> AuditChain {
    let mut chain = AuditChain::default();
    for line in rig.state().audit_lines(None, usize::MAX).expect("read") {
        chain.follow(&line).expect("follows");
    }
    chain
}

#[test]
fn audit_lines_are_a_chain_over_entries_checkpoints_restarts_and_snapshots() {
    let mut rig = furnished();
    rig.checkpoint();
    rig.meta(vec![tier("gold"), tier("silver")]);
    rig.restart();
    let notes = vec![AuditNote { result: "role-too-low".into(), ..AuditNote::default() }];
    rig.write(MetaWrite { notes, ..MetaWrite::default() });
    rig.checkpoint();
    rig.meta(vec![tier("bronze")]);
    let chain = verified(&rig);
    assert_eq!(chain.lines, 7);
    assert_eq!(rig.state().audit_lines(Some((1, 1)), 2).expect("read").len(), 2);
    let note = &rig.state().audit(None, 2).expect("read")[1];
    assert_eq!((note.kind.as_str(), note.result.as_str()), ("request", "role-too-low"));
    let mut stream = Vec::new();
    rig.state().export(&mut stream).expect("exported");
    let mut other = Rig::new(GroupId::META);
    other.state().import(&mut &stream[..]).expect("imported");
    other.log.clone_from(&rig.log);
    assert_eq!(verified(&other), chain);
    other.meta(vec![tier("copper")]);
    assert_eq!(verified(&other).lines, 8, "goes on where the snapshot ended");
}

#[test]
fn audit_lines_that_are_over_go_and_the_rest_is_still_a_chain() {
    const DAY_US: i64 = 86_400_000_000;
    let mut rig = Rig::new(GroupId::META);
    let noted = |day: i64, count| {
        let note = AuditNote { at: Timestamp(day * DAY_US), count, ..AuditNote::default() };
        MetaWrite { at: Timestamp(day * DAY_US), notes: vec![note], ..MetaWrite::default() }
    };
    for day in 1..=20 {
        rig.write(noted(day, None));
        if day == 12 {
            // Some in the file, some in memory: which go is the same.
            rig.checkpoint();
        }
    }
    assert_eq!((verified(&rig).lines, verified(&rig).anchor.len()), (20, 0));
    // Each new line takes two of the oldest, as far as they are over: the days 1 to 10 are.
    for _ in 0..8 {
        rig.write(noted(10 + AuditRecord::KEPT_DAYS, Some(7)));
    }
    let chain = verified(&rig);
    assert_eq!((chain.lines, chain.first.map(|first| first.0)), (18, Some(11)), "the days 11 to 20 and the new ones");
    assert_eq!(chain.anchor.len(), 32, "it still names the line that went");
    assert_eq!(rig.state().audit(None, 1).expect("read")[0].count, Some(7));
    rig.checkpoint();
    rig.restart();
    assert_eq!(verified(&rig), chain);
    rig.write(noted(14 + AuditRecord::KEPT_DAYS, None));
    assert_eq!(verified(&rig).first.map(|first| first.0), Some(13), "it goes on where it was");
}

#[test]
fn a_line_names_what_was_changed_beside_its_object() {
    let mut rig = furnished();
    let changed = vec!["/name".to_owned(), "/metadata/crm".to_owned()];
    let ops = vec![tier("gold"), put_account("acme", "free")];
    rig.write(MetaWrite { ops, changed: Some(vec![(1, changed.clone())]), ..MetaWrite::default() });
    let lines = rig.state().audit(None, 2).expect("read");
    assert_eq!((lines[0].changed.clone(), lines[1].changed.clone()), (Some(changed), None));
}

fn once(key: u8, at: Timestamp, request_id: &str, ops: Vec<MetaOp>) -> MetaWrite {
    let once = Once { key: vec![key; 32], fingerprint: vec![7; 32], answer: format!("of {request_id}") };
    MetaWrite { at, request_id: request_id.into(), ops, once: Some(once), ..MetaWrite::default() }
}

#[test]
fn a_write_with_a_key_happens_once_within_a_day() {
    let mut rig = furnished();
    assert_eq!(rig.write(once(1, at(10), "first", vec![tier("gold")])), Reply::Written(2));
    rig.restart();
    for again in [at(10), at(86_409)] {
        let Reply::Refused(CommandError::Happened(found)) = rig.write(once(1, again, "second", vec![tier("silver")]))
        else {
            panic!("it happened")
        };
        assert_eq!((found.revision, found.request_id.as_str(), found.answer.as_str()), (2, "first", "of first"));
        rig.checkpoint();
    }
    assert_eq!(rig.state().tiers().expect("read").len(), 2, "nothing more was made");
    assert!(rig.state().happened(&[1; 32], at(86_409)).expect("read").is_some());
    assert!(rig.state().happened(&[1; 32], at(86_410)).expect("read").is_none());
    let refused = rig.write(once(2, at(20), "third", vec![put_account("b", "none")]));
    assert!(matches!(refused, Reply::Refused(CommandError::Conflict { .. })));
    assert_eq!(rig.write(once(2, at(20), "third", vec![tier("third")])), Reply::Written(6), "a refusal is not kept");
    assert_eq!(rig.write(once(1, at(86_410), "late", vec![tier("late")])), Reply::Written(7), "a day is over");
    assert_eq!(rig.state().happened(&[1; 32], at(86_411)).expect("read").map(|found| found.revision), Some(7));
}

#[test]
fn what_is_a_day_old_is_forgotten_and_a_full_table_refuses() {
    let mut rig = furnished();
    for key in 0..40 {
        rig.write(once(key, at(i64::from(key)), "r", Vec::new()));
    }
    let kept = |rig: &Rig| {
        let stored = rig.state().get(Table::Happened, COUNT).expect("read").expect("there");
        codec::decode::<u64>(&stored).expect("a number")
    };
    assert_eq!(kept(&rig), 40);
    rig.checkpoint();
    rig.write(once(100, at(86_400 + 4), "r", Vec::new()));
    assert_eq!(kept(&rig), 36, "those of the first five seconds are gone");
    assert!(rig.state().get(Table::Happened, &[4; 32]).expect("read").is_none());
    assert!(rig.state().get(Table::Happened, &[5; 32]).expect("read").is_some());
    for key in 101..104 {
        rig.write(once(key, at(200_000), "r", Vec::new()));
    }
    assert_eq!(kept(&rig), 3, "at most 16 are forgotten at a time, so the table shrinks");
    rig.log.push(Entry { id: LogId { term: 1, index: rig.log.len() as u64 + 1 }, payload: Payload::Blank });
    rig.state().step(rig.log[rig.log.len() - 1].id, 0, |live| {
        live.put(Table::Happened, COUNT.to_vec(), Some(codec::encode(&Once::MOST).into()));
        Reply::Done
    });
    let refused = rig.write(once(105, at(200_000), "r", vec![tier("more")]));
    assert_eq!(refused, Reply::Refused(CommandError::TooManyKept(Once::MOST)));
    assert_eq!(rig.state().tiers().expect("read").len(), 1);
}

#[test]
fn pages_of_accounts_and_keys_merge_memory_and_file() {
    let mut rig = furnished();
    let name = |number: usize| format!("a{number:03}");
    for round in 0..2 {
        let ops = (0..20).map(|number| put_account(&name(number * 2 + round), "free"));
        let keys = (0..20).map(|number| {
            let number = number * 2 + round;
            put_key(key(&format!("key_{:03}", number + 100), "acme", &format!("t{number}")))
        });
        rig.meta(ops.chain(keys).collect());
        if round == 0 {
            rig.checkpoint();
        }
    }
    rig.meta(vec![MetaOp::DeleteAccount { id: "a004".into(), expect: Expect::Present }]);
    let (mut after, mut ids) = (None::<String>, Vec::new());
    loop {
        let page = rig.state().accounts(after.as_deref(), 7).expect("read");
        let Some(last) = page.last() else { break };
        after = Some(last.id.to_string());
        ids.extend(page.iter().map(|account| account.id.to_string()));
    }
    let expected: Vec<String> = (0..40).filter(|number| *number != 4).map(name).chain(["acme".into()]).collect();
    assert_eq!(ids, expected);
    let keys = rig.state().keys(&"acme".into(), Some("key_109"), 3).expect("read");
    assert_eq!(keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), ["key_110", "key_111", "key_112"]);
    let mut loaded = 0;
    rig.state().load(&mut |_| loaded += 1).expect("loads");
    assert_eq!(loaded, 1 + 40 + 41);
}

#[test]
fn ledger_commands_do_not_belong_to_group_0_and_the_other_way_round() {
    let mut rig = Rig::new(GroupId::META);
    assert_eq!(rig.rows(1, &[row(1, at(0))]), Reply::Refused(CommandError::WrongGroup));
    let mut rig = Rig::new(GroupId::LEDGER);
    assert_eq!(rig.meta(vec![tier("free")]), Reply::Refused(CommandError::WrongGroup));
}
