//! Lets known callers in, and makes writes impossible without the role for them.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use http::{header, request::Parts};
use store::{
    Store,
    model::{MetaOp, MetaWrite, Revision, Role, Timestamp},
};

use super::{
    Admin,
    problem::{Code, Problem, Result},
    request_id::AdminRequestId,
};
use crate::operator::{Caller, Unknown};

/// Identifies the caller; nothing below it sees the token.
pub(crate) async fn layer(State(admin): State<Arc<Admin>>, mut request: Request, next: Next) -> Result<Response> {
    let authorization = request.headers_mut().remove(header::AUTHORIZATION);
    let text = authorization.as_ref().and_then(|value| value.to_str().ok());
    let caller = admin.operator.identify(&admin.store, text).await?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// A caller of a handler: a viewer at least.
#[derive(Debug)]
pub(crate) struct Visitor {
    caller: Caller,
    request_id: String,
}

/// A caller who may write, with the role that the handler asked for.
#[derive(Debug)]
pub(crate) struct Writer(Visitor);

impl Visitor {
    /// The caller as one who may write.
    pub(crate) fn require(self, role: Role) -> Result<Writer> {
        if self.caller.role >= role {
            return Ok(Writer(self));
        }
        let text = |role| match role {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        };
        Err(Problem::new(
            Code::RoleTooLow,
            format!("this needs the role {}; the token has {}", text(role), text(self.caller.role)),
        ))
    }
}

impl Writer {
    /// One atomic change, in the caller's name.
    pub(crate) async fn write(&self, store: &Store, ops: Vec<MetaOp>) -> Result<Revision> {
        let write = MetaWrite {
            at: Timestamp::now(),
            actor: self.0.caller.actor.clone(),
            request_id: self.0.request_id.clone(),
            ops,
        };
        Ok(store.write(write).await?)
    }
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let caller = parts.extensions.get::<Caller>().cloned();
        let request_id = parts.extensions.get::<AdminRequestId>().map(ToString::to_string).unwrap_or_default();
        let caller = caller.ok_or_else(|| Problem::from(Unknown::Missing))?;
        Ok(Self { caller, request_id })
    }
}

impl From<Unknown> for Problem {
    fn from(unknown: Unknown) -> Self {
        let code = match unknown {
            Unknown::Missing => Code::MissingToken,
            Unknown::Malformed => Code::MalformedToken,
            Unknown::Unknown => Code::UnknownToken,
            Unknown::Expired => Code::ExpiredToken,
            Unknown::Unavailable(unavailable) => return unavailable.into(),
        };
        Self::new(code, unknown.to_string())
    }
}
