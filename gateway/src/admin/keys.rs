//! `/v1/accounts/{id}/keys` and `/v1/keys`.
//!
//! The secret is in the answer that made the key and nowhere else: what is kept is its SHA-256.

use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use store::{
    Store,
    model::{
        AccountId, Env, Expect, Key, KeyId, KeyState, MetaOp, Name, Revision, Role, Secret, SecretKind, Timestamp,
    },
};

use super::{
    Shared,
    access::Visitor,
    accounts, answer,
    etag::Condition,
    forms,
    input::{self, Object},
    params::Params,
    problem::{Code, Problem, Result},
};

/// Both keys of a rotation work for this long when the caller does not say.
const DEFAULT_GRACE_SECONDS: i64 = 86_400;
/// Longest grace of a rotation.
const MAX_GRACE_SECONDS: u64 = 366 * 86_400;
/// Tries of a change whose object another change has moved, when the caller named no revision.
const ATTEMPTS: usize = 8;
/// Keys of an account that are read at once.
const BATCH: usize = 1_000;

/// A key as the API shows it.
#[derive(Debug, Serialize)]
struct View {
    id: KeyId,
    account: AccountId,
    name: Name,
    prefix: &'static str,
    last4: String,
    env: Env,
    scopes: Vec<Name>,
    allowed_ips: Vec<ipnet::IpNet>,
    expires_at: Option<Timestamp>,
    state: KeyState,
    last_used_at: Option<Timestamp>,
    created_at: Timestamp,
    revoked_at: Option<Timestamp>,
    rotated_from: Option<KeyId>,
    revision: Revision,
    /// Only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl View {
    fn of(key: Key, last_used_at: Option<Timestamp>) -> Self {
        Self {
            prefix: kind(key.env).prefix(),
            id: key.id,
            account: key.account,
            name: key.name,
            last4: key.last4,
            env: key.env,
            scopes: key.scopes,
            allowed_ips: key.allowed_ips,
            expires_at: key.expires_at,
            state: key.state,
            last_used_at,
            created_at: key.created_at,
            revoked_at: key.revoked_at,
            rotated_from: key.rotated_from,
            revision: key.revision,
            secret: None,
        }
    }

    fn with_secret(key: Key, secret: &Secret) -> Self {
        Self { secret: Some(secret.expose().to_owned()), ..Self::of(key, None) }
    }
}

/// What a caller can set of a key.
#[derive(Debug)]
struct Form {
    name: Name,
    scopes: Vec<Name>,
    allowed_ips: Vec<ipnet::IpNet>,
    expires_at: Option<Timestamp>,
    state: KeyState,
}

impl Form {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let name = object.optional("name").map_or(Some(String::new()), forms::label);
        let scopes = object.optional("scopes").map_or(Some(Vec::new()), forms::names);
        let allowed_ips = object.optional("allowed_ips").map_or(Some(Vec::new()), forms::networks);
        let expires_at = object.optional("expires_at").map_or(Some(None), |field| forms::time(field).map(Some));
        let state = object.optional("state").map_or(Some(KeyState::Active), |field| {
            // A revoked key is shown as such; making one so is DELETE's.
            field.choice(&[("active", KeyState::Active), ("disabled", KeyState::Disabled)])
        });
        Some(Self {
            name: name?.into(),
            scopes: scopes?,
            allowed_ips: allowed_ips?,
            expires_at: expires_at?,
            state: state?,
        })
    }
}

/// `GET /v1/accounts/{id}/keys`
pub(crate) async fn list(
    _: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Response> {
    let page = params.page();
    params.finish()?;
    let account = accounts::existing(&admin.store, &id)?.id;
    let mut keys = admin.store.keys(&account, page.after.as_deref(), page.limit + 1)?;
    let next = page.cut(&mut keys, |key| key.id.clone());
    let views = keys.into_iter().map(|key| seen(&admin.store, key)).collect::<Result<Vec<_>>>()?;
    Ok(answer::list(views, next))
}

/// `POST /v1/accounts/{id}/keys`
pub(crate) async fn create(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    params: Params,
    body: Bytes,
) -> Result<Response> {
    let writer = visitor.require(Role::Operator)?;
    params.finish()?;
    let now = Timestamp::now();
    let (form, env) = input::read(input::parse(&body)?, |object| {
        let env = object
            .optional("env")
            .map_or(Some(Env::Live), |field| field.choice(&[("live", Env::Live), ("test", Env::Test)]));
        let form = Form::read(object)?;
        if form.expires_at.is_some_and(|at| at <= now) {
            object.tell("expires_at", "is in the past");
        }
        Some((form, env?))
    })?;
    let account = accounts::existing(&admin.store, &id)?.id;
    let secret = Secret::generate(kind(env));
    let mut key = Key {
        state: form.state,
        name: form.name,
        scopes: form.scopes,
        allowed_ips: form.allowed_ips,
        expires_at: form.expires_at,
        ..fresh(account, env, &secret, now)
    };
    let op = MetaOp::PutKey { key: key.clone(), expect: Expect::Absent };
    key.revision = writer.write(&admin.store, vec![op]).await?;
    let path = format!("/v1/keys/{}", key.id);
    Ok(answer::created(&path, key.revision, &View::with_secret(key, &secret)))
}

/// `GET /v1/keys/{id}`
pub(crate) async fn get(_: Visitor, State(admin): Shared, Path(id): Path<String>, params: Params) -> Result<Response> {
    params.finish()?;
    let key = existing(&admin.store, &id)?;
    Ok(answer::object(StatusCode::OK, key.revision, &seen(&admin.store, key)?))
}

/// `PATCH /v1/keys/{id}`: a JSON merge patch (RFC 7396).
pub(crate) async fn patch(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    condition: Condition,
    params: Params,
    body: Bytes,
) -> Result<Response> {
    let writer = visitor.require(Role::Operator)?;
    params.finish()?;
    let patch = input::parse(&body)?;
    for _ in 0..ATTEMPTS {
        let key = existing(&admin.store, &id).map_err(|problem| condition.refused(problem, None))?;
        let expect = condition.check(key.revision)?;
        refuse_revoked(&key)?;
        let form = patched(&key, patch.clone())?;
        let mut changed = Key {
            name: form.name,
            scopes: form.scopes,
            allowed_ips: form.allowed_ips,
            expires_at: form.expires_at,
            state: form.state,
            ..key
        };
        match writer.write(&admin.store, vec![MetaOp::PutKey { key: changed.clone(), expect }]).await {
            Ok(revision) => {
                changed.revision = revision;
                return Ok(answer::object(StatusCode::OK, revision, &seen(&admin.store, changed)?));
            }
            Err(problem) => again(&admin.store, condition, problem).await?,
        }
    }
    Err(contended())
}

/// `DELETE /v1/keys/{id}`: revokes it for ever; a tombstone stays. Revoking it again changes nothing.
pub(crate) async fn revoke(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    condition: Condition,
    params: Params,
) -> Result<Response> {
    let writer = visitor.require(Role::Operator)?;
    params.finish()?;
    for _ in 0..ATTEMPTS {
        let key = existing(&admin.store, &id).map_err(|problem| condition.refused(problem, None))?;
        let expect = condition.check(key.revision)?;
        if key.state == KeyState::Revoked {
            return Ok(answer::gone());
        }
        match writer.write(&admin.store, vec![MetaOp::PutKey { key: revoked(key, Timestamp::now()), expect }]).await {
            Ok(_) => return Ok(answer::gone()),
            Err(problem) => again(&admin.store, condition, problem).await?,
        }
    }
    Err(contended())
}

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
    let grace_seconds = input::read(input::parse(&body)?, |object| {
        object
            .optional("grace_seconds")
            .map_or(Some(DEFAULT_GRACE_SECONDS), |field| field.whole::<i64>(0..=MAX_GRACE_SECONDS))
    })?;
    for _ in 0..ATTEMPTS {
        let old = existing(&admin.store, &id).map_err(|problem| condition.refused(problem, None))?;
        let expect = condition.check(old.revision)?;
        let now = Timestamp::now();
        refuse_rotation(&old, successor(&admin.store, &old)?, now)?;
        let secret = Secret::generate(kind(old.env));
        let (old, mut new) = rotated(old, &secret, now, grace_seconds);
        let ops =
            vec![MetaOp::PutKey { key: old, expect }, MetaOp::PutKey { key: new.clone(), expect: Expect::Absent }];
        match writer.write(&admin.store, ops).await {
            Ok(revision) => {
                new.revision = revision;
                let path = format!("/v1/keys/{}", new.id);
                return Ok(answer::created(&path, revision, &View::with_secret(new, &secret)));
            }
            Err(problem) => again(&admin.store, condition, problem).await?,
        }
    }
    Err(contended())
}

/// The old key with its end, and the new one with the old one's rights (and its own end, if it had one).
fn rotated(old: Key, secret: &Secret, now: Timestamp, grace_seconds: i64) -> (Key, Key) {
    let new = Key {
        name: old.name.clone(),
        scopes: old.scopes.clone(),
        allowed_ips: old.allowed_ips.clone(),
        expires_at: old.expires_at,
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

fn revoked(key: Key, now: Timestamp) -> Key {
    Key { state: KeyState::Revoked, revoked_at: Some(now), ..key }
}

fn fresh(account: AccountId, env: Env, secret: &Secret, now: Timestamp) -> Key {
    Key {
        id: format!("key_{}", ulid::Ulid::generate()).into(),
        account,
        hash: secret.hash(),
        name: Name::default(),
        env,
        last4: secret.last4().to_owned(),
        scopes: Vec::new(),
        allowed_ips: Vec::new(),
        expires_at: None,
        state: KeyState::Active,
        created_at: now,
        revoked_at: None,
        rotated_from: None,
        revision: 0,
    }
}

fn refuse_revoked(key: &Key) -> Result<()> {
    match key.state {
        KeyState::Revoked => Err(Problem::new(Code::NotPossible, "the key is revoked, for ever: make a new one")),
        _ => Ok(()),
    }
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
fn successor(store: &Store, key: &Key) -> Result<Option<KeyId>> {
    let mut after: Option<String> = None;
    loop {
        let keys = store.keys(&key.account, after.as_deref(), BATCH)?;
        let found =
            keys.iter().find(|other| other.rotated_from.as_ref() == Some(&key.id) && other.state != KeyState::Revoked);
        if let Some(found) = found {
            return Ok(Some(found.id.clone()));
        }
        match keys.last() {
            Some(last) if keys.len() == BATCH => after = Some(last.id.to_string()),
            _ => return Ok(None),
        }
    }
}

fn kind(env: Env) -> SecretKind {
    match env {
        Env::Live => SecretKind::Live,
        Env::Test => SecretKind::Test,
    }
}

fn existing(store: &Store, id: &str) -> Result<Key> {
    store.key(&id.into())?.ok_or_else(|| Problem::not_found("key", id))
}

fn seen(store: &Store, key: Key) -> Result<View> {
    let last_used_at = store.key_last_used(&key.account, &key.id)?;
    Ok(View::of(key, last_used_at))
}

/// The key with a patch laid over it.
fn patched(key: &Key, patch: Value) -> Result<Form> {
    let mut whole = json!(View::of(key.clone(), None));
    input::merge(&mut whole, patch);
    let view = json!(View::of(key.clone(), None));
    input::read(whole, |object| {
        for fixed in ["id", "account", "env", "prefix", "last4", "rotated_from"] {
            object.fixed(fixed, &view[fixed]);
        }
        for answered in ["last_used_at", "created_at", "revoked_at", "revision"] {
            object.answered(answered);
        }
        Form::read(object)
    })
}

/// Goes on after a change was overtaken, when the caller named no revision.
async fn again(store: &Store, condition: Condition, problem: Problem) -> Result<()> {
    if problem.code() == Code::PreconditionFailed && condition == Condition::None {
        store.barrier().await?;
        return Ok(());
    }
    Err(problem)
}

fn contended() -> Problem {
    Problem::new(Code::NotPossible, "the key is being changed by others all the time: try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        let secret = Secret::generate(SecretKind::Test);
        Key {
            name: "ci".into(),
            scopes: vec!["scan".into()],
            allowed_ips: vec!["10.0.0.0/8".parse().expect("a network")],
            revision: 3,
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

    #[test]
    fn a_patch_switches_off_and_cannot_revoke_or_move() {
        assert_eq!(patched(&key(), json!({ "state": "disabled" })).map(|form| form.state), Ok(KeyState::Disabled));
        for bad in [json!({ "state": "revoked" }), json!({ "account": "other" }), json!({ "secret": "x" })] {
            assert!(patched(&key(), bad).is_err());
        }
    }

    #[test]
    fn a_view_has_no_secret_and_no_hash() {
        let text = json!(View::of(key(), None)).to_string();
        assert!(!text.contains("secret") && !text.contains("hash"), "{text}");
    }
}
