//! Every refusal of the admin API: its code, status and words (RFC 9457).
//!
//! Handlers return a [`Problem`]; the outermost layer writes it out, so that each has the request's id.

use std::time::Duration;

pub(crate) use crate::error::AdminCode as Code;
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use store::{
    ReadError, Unavailable, WriteError,
    model::{CommandError, Revision, WriteConflict},
};

/// One thing that is wrong with the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    /// JSON pointer (RFC 6901) into the body; `?name` for a query parameter, a header by its name.
    pub(crate) pointer: String,
    /// What is wrong, and what was expected.
    pub(crate) detail: String,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    current: Option<Revision>,
    /// What was read does not belong together: see [`super::freshness::caught_up`].
    is_behind: bool,
}

/// What a handler answers.
pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after: None, current: None, is_behind: false }
    }

    /// Input that is wrong in each of these places.
    pub(crate) fn invalid(code: Code, errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", if one.pointer.is_empty() { "the body" } else { &one.pointer }, one.detail),
            [] => "the input does not fit".to_owned(),
            more => format!("{} things are wrong, see errors; nothing was changed", more.len()),
        };
        Self { errors, ..Self::new(code, detail) }
    }

    /// A request's header that cannot be understood; the pointer is its name.
    pub(crate) fn of_header(name: &str, detail: &str) -> Self {
        Self::invalid(Code::MalformedHeader, vec![FieldError { pointer: name.into(), detail: detail.into() }])
    }

    /// The node cannot take more of this now.
    pub(crate) fn busy(detail: impl Into<String>) -> Self {
        let retry_after = Some(Duration::from_secs(1));
        Self { retry_after, ..Self::new(Code::TemporaryReducedCapacity, detail) }
    }

    /// The same, with when to come again.
    pub(crate) fn after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    /// Every single thing that is wrong, as seen from a whole that this is a part of: errors of a body lie below its
    /// `body`.
    pub(crate) fn within(self, place: &str) -> Vec<FieldError> {
        if self.errors.is_empty() {
            return vec![FieldError { pointer: place.to_owned(), detail: self.detail }];
        }
        let below = |error: FieldError| FieldError { pointer: format!("{place}/body{}", error.pointer), ..error };
        self.errors.into_iter().map(below).collect()
    }

    /// The same problem of a whole in which these things are wrong.
    pub(crate) fn with_errors(self, errors: Vec<FieldError>) -> Self {
        let told = Self::invalid(self.code, errors);
        Self { detail: told.detail, errors: told.errors, ..self }
    }

    /// The same, with the places that it speaks of.
    pub(crate) fn with_places(self, errors: Vec<FieldError>) -> Self {
        Self { errors, ..self }
    }

    pub(crate) fn not_found(kind: &str, id: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no {kind} {id:?}"))
    }

    /// The object is at another revision than the caller's.
    pub(crate) fn moved(current: Option<Revision>) -> Self {
        let detail = match current {
            Some(current) => format!("the object is at revision {current}: read it again and repeat the change"),
            None => "the object does not exist".to_owned(),
        };
        Self { current, ..Self::new(Code::PreconditionFailed, detail) }
    }

    /// Read again once this node has caught up, it may be none.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    #[cfg(test)]
    pub(crate) fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// What to do when an answer is an error that no handler made.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let code = Code::of_status(status);
        let detail = match code {
            Code::NotFound => "there is no such resource: see the API's description for its paths",
            Code::MethodNotAllowed => "this resource does not have this method; Allow lists those that it has",
            Code::BodyTooLarge => "the body is larger than admin_body_bytes",
            _ => "the request could not be read",
        };
        Self::new(code, detail)
    }

    /// The answer's head and body, with the request's id.
    pub(crate) fn render(&self, request_id: &str) -> Response {
        let (status, code) = self.code.parts();
        let mut body = serde_json::json!({
            "type": self.code.problem_type(),
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "code": code,
            "detail": self.detail,
            "request_id": request_id,
        });
        if !self.errors.is_empty() {
            body["errors"] = serde_json::json!(self.errors);
        }
        if let Some(current) = self.current {
            body["current_revision"] = current.into();
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up.
            headers.insert(header::RETRY_AFTER, (after.as_millis().div_ceil(1_000).max(1) as u64).into());
        }
        if let Some(current) = self.current {
            headers.insert(header::ETAG, super::etag::value(current));
        }
        match self.code {
            Code::MissingToken | Code::SignInFailed => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="tollgate-admin""#));
            }
            Code::MalformedToken | Code::UnknownToken | Code::ExpiredToken => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static(r#"Bearer realm="tollgate-admin", error="invalid_token""#),
                );
            }
            _ => {}
        }
        response
    }
}

impl IntoResponse for Problem {
    /// Carries the problem to the outermost layer.
    fn into_response(self) -> Response {
        let mut response = self.code.parts().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        Self {
            retry_after: Some(unavailable.retry_after),
            ..Self::new(Code::TemporaryReducedCapacity, unavailable.reason)
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(unavailable) => unavailable.into(),
            ReadError::Cursor => Self::invalid(
                Code::MalformedQuery,
                vec![FieldError { pointer: "?cursor".into(), detail: error.to_string() }],
            ),
            ReadError::Behind => Self { is_behind: true, ..Self::busy(error.to_string()) },
            ReadError::Storage { reason, file } => {
                tracing::error!(%reason, "read the ledger");
                let file = file.map_or_else(|| "what is asked for".to_owned(), |file| format!("the file {file}"));
                let detail = format!(
                    "this node cannot read {file}: ask another node; this one's log says what is wrong and what to do"
                );
                Self::new(Code::StorageDamaged, detail)
            }
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Unavailable(unavailable) => unavailable.into(),
            WriteError::Refused(refused) => refused.into(),
        }
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let detail = error.to_string();
        let (kind, id, conflict) = match error {
            CommandError::Conflict { kind, id, conflict, .. } => (kind, id, conflict),
            CommandError::TooManyKept(_) => return Self::busy(detail),
            error => {
                tracing::error!(%error, "metadata write refused");
                return Self::new(Code::Internal, detail);
            }
        };
        match conflict {
            WriteConflict::Exists => Self::new(Code::AlreadyExists, detail),
            WriteConflict::Missing => Self::not_found(&kind, &id),
            WriteConflict::Revision { current, .. } => Self::moved(Some(current)),
            WriteConflict::Dangling { kind, .. } => {
                Self::invalid(Code::InvalidBody, vec![FieldError { pointer: format!("/{kind}"), detail }])
            }
            WriteConflict::InUse { .. } => Self::new(Code::InUse, detail),
            WriteConflict::Revoked => Self::new(Code::NotPossible, detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_on_disk_is_told_by_its_file_and_never_by_its_path() {
        let error = |file: Option<&str>| ReadError::Storage {
            reason: "/var/lib/tollgate/groups/1/state_1/rows_20778_0.redb is damaged".into(),
            file: file.map(str::to_owned),
        };
        let problem = Problem::from(error(Some("rows_20778_0.redb")));
        assert_eq!(problem.code(), Code::StorageDamaged);
        assert_eq!(problem.code().parts().1, "storage-damaged");
        assert!(
            problem.detail.contains("rows_20778_0.redb") && problem.detail.contains("ask another node"),
            "{problem:?}"
        );
        assert!(!problem.detail.contains("/var") && !Problem::from(error(None)).detail.contains("/var"));
    }
}
