//! `/v1/tokens`: admin tokens. Only administrators see and make them.

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
    model::{AccountId, Expect, MetaOp, Name, Revision, Role, Secret, SecretKind, Timestamp, Token},
};

use super::{
    Shared,
    access::Visitor,
    answer, change,
    draft::{Draft, Effect, Kind},
    etag::Condition,
    forms, input, keys,
    params::Params,
    problem::{Code, Problem, Result},
};

const ROLES: &[(&str, Role)] = &[("viewer", Role::Viewer), ("operator", Role::Operator), ("admin", Role::Admin)];
/// Selectors of a token.
const MAX_SELECTORS: usize = 100;
const SELECTOR_FORM: &str = "an account's id, or the beginning of some with * at its end, like eu-*";

/// A token as the API shows it.
#[derive(Debug, Serialize)]
struct View {
    id: Name,
    name: Name,
    role: Role,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    /// Accounts that it is limited to; empty for all.
    accounts: Vec<Name>,
    /// The account whose own token it is.
    account: Option<AccountId>,
    rotated_from: Option<Name>,
    /// Who has signed in by it.
    subject: Option<Name>,
    revision: Revision,
    /// Only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl From<Token> for View {
    fn from(token: Token) -> Self {
        Self {
            id: token.id,
            name: token.name,
            role: token.role,
            created_at: token.created_at,
            expires_at: token.expires_at,
            accounts: token.accounts,
            account: token.account,
            rotated_from: token.rotated_from,
            subject: token.subject,
            revision: token.revision,
            secret: None,
        }
    }
}

/// `GET /v1/tokens`
pub(crate) async fn list(visitor: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?;
    writer.caller().require_everywhere()?;
    let page = params.page();
    let role = params.choice("role", ROLES);
    params.finish()?;
    let all = admin.store.tokens()?.into_iter().filter(|token| role.is_none_or(|role| token.role == role)).collect();
    let (tokens, next) = page.of(all, |token: &Token| token.id.clone());
    let views: Vec<View> = tokens.into_iter().map(View::from).collect();
    Ok(answer::list(views, next))
}

/// `GET /v1/tokens/{id}`
pub(crate) async fn get(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?;
    writer.caller().require_everywhere()?;
    params.finish()?;
    let token = admin.store.token(&id)?.ok_or_else(|| Problem::not_found("token", &id))?;
    Ok(answer::object(StatusCode::OK, token.revision, &View::from(token)))
}

/// `POST /v1/tokens`
pub(crate) async fn create(visitor: Visitor, State(admin): Shared, params: Params, body: Bytes) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?;
    params.finish()?;
    let value = input::required(&body)?;
    change::one(&admin, &writer, &body, |draft| draft_create(draft, value.clone())).await
}

/// A new token, with its secret.
pub(crate) fn draft_create(draft: &mut Draft<'_>, body: Value) -> Result<Effect> {
    draft.require_everywhere(Role::Admin)?;
    let now = draft.now;
    let form = input::read(body, |object| {
        let name = object.required("name").and_then(forms::label);
        let role = object.required("role").and_then(|field| field.choice(ROLES));
        let accounts = object.optional("accounts").map_or(Some(Vec::new()), |field| {
            field.list(MAX_SELECTORS, |item| item.text(SELECTOR_FORM, is_selector).map(Name::from))
        });
        let account = object.optional("account").map_or(Some(None), |field| {
            field.text("an account's id", forms::is_slug).map(|id| Some(AccountId::from(id.as_str())))
        });
        let expires_at = object.optional("expires_at").map_or(Some(None), |field| forms::time(field).map(Some));
        if expires_at.flatten().is_some_and(|at| at <= now) {
            object.tell("expires_at", "is in the past");
        }
        if let Some(Some(account)) = &account {
            if role.is_some_and(|role| role != Role::Viewer) {
                object.tell("role", "an account's own token is a viewer's");
            }
            if accounts.as_ref().is_some_and(|accounts| !accounts.is_empty()) {
                object.tell("accounts", "excludes account: an account's own token has that one alone");
            }
            if draft.account(account).is_ok_and(|slot| slot.value.is_none()) {
                Draft::tell_missing(object, "account", Kind::Account, account);
            }
        }
        Some((name?, role?, accounts?, account?, expires_at?))
    })?;
    let (name, role, accounts, account, expires_at) = form;
    let secret = Secret::generate(SecretKind::Admin);
    let token = Token {
        id: new_id(),
        name: name.into(),
        hash: secret.hash(),
        role,
        created_at: now,
        expires_at,
        accounts,
        account,
        ..Token::default()
    };
    Ok(draft_new(draft, token, &secret))
}

pub(crate) fn new_id() -> Name {
    format!("tok_{}", ulid::Ulid::generate()).into()
}

fn draft_new(draft: &mut Draft<'_>, token: Token, secret: &Secret) -> Effect {
    let id = token.id.to_string();
    draft.op(Condition::None, MetaOp::PutToken { token: token.clone(), expect: Expect::Absent });
    draft.set_token(&id, Some(token.clone()));
    let view = View { secret: Some(secret.expose().to_owned()), ..View::from(token) };
    Effect::created(Kind::Token, &id, json!(view))
}

/// `POST /v1/tokens/{id}/rotate`: a new token beside the old one, which works for `grace_seconds` more (0: not at all).
pub(crate) async fn rotate(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    condition: Condition,
    params: Params,
    body: Bytes,
) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?;
    params.finish()?;
    let value = input::parse(&body)?;
    change::one(&admin, &writer, &body, |draft| draft_rotate(draft, &id, condition, value.clone())).await
}

/// A token's rotation.
pub(crate) fn draft_rotate(draft: &mut Draft<'_>, id: &str, condition: Condition, body: Value) -> Result<Effect> {
    draft.require_everywhere(Role::Admin)?;
    let grace_seconds = keys::grace(body)?;
    let (old, expect) = draft.token(id)?.change(Kind::Token, id, condition)?;
    let (old, now) = (old.clone(), draft.now);
    if old.expires_at.is_some_and(|at| at <= now) {
        return Err(Problem::new(Code::NotPossible, "the token has expired: make a new one"));
    }
    let secret = Secret::generate(SecretKind::Admin);
    let new = Token {
        id: new_id(),
        hash: secret.hash(),
        created_at: now,
        rotated_from: Some(old.id.clone()),
        revision: 0,
        ..old.clone()
    };
    if grace_seconds == 0 {
        draft.op(condition, MetaOp::DeleteToken { id: old.id.clone(), expect });
        draft.set_token(id, None);
    } else {
        let end = now.plus_seconds(grace_seconds);
        let old = Token { expires_at: Some(old.expires_at.map_or(end, |at| at.min(end))), ..old };
        draft.op(condition, MetaOp::PutToken { token: old.clone(), expect });
        draft.set_token(id, Some(old));
    }
    Ok(draft_new(draft, new, &secret))
}

/// `DELETE /v1/tokens/{id}`: works nowhere any more when this answers.
pub(crate) async fn delete(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    condition: Condition,
    params: Params,
) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?;
    params.finish()?;
    change::one(&admin, &writer, &[], |draft| draft_delete(draft, &id, condition)).await
}

/// A token that goes.
pub(crate) fn draft_delete(draft: &mut Draft<'_>, id: &str, condition: Condition) -> Result<Effect> {
    draft.require_everywhere(Role::Admin)?;
    let expect = draft.token(id)?.remove(Kind::Token, id, condition)?;
    draft.op(condition, MetaOp::DeleteToken { id: id.into(), expect });
    draft.set_token(id, None);
    Ok(Effect::gone(Kind::Token, id))
}

/// A token as the API shows it.
pub(crate) fn show(store: &Store, id: &str) -> Result<Option<Value>> {
    Ok(store.token(id)?.map(|token| json!(View::from(token))))
}

/// A token as the audit keeps it.
pub(crate) fn audited(token: Token) -> Value {
    json!(View::from(token))
}

/// An id, or a beginning of ids and `*`; `*` alone would be no limit.
fn is_selector(text: &str) -> bool {
    forms::is_slug(text.strip_suffix('*').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_ids_or_beginnings() {
        assert!(is_selector("acme") && is_selector("eu-*"));
        for bad in ["", "*", "a*b", "a b", "-x"] {
            assert!(!is_selector(bad), "{bad}");
        }
    }
}
