//! `/v1/tokens`: admin tokens. Only administrators see and make them.

use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use store::model::{Expect, MetaOp, Name, Revision, Role, Secret, SecretKind, Timestamp, Token};

use super::{
    Shared,
    access::Visitor,
    answer,
    etag::Condition,
    forms, input,
    params::Params,
    problem::{Problem, Result},
};

/// A token as the API shows it.
#[derive(Debug, Serialize)]
struct View {
    id: Name,
    name: Name,
    role: Role,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
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
            revision: token.revision,
            secret: None,
        }
    }
}

/// `GET /v1/tokens`
pub(crate) async fn list(visitor: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    visitor.require(Role::Admin)?;
    let page = params.page();
    params.finish()?;
    let (tokens, next) = page.of(admin.store.tokens()?, |token| token.id.clone());
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
    visitor.require(Role::Admin)?;
    params.finish()?;
    let token = admin.store.tokens()?.into_iter().find(|token| *token.id == *id);
    let token = token.ok_or_else(|| Problem::not_found("token", &id))?;
    Ok(answer::object(StatusCode::OK, token.revision, &View::from(token)))
}

/// `POST /v1/tokens`
pub(crate) async fn create(visitor: Visitor, State(admin): Shared, params: Params, body: Bytes) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?;
    params.finish()?;
    let now = Timestamp::now();
    let (name, role, expires_at) = input::read(input::parse(&body)?, |object| {
        let name = object.required("name").and_then(forms::label);
        let role = object.required("role").and_then(|field| {
            field.choice(&[("viewer", Role::Viewer), ("operator", Role::Operator), ("admin", Role::Admin)])
        });
        let expires_at = object.optional("expires_at").map_or(Some(None), |field| forms::time(field).map(Some));
        if expires_at.flatten().is_some_and(|at| at <= now) {
            object.tell("expires_at", "is in the past");
        }
        Some((name?, role?, expires_at?))
    })?;
    let secret = Secret::generate(SecretKind::Admin);
    let mut token = Token {
        id: format!("tok_{}", ulid::Ulid::generate()).into(),
        name: name.into(),
        hash: secret.hash(),
        role,
        created_at: now,
        expires_at,
        revision: 0,
    };
    let op = MetaOp::PutToken { token: token.clone(), expect: Expect::Absent };
    token.revision = writer.write(&admin.store, vec![op]).await?;
    let (path, revision) = (format!("/v1/tokens/{}", token.id), token.revision);
    let view = View { secret: Some(secret.expose().to_owned()), ..View::from(token) };
    Ok(answer::created(&path, revision, &view))
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
    let expect = if condition == Condition::None { Expect::Present } else { condition.expect() };
    let op = MetaOp::DeleteToken { id: id.into(), expect };
    writer.write(&admin.store, vec![op]).await.map_err(|problem| condition.refused(problem, None))?;
    Ok(answer::gone())
}
