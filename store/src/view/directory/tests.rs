use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::model::{Account, Key, Limit, Quota, Role, Route, Tier, Token, Upstream};

fn account(id: &str, tier: &str) -> Account {
    Account {
        id: id.into(),
        tier: tier.into(),
        state: AccountState::Active,
        region: "eu".into(),
        overrides: Overrides::default(),
        created_at: Timestamp(0),
        profile: String::new(),
        revision: 3,
        resets: Vec::new(),
    }
}

/// Keys with odd numbers have what few keys have.
fn key(n: u32, account: &str) -> Key {
    let odd = n % 2 == 1;
    Key {
        id: if odd { format!("key_custom_{n}") } else { format!("key_{}", ulid::Ulid(u128::from(n) << 64)) }.into(),
        account: account.into(),
        hash: KeyHash::of(&format!("secret {n}")),
        name: Name::default(),
        env: if odd { Env::Test } else { Env::Live },
        last4: String::new(),
        scopes: if odd { vec![format!("scope-{n}").into()] } else { vec![] },
        allowed_ips: if odd { vec!["10.0.0.0/8".parse().expect("a network")] } else { vec![] },
        expires_at: odd.then_some(Timestamp(i64::from(n))),
        state: KeyState::Active,
        created_at: Timestamp(0),
        revoked_at: None,
        rotated_from: None,
        revision: 1,
        overrides: Default::default(),
    }
}

fn tier(name: &str, concurrency: u32) -> Tier {
    Tier { name: name.into(), concurrency: Some(concurrency), revision: 1, ..Tier::default() }
}

fn concurrency(directory: &Directory, id: &str) -> Option<u32> {
    directory.account(&id.into()).expect("it was put").policies.concurrency
}

#[test]
fn keys_are_found_by_hash_and_by_id_with_all_they_have() {
    let directory = Directory::default();
    let mut edit = directory.edit();
    edit.put_tier(tier("free", 1));
    edit.put_account(account("acme", "free"));
    for n in 0..10_000 {
        edit.put_key(&key(n, "acme"));
    }
    drop(edit);
    assert_eq!(directory.len(), 10_000);
    for n in 0..10_000 {
        let key = key(n, "acme");
        for found in [directory.key(&key.hash), directory.key_by_id(&key.id)] {
            let found = found.expect("it was put");
            assert_eq!((found.id(), found.env, found.expires_at), (key.id.clone(), key.env, key.expires_at));
            assert_eq!((found.scopes(), found.allowed_ips()), (&*key.scopes, &*key.allowed_ips));
            assert_eq!((&*found.account.id, found.state), ("acme", KeyState::Active));
            assert_eq!(found.number, number::of_key(&key.id));
        }
    }
    assert!(directory.key(&KeyHash::of("another secret")).is_none());
    assert!(directory.key_by_id(&"key_custom_2".into()).is_none());
}

#[test]
fn a_change_is_in_force_when_its_run_has_ended() {
    let directory = Directory::default();
    directory.edit().put_tier(tier("free", 1));
    directory.edit().put_account(account("acme", "free"));
    for (n, state) in [(1, KeyState::Disabled), (2, KeyState::Revoked), (1, KeyState::Active)] {
        let changed = Key { state, ..key(n, "acme") };
        directory.edit().put_key(&changed);
        assert_eq!(directory.key(&changed.hash).map(|found| found.state), Some(state));
    }
    // Another secret under the same id.
    let renewed = Key { hash: KeyHash::of("renewed"), ..key(1, "acme") };
    directory.edit().put_key(&renewed);
    assert!(directory.key(&renewed.hash).is_some());
    assert!(directory.key(&key(1, "acme").hash).is_none());
    directory.edit().remove_key(&renewed.id);
    assert!(directory.key(&renewed.hash).is_none());
    directory.edit().put_account(Account { state: AccountState::Suspended, ..account("acme", "free") });
    let found = directory.key(&key(2, "acme").hash).expect("a tombstone is still known");
    assert_eq!(found.account.state, AccountState::Suspended);
}

#[test]
fn a_tiers_change_reaches_all_its_accounts_at_once() {
    let directory = Directory::default();
    directory.edit().put_tier(tier("free", 1));
    directory.edit().put_tier(tier("paid", 100));
    for n in 0..3_000 {
        directory.edit().put_account(account(&format!("a{n}"), if n % 3 == 0 { "paid" } else { "free" }));
    }
    let limit = Limit {
        name: "own".into(),
        per: vec![],
        rate: "1/s".parse().expect("a rate"),
        burst: 1,
        expires_at: None,
        shadow: false,
    };
    let overrides = Overrides { limits: vec![limit], quotas: Vec::<Quota>::new() };
    directory.edit().put_account(Account { overrides, revision: 9, ..account("own", "free") });
    directory.edit().put_tier(Tier { revision: 12, ..tier("free", 7) });
    for n in 0..3_000 {
        assert_eq!(concurrency(&directory, &format!("a{n}")), Some(if n % 3 == 0 { 100 } else { 7 }));
    }
    let own = directory.account(&"own".into()).expect("it was put");
    assert_eq!((own.policies.concurrency, own.policies.limits.len(), own.policy_revision()), (Some(7), 1, 12));
    directory.edit().put_account(Account { revision: 20, ..account("own", "paid") });
    let own = directory.account(&"own".into()).expect("it was put");
    assert_eq!((own.policies.concurrency, own.policies.limits.len(), own.policy_revision()), (Some(100), 0, 20));
}

/// A number that was freed and given to another account in one run of changes: its keys are never found with the old account.
#[test]
fn an_account_that_takes_the_place_of_another_is_not_taken_for_it() {
    let directory = Directory::default();
    directory.edit().put_tier(tier("free", 1));
    directory.edit().put_account(account("old", "free"));
    // There is room for a key: tables that grow are shown at once, with all that has changed.
    directory.edit().put_account(account("other", "free"));
    directory.edit().put_key(&key(4, "other"));
    let mut edit = directory.edit();
    edit.remove_account(&"old".into());
    edit.put_account(account("new", "free"));
    edit.put_key(&key(2, "new"));
    let account = || directory.key(&key(2, "new").hash).map(|found| found.account.id.to_string());
    assert_eq!(account(), None, "its account is shown when the run has ended");
    assert_eq!(directory.key_by_id(&key(2, "new").id).map(|found| found.slot), None);
    drop(edit);
    assert_eq!(account().as_deref(), Some("new"));
    // What an idle thread holds is let go of, and taken hold of again.
    Directory::rest_thread();
    assert_eq!(account().as_deref(), Some("new"));
}

#[test]
fn what_names_something_missing_may_do_nothing_until_it_comes() {
    let directory = Directory::default();
    directory.edit().put_key(&key(2, "acme"));
    assert!(directory.key(&key(2, "acme").hash).is_none(), "no account yet");
    directory.edit().put_account(account("acme", "free"));
    let found = directory.key(&key(2, "acme").hash).expect("now");
    assert_eq!(found.account.policies.routes.as_deref(), Some(&[][..]), "no tier yet: no route is allowed");
    directory.edit().put_tier(tier("free", 5));
    assert_eq!(concurrency(&directory, "acme"), Some(5));
    directory.edit().remove_account(&"acme".into());
    assert!(directory.key(&key(2, "acme").hash).is_none());
    // Another account does not get the keys that the gone one left.
    directory.edit().put_account(account("other", "free"));
    assert!(directory.key(&key(2, "acme").hash).is_none());
    directory.edit().put_account(account("acme", "free"));
    assert!(directory.key(&key(2, "acme").hash).is_some());
}

#[test]
fn readers_keep_the_old_view_until_a_snapshot_is_whole() {
    let directory = Directory::default();
    let fill = |edit: &mut super::Edit<'_>, concurrency| {
        edit.put_tier(tier("free", concurrency));
        edit.put_account(account("acme", "free"));
        edit.put_key(&key(2, "acme"));
        edit.put_route(Route { name: "scan".into(), upstream: "up".into(), ..Route::default() });
        edit.put_upstream(Upstream { name: "up".into(), ..Upstream::default() });
    };
    fill(&mut directory.edit(), 1);
    let number = directory.key(&key(2, "acme").hash).expect("it was put").number;
    let mut edit = directory.edit();
    edit.reset();
    assert_eq!(concurrency(&directory, "acme"), Some(1), "not a moment without the key");
    assert!(directory.routes().by_name(&"scan".into()).is_some());
    fill(&mut edit, 2);
    edit.remove_key(&key(2, "acme").id);
    edit.put_key(&key(4, "acme"));
    drop(edit);
    assert_eq!(concurrency(&directory, "acme"), Some(2));
    assert!(directory.key(&key(2, "acme").hash).is_none());
    let route = directory.routes().by_name(&"scan".into()).expect("it was put").clone();
    assert!(route.upstream.is_some());
    assert_eq!(directory.len(), 1);
    directory.edit().put_key(&key(2, "acme"));
    assert_eq!(directory.key(&key(2, "acme").hash).map(|found| found.number), Some(number), "buckets keep their names");
}

#[test]
fn a_snapshot_that_cannot_be_read_changes_nothing() {
    let directory = Directory::default();
    let mut edit = directory.edit();
    edit.put_tier(tier("free", 1));
    edit.put_account(account("acme", "free"));
    edit.put_key(&key(2, "acme"));
    drop(edit);
    let mut edit = directory.edit();
    edit.reset();
    edit.put_key(&key(4, "acme"));
    edit.abandon();
    assert!(directory.key(&key(2, "acme").hash).is_some());
    assert!(directory.key(&key(4, "acme").hash).is_none());
    // And the writer goes on from there.
    directory.edit().put_key(&key(4, "acme"));
    assert_eq!(directory.len(), 2);
    assert!(directory.key(&key(4, "acme").hash).is_some());
}

#[test]
fn tokens_are_found_by_hash_and_go_by_id() {
    let directory = Directory::default();
    let token = |id: &str, secret: &str| Token {
        id: id.into(),
        name: "ci".into(),
        hash: KeyHash::of(secret),
        role: Role::Operator,
        created_at: Timestamp(0),
        expires_at: None,
        revision: 1,
        ..Token::default()
    };
    let mut edit = directory.edit();
    edit.put_token(token("t1", "old"));
    edit.put_token(token("t2", "other"));
    edit.put_token(token("t1", "new"));
    assert!(directory.token(&KeyHash::of("old")).is_none());
    assert_eq!(directory.token(&KeyHash::of("new")).map(|token| token.role), Some(Role::Operator));
    edit.remove_token(&"t1".into());
    assert!(directory.token(&KeyHash::of("new")).is_none());
    assert!(directory.token(&KeyHash::of("other")).is_some());
}

#[tokio::test]
async fn the_revision_can_be_waited_for() {
    let directory = Directory::default();
    let mut revisions = directory.revisions();
    directory.set_revision(7);
    assert_eq!(directory.revision(), 7);
    revisions.wait_for(|revision| *revision >= 7).await.expect("the directory is there");
}

/// Slots are freed and filled again under the readers: what they find is always one key, whole.
#[test]
fn readers_never_see_two_keys_mixed() {
    let (directory, done) = (Directory::default(), AtomicBool::new(false));
    let accounts = ["acme", "other"];
    {
        let mut edit = directory.edit();
        edit.put_tier(tier("free", 1));
        accounts.iter().for_each(|id| edit.put_account(account(id, "free")));
        (64..72).for_each(|n| edit.put_key(&key(n, "acme")));
    }
    let of = |n: u32| key(n, accounts[(n % 3 % 2) as usize]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for n in 64..72 {
                        assert!(directory.key(&key(n, "acme").hash).is_some(), "nobody touches this one");
                    }
                    for n in 0..64 {
                        let key = of(n);
                        if let Some(found) = directory.key(&key.hash) {
                            assert_eq!((found.id(), &found.account.id), (key.id.clone(), &key.account));
                            assert_eq!((found.scopes(), found.expires_at), (&*key.scopes, key.expires_at));
                        }
                    }
                }
            });
        }
        for round in 0..1_000u32 {
            for n in 0..64 {
                let key = of((n * 7 + round) % 64);
                let mut edit = directory.edit();
                if (n + round) % 3 == 0 { edit.put_key(&key) } else { edit.remove_key(&key.id) }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against maps: whatever is put and removed, in any order.
    #[test]
    fn it_holds_what_was_put_and_not_removed(steps in prop::collection::vec((0u8..4, 0u32..12, 0usize..3), 1..200)) {
        let directory = Directory::default();
        let (mut keys, mut accounts) = (std::collections::BTreeMap::new(), std::collections::BTreeSet::new());
        let ids = ["a", "b", "c"];
        for (what, n, which) in steps {
            let mut edit = directory.edit();
            match what {
                0 => {
                    edit.put_account(account(ids[which], "free"));
                    accounts.insert(ids[which]);
                }
                1 => {
                    edit.remove_account(&ids[which].into());
                    accounts.remove(ids[which]);
                }
                2 => {
                    edit.put_key(&key(n, ids[which]));
                    keys.insert(n, ids[which]);
                }
                _ => {
                    edit.remove_key(&key(n, "").id);
                    keys.remove(&n);
                }
            }
            drop(edit);
            prop_assert_eq!(directory.len(), keys.len());
            for id in ids {
                prop_assert_eq!(directory.account(&id.into()).is_some(), accounts.contains(id));
            }
            for n in 0..12 {
                let expected = keys.get(&n).copied().filter(|id| accounts.contains(id));
                let found = directory.key(&key(n, "").hash).map(|found| found.account.id.to_string());
                prop_assert_eq!(found.as_deref(), expected);
            }
        }
    }
}
