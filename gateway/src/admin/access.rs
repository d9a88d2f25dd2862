//! Lets known callers in, and makes writes impossible without the role for them.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use http::{Extensions, header, request::Parts};
use store::{
    Store, WriteError,
    model::{MetaOp, MetaWrite, Once, Revision, Role, Timestamp},
};

use super::{
    Admin, in_force,
    once::Asked,
    problem::{Code, Problem, Result},
    request_id::AdminRequestId,
};
use crate::operator::{Caller, Unknown};

/// Identifies the caller; nothing below it sees the token.
pub(crate) async fn layer(State(admin): State<Arc<Admin>>, mut request: Request, next: Next) -> Result<Response> {
    let authorization = request.headers_mut().remove(header::AUTHORIZATION);
    let text = authorization.as_ref().and_then(|value| value.to_str().ok());
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let caller = admin.operator.identify(&admin.store, text, from).await?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// A caller of a handler: a viewer at least.
#[derive(Debug)]
pub(crate) struct Visitor {
    caller: Caller,
    request_id: String,
    source: String,
    asked: Option<Asked>,
}

/// A caller who may write, with the role that the handler asked for.
#[derive(Debug)]
pub(crate) struct Writer(Visitor);

impl Visitor {
    /// The caller as one who may write.
    pub(crate) fn require(self, role: Role) -> Result<Writer> {
        self.caller.require(role)?;
        Ok(Writer(self))
    }

    /// Who it is.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// When the caller's token ends.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        self.caller.expires_at
    }

    /// Refuses an account's own token: what is read concerns all accounts, or none.
    pub(crate) fn require_staff(&self) -> Result<()> {
        match &self.caller.account {
            None => Ok(()),
            Some(account) => Err(Problem::new(
                Code::TokenLimited,
                format!(
                    "this token is the account {account}'s own: it reads the account, its keys, limits, usage and requests"
                ),
            )),
        }
    }

    /// Refuses an account that the caller may not see, as if there were none.
    pub(crate) fn require_account(&self, id: &str) -> Result<()> {
        if self.caller.covers(id) { Ok(()) } else { Err(Problem::not_found("account", id)) }
    }
}

impl Caller {
    /// Refuses a role that is too low.
    pub(crate) fn require(&self, role: Role) -> Result<()> {
        if self.role >= role {
            return Ok(());
        }
        let text = |role| match role {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        };
        Err(Problem::new(
            Code::RoleTooLow,
            format!("this needs the role {}; the token has {}", text(role), text(self.role)),
        ))
    }

    /// Refuses a token that is limited to some accounts: what it is used for concerns all.
    pub(crate) fn require_everywhere(&self) -> Result<()> {
        if !self.is_limited() {
            return Ok(());
        }
        Err(Problem::new(Code::TokenLimited, "this token is limited to some accounts; what it asks for concerns all"))
    }
}

impl Writer {
    pub(crate) fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// The same, for what can be repeated as it is: its `Idempotency-Key` says nothing.
    pub(crate) fn without_key(mut self) -> Self {
        self.0.asked = None;
        self
    }

    /// The address that the request came from.
    pub(crate) fn source(&self) -> &str {
        &self.0.source
    }

    /// The request's id.
    pub(crate) fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// The request's `Idempotency-Key`.
    pub(crate) fn asked(&self) -> Option<&Asked> {
        self.0.asked.as_ref()
    }

    /// One atomic change, in the caller's name.
    pub(crate) async fn write(
        &self,
        store: &Store,
        at: Timestamp,
        ops: Vec<MetaOp>,
        once: Option<Once>,
        changed: Vec<(u32, Vec<String>)>,
    ) -> std::result::Result<Revision, WriteError> {
        let Visitor { caller, request_id, source, .. } = &self.0;
        let write = MetaWrite {
            at,
            actor: caller.actor.clone(),
            role: Some(caller.role),
            source: source.clone(),
            request_id: request_id.clone(),
            ops,
            once,
            notes: Vec::new(),
            changed: Some(changed).filter(|changed| !changed.is_empty()),
        };
        let written = store.write(write).await?;
        in_force::note(&written);
        Ok(written.revision)
    }
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Problem::from(Unknown::Missing))?;
        Ok(Self {
            caller,
            request_id: parts.extensions.get::<AdminRequestId>().map(ToString::to_string).unwrap_or_default(),
            source: source(&parts.extensions),
            asked: Asked::read(&parts.method, &parts.uri, &parts.headers)?,
        })
    }
}

/// The address that a request came from, without its port.
pub(crate) fn source(extensions: &Extensions) -> String {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical().to_string()).unwrap_or_default()
}

impl From<Unknown> for Problem {
    fn from(unknown: Unknown) -> Self {
        let code = match unknown {
            Unknown::Missing => Code::MissingToken,
            Unknown::Malformed => Code::MalformedToken,
            Unknown::Unknown => Code::UnknownToken,
            Unknown::Expired => Code::ExpiredToken,
            Unknown::TooMany(after) => {
                return Self::new(Code::TooManyWrongTokens, unknown.to_string()).after(after);
            }
            Unknown::Unavailable(unavailable) => return unavailable.into(),
        };
        Self::new(code, unknown.to_string())
    }
}
