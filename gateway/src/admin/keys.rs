//! `/v1/accounts/{id}/keys` and `/v1/keys`.
//!
//! The secret is in the answer that made the key and nowhere else: what is kept is its SHA-256.

mod rotation;

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
        AccountId, Env, Expect, Key, KeyHash, KeyId, KeyState, MetaOp, Name, Overrides, Revision, Role, Secret,
        SecretKind, Timestamp,
    },
};

use super::{
    Shared,
    access::Visitor,
    accounts, answer, change,
    draft::{Draft, Effect, Kind},
    etag::Condition,
    forms,
    input::{self, Object},
    params::Params,
    problem::{Code, Problem, Result},
};

pub(crate) use rotation::{draft_rotate, grace, rotate};

const ENVS: &[(&str, Env)] = &[("live", Env::Live), ("test", Env::Test)];

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
    overrides: Overrides,
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
            overrides: key.overrides,
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
    overrides: Overrides,
}

impl Form {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let name = object.optional("name").map_or(Some(String::new()), forms::label);
        let scopes = object.optional("scopes").map_or(Some(Vec::new()), forms::scopes);
        let allowed_ips = object.optional("allowed_ips").map_or(Some(Vec::new()), forms::networks);
        let expires_at = object.optional("expires_at").map_or(Some(None), |field| forms::time(field).map(Some));
        let state = object.optional("state").map_or(Some(KeyState::Active), |field| {
            // A revoked key is shown as such; making one so is DELETE's.
            field.choice(&[("active", KeyState::Active), ("disabled", KeyState::Disabled)])
        });
        let overrides = object.optional("overrides").map_or(Some(Overrides::default()), forms::overrides);
        Some(Self {
            name: name?.into(),
            scopes: scopes?,
            allowed_ips: allowed_ips?,
            expires_at: expires_at?,
            state: state?,
            overrides: overrides?,
        })
    }
}

/// `GET /v1/accounts/{id}/keys`
pub(crate) async fn list(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Response> {
    let page = params.page();
    let states = [("active", KeyState::Active), ("disabled", KeyState::Disabled), ("revoked", KeyState::Revoked)];
    let (state, env) = (params.choice("state", &states), params.choice("env", ENVS));
    let name_prefix = params.short("name_prefix").map(|text| text.to_lowercase());
    params.finish()?;
    let account = accounts::existing(&visitor, &admin.store, &id)?.id;
    let takes = |key: &Key| {
        state.is_none_or(|state| key.state == state)
            && env.is_none_or(|env| key.env == env)
            && name_prefix.as_ref().is_none_or(|prefix| key.name.to_lowercase().starts_with(prefix.as_str()))
    };
    let mut keys = Vec::new();
    let mut after = page.after.clone();
    while keys.len() <= page.limit {
        let some = admin.store.keys(&account, after.as_deref(), page.limit + 1)?;
        let Some(last) = some.last() else { break };
        after = Some(last.id.to_string());
        keys.extend(some.into_iter().filter(takes));
    }
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
    let value = input::parse(&body)?;
    change::one(&admin, &writer, &body, |draft| draft_create(draft, &id, value.clone())).await
}

/// A new key of an account, with its secret.
pub(crate) fn draft_create(draft: &mut Draft<'_>, account: &str, body: Value) -> Result<Effect> {
    draft.require(Role::Operator)?;
    let now = draft.now;
    let (form, env) = input::read(or_empty(body), |object| {
        let env = object.optional("env").map_or(Some(Env::Live), |field| field.choice(ENVS));
        let form = Form::read(object);
        if form.as_ref().and_then(|form| form.expires_at).is_some_and(|at| at <= now) {
            object.tell("expires_at", "is in the past");
        }
        Some((form?, env?))
    })?;
    let Some((account, _)) = &draft.account(account)?.value else {
        return Err(Problem::not_found("account", account));
    };
    let secret = Secret::generate(kind(env));
    let key = Key {
        state: form.state,
        name: form.name,
        scopes: form.scopes,
        allowed_ips: form.allowed_ips,
        expires_at: form.expires_at,
        overrides: form.overrides,
        ..fresh(account.id.clone(), env, &secret, now)
    };
    Ok(draft_new(draft, key, &secret))
}

/// Puts a key that was not there; its secret is in what this comes to, and nowhere else.
fn draft_new(draft: &mut Draft<'_>, key: Key, secret: &Secret) -> Effect {
    let id = key.id.to_string();
    draft.op(Condition::None, MetaOp::PutKey { key: key.clone(), expect: Expect::Absent });
    draft.set_key(&id, Some(key.clone()));
    Effect::created(Kind::Key, &id, json!(View::with_secret(key, secret)))
}

/// `GET /v1/keys/{id}`
pub(crate) async fn get(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response> {
    params.finish()?;
    let key = admin.store.key(&id.as_str().into())?.filter(|key| visitor.caller().covers(&key.account));
    let key = key.ok_or_else(|| Problem::not_found("key", &id))?;
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
    let patch = input::required(&body)?;
    change::one(&admin, &writer, &body, |draft| draft_patch(draft, &id, condition, patch.clone())).await
}

/// A key with a merge patch laid over it.
pub(crate) fn draft_patch(draft: &mut Draft<'_>, id: &str, condition: Condition, patch: Value) -> Result<Effect> {
    draft.require(Role::Operator)?;
    let (key, expect) = draft.key(id)?.change(Kind::Key, id, condition)?;
    refuse_revoked(key)?;
    let key = key.clone();
    let form = patched(&key, patch)?;
    let before = key.clone();
    let changed = Key {
        name: form.name,
        scopes: form.scopes,
        allowed_ips: form.allowed_ips,
        expires_at: form.expires_at,
        state: form.state,
        overrides: form.overrides,
        ..key
    };
    let view = json!(seen(draft.store, changed.clone())?);
    if changed == before && expect != Expect::Any {
        return Ok(Effect::kept(Kind::Key, id, view));
    }
    draft_put(draft, condition, expect, changed);
    Ok(Effect::changed(Kind::Key, id, view))
}

fn draft_put(draft: &mut Draft<'_>, condition: Condition, expect: Expect, key: Key) {
    let id = key.id.to_string();
    draft.op(condition, MetaOp::PutKey { key: key.clone(), expect });
    draft.set_key(&id, Some(key));
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
    change::one(&admin, &writer, &[], |draft| draft_revoke(draft, &id, condition)).await
}

/// A key that is revoked.
pub(crate) fn draft_revoke(draft: &mut Draft<'_>, id: &str, condition: Condition) -> Result<Effect> {
    draft.require(Role::Operator)?;
    let (key, expect) = draft.key(id)?.change(Kind::Key, id, condition)?;
    if key.state != KeyState::Revoked {
        let key = revoked(key.clone(), draft.now);
        draft_put(draft, condition, expect, key);
    }
    Ok(Effect::gone(Kind::Key, id))
}

/// A key as the API shows it.
pub(crate) fn show(store: &Store, id: &str) -> Result<Option<Value>> {
    let Some(key) = store.key(&id.into())? else { return Ok(None) };
    Ok(Some(json!(seen(store, key)?)))
}

/// A key as the audit keeps it.
pub(crate) fn audited(key: Key) -> Value {
    json!(View::of(key, None))
}

/// A body that may be left out.
fn or_empty(body: Value) -> Value {
    if body.is_null() { json!({}) } else { body }
}

/// A key that is revoked.
pub(crate) fn revoked(key: Key, now: Timestamp) -> Key {
    Key { state: KeyState::Revoked, revoked_at: Some(now), ..key }
}

/// A key whose text somebody else has: its hash is all that is known.
pub(crate) fn declared(account: &str, hash: KeyHash, now: Timestamp) -> Key {
    new(account.into(), Env::Live, hash, String::new(), now)
}

fn fresh(account: AccountId, env: Env, secret: &Secret, now: Timestamp) -> Key {
    new(account, env, secret.hash(), secret.last4().to_owned(), now)
}

fn new(account: AccountId, env: Env, hash: KeyHash, last4: String, now: Timestamp) -> Key {
    Key {
        id: format!("key_{}", ulid::Ulid::generate()).into(),
        account,
        hash,
        name: Name::default(),
        env,
        last4,
        scopes: Vec::new(),
        allowed_ips: Vec::new(),
        expires_at: None,
        state: KeyState::Active,
        created_at: now,
        revoked_at: None,
        rotated_from: None,
        revision: 0,
        overrides: Overrides::default(),
    }
}

fn refuse_revoked(key: &Key) -> Result<()> {
    match key.state {
        KeyState::Revoked => Err(Problem::new(Code::NotPossible, "the key is revoked, for ever: make a new one")),
        _ => Ok(()),
    }
}

fn kind(env: Env) -> SecretKind {
    match env {
        Env::Live => SecretKind::Live,
        Env::Test => SecretKind::Test,
    }
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
