//! Rotation: a new key beside the old one, which works a while longer.

use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use serde_json::Value;
use store::model::{Key, KeyId, KeyState, Role, Secret, Timestamp};

use super::{draft_new, draft_put, fresh, kind, or_empty, refuse_revoked, revoked};
use crate::admin::{
    Shared,
    access::Visitor,
    change,
    draft::{Draft, Effect, Kind},
    etag::Condition,
    input,
    params::Params,
    problem::{Code, Problem, Result},
};

/// Both keys of a rotation work for this long when the caller does not say.
const DEFAULT_GRACE_SECONDS: i64 = 86_400;
/// Longest grace of a rotation.
const MAX_GRACE_SECONDS: u64 = 366 * 86_400;
/// Keys of an account that are read at once.
const BATCH: usize = 1_000;

/// `POST /v1/keys/{id}/rotate`: a new key beside the old one, which works for `grace_seconds` more (0: revoked at once).
pub(crate) async fn rotate(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    condition: Condition,
    params: Params,
    body: Bytes,
) -> Result<Response> {
    let writer = visitor.require(Role::Operator)?;
    params.finish()?;
    let value = input::parse(&body)?;
    change::one(&admin, &writer, &body, |draft| draft_rotate(draft, &id, condition, value.clone())).await
}

/// A key's rotation.
pub(crate) fn draft_rotate(draft: &mut Draft<'_>, id: &str, condition: Condition, body: Value) -> Result<Effect> {
    draft.require(Role::Operator)?;
    let grace_seconds = grace(body)?;
    let (old, expect) = draft.key(id)?.change(Kind::Key, id, condition)?;
    let old = old.clone();
    refuse_rotation(&old, successor(draft, &old)?, draft.now)?;
    let secret = Secret::generate(kind(old.env));
    let (old, new) = rotated(old, &secret, draft.now, grace_seconds);
    draft_put(draft, condition, expect, old);
    Ok(draft_new(draft, new, &secret))
}

/// For how long the old one works beside the new one.
pub(crate) fn grace(body: Value) -> Result<i64> {
    input::read(or_empty(body), |object| {
        object
            .optional("grace_seconds")
            .map_or(Some(DEFAULT_GRACE_SECONDS), |field| field.whole::<i64>(0..=MAX_GRACE_SECONDS))
    })
}

/// The old key with its end, and the new one with the old one's rights (and its own end, if it had one).
fn rotated(old: Key, secret: &Secret, now: Timestamp, grace_seconds: i64) -> (Key, Key) {
    let new = Key {
        name: old.name.clone(),
        scopes: old.scopes.clone(),
        allowed_ips: old.allowed_ips.clone(),
        expires_at: old.expires_at,
        overrides: old.overrides.clone(),
        rotated_from: Some(old.id.clone()),
        ..fresh(old.account.clone(), old.env, secret, now)
    };
    let old = if grace_seconds == 0 {
        revoked(old, now)
    } else {
        let end = now.plus_seconds(grace_seconds);
        Key { expires_at: Some(old.expires_at.map_or(end, |at| at.min(end))), ..old }
    };
    (old, new)
}

fn refuse_rotation(key: &Key, successor: Option<KeyId>, now: Timestamp) -> Result<()> {
    refuse_revoked(key)?;
    let reason = match successor {
        Some(successor) => format!("the key has been rotated already: rotate its successor {successor}"),
        None if key.state == KeyState::Disabled => "the key is switched off: switch it on first".to_owned(),
        None if key.expires_at.is_some_and(|at| at <= now) => "the key has expired: make a new one".to_owned(),
        None => return Ok(()),
    };
    Err(Problem::new(Code::NotPossible, reason))
}

/// The key that a rotation of this one has made and that was not revoked since.
fn successor(draft: &Draft<'_>, key: &Key) -> Result<Option<KeyId>> {
    let succeeds = |other: &&Key| other.rotated_from.as_ref() == Some(&key.id) && other.state != KeyState::Revoked;
    if let Some(found) = draft.drafted_keys().find(succeeds) {
        return Ok(Some(found.id.clone()));
    }
    let mut after: Option<String> = None;
    loop {
        let keys = draft.store.keys(&key.account, after.as_deref(), BATCH)?;
        if let Some(found) = keys.iter().find(succeeds) {
            return Ok(Some(found.id.clone()));
        }
        match keys.last() {
            Some(last) if keys.len() == BATCH => after = Some(last.id.to_string()),
            _ => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use store::model::{Env, SecretKind};

    use super::*;

    fn key() -> Key {
        let secret = Secret::generate(SecretKind::Test);
        Key {
            scopes: vec!["scan".into()],
            allowed_ips: vec!["10.0.0.0/8".parse().expect("a network")],
            ..fresh("acme".into(), Env::Test, &secret, Timestamp(0))
        }
    }

    #[test]
    fn a_rotation_keeps_rights_and_never_lengthens_a_life() {
        let now = Timestamp::from_unix_seconds(1_000);
        let secret = Secret::generate(SecretKind::Test);
        let (old, new) = rotated(key(), &secret, now, 60);
        assert_eq!((old.expires_at, old.state), (Some(now.plus_seconds(60)), KeyState::Active));
        assert_eq!((&new.scopes, &new.allowed_ips, new.env), (&old.scopes, &old.allowed_ips, Env::Test));
        assert_eq!((new.rotated_from, new.hash), (Some(old.id), secret.hash()));
        let soon = Key { expires_at: Some(now.plus_seconds(5)), ..key() };
        let (old, new) = rotated(soon, &secret, now, 60);
        assert_eq!((old.expires_at, new.expires_at), (Some(now.plus_seconds(5)), Some(now.plus_seconds(5))));
        let (old, _) = rotated(key(), &secret, now, 0);
        assert_eq!((old.state, old.revoked_at), (KeyState::Revoked, Some(now)));
    }

    #[test]
    fn what_cannot_be_rotated_is_refused() {
        let now = Timestamp::from_unix_seconds(1_000);
        assert!(refuse_rotation(&key(), None, now).is_ok());
        assert!(refuse_rotation(&key(), Some("key_2".into()), now).is_err());
        for bad in
            [revoked(key(), now), Key { state: KeyState::Disabled, ..key() }, Key { expires_at: Some(now), ..key() }]
        {
            assert!(refuse_rotation(&bad, None, now).is_err());
        }
    }
}
