//! Revisions as entity tags, and the conditions that callers put on writes (RFC 9110 §13.1).

use axum::{
    body::Body,
    extract::{FromRequestParts, Request},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use store::model::{Expect, Revision};

use super::problem::{Code, Problem, Result};

/// `"17"`.
pub(crate) fn value(revision: Revision) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).expect("a quoted number is a header's value")
}

/// A read of what the caller has already (`If-None-Match`) is answered without a body.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let known: Vec<HeaderValue> = request.headers().get_all(header::IF_NONE_MATCH).iter().cloned().collect();
    let response = next.run(request).await;
    if !reads || known.is_empty() || response.status() != StatusCode::OK {
        return response;
    }
    match response.headers().get(header::ETAG) {
        Some(tag) if known.iter().any(|known| names(known, tag)) => not_modified(response),
        _ => response,
    }
}

fn not_modified(response: Response) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::NOT_MODIFIED;
    parts.headers.remove(header::CONTENT_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::empty())
}

/// Whether a list of entity tags has one; weakly, as reads compare (RFC 9110 §13.1.2).
fn names(list: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(list), Ok(tag)) = (list.to_str(), tag.to_str()) else { return false };
    list.trim() == "*" || list.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)
}

/// What the caller says that the object must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing is said.
    None,
    /// `If-None-Match: *`.
    Absent,
    /// `If-Match: *`.
    Present,
    /// `If-Match: "17"`.
    Revision(Revision),
}

impl Condition {
    fn read(headers: &HeaderMap) -> Result<Self> {
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("").trim().to_owned());
        match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
            (None, None) => Ok(Self::None),
            (None, Some(tag)) if tag == "*" => Ok(Self::Absent),
            (Some(tag), None) => Self::of_if_match(&tag)
                .map_err(|()| Problem::of_header("If-Match", "expected one ETag as it was given, like \"17\", or *")),
            (Some(_), Some(none)) if none == "*" => Err(Problem::new(
                Code::PreconditionFailed,
                "If-Match and If-None-Match: * never hold at the same time: send one of them",
            )),
            (_, Some(_)) => {
                Err(Problem::of_header("If-None-Match", "only * is understood (the object must not exist)"))
            }
        }
    }

    /// What `If-Match` says.
    pub(crate) fn of_if_match(text: &str) -> std::result::Result<Self, ()> {
        if text == "*" {
            return Ok(Self::Present);
        }
        // Without its quotes too: shells and clients lose them, and there is nothing else that a number could be.
        let number = text.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(text);
        let is_number = number.bytes().all(|digit| digit.is_ascii_digit());
        number.parse().ok().filter(|_| is_number).map(Self::Revision).ok_or(())
    }

    /// The condition as the store's.
    pub(crate) fn expect(self) -> Expect {
        match self {
            Self::None => Expect::Any,
            Self::Absent => Expect::Absent,
            Self::Present => Expect::Present,
            Self::Revision(revision) => Expect::Revision(revision),
        }
    }

    /// Checks an object that was read, for a change that is made from it; the write then expects this revision.
    pub(crate) fn check(self, current: Revision) -> Result<Expect> {
        match self {
            Self::Revision(expected) if expected != current => Err(Problem::moved(Some(current))),
            Self::Absent => Err(Problem::moved(Some(current))),
            _ => Ok(Expect::Revision(current)),
        }
    }

    /// What a refused condition is to a caller who put one: 412 rather than 404 or 409.
    pub(crate) fn refused(self, problem: Problem, current: Option<Revision>) -> Problem {
        match (self, problem.code()) {
            (Self::Absent, Code::AlreadyExists) | (Self::Present | Self::Revision(_), Code::NotFound) => {
                Problem::moved(current)
            }
            _ => problem,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Condition {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Self::read(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(HeaderName, &'static str)]) -> Result<Condition> {
        let headers = pairs.iter().map(|(name, text)| (name.clone(), HeaderValue::from_static(text))).collect();
        Condition::read(&headers)
    }

    #[test]
    fn conditions_read_and_refuse() {
        assert_eq!(read(&[]), Ok(Condition::None));
        assert_eq!(read(&[(header::IF_MATCH, "\"17\"")]), Ok(Condition::Revision(17)));
        assert_eq!(read(&[(header::IF_MATCH, "17")]), Ok(Condition::Revision(17)));
        assert_eq!(read(&[(header::IF_MATCH, "*")]), Ok(Condition::Present));
        assert_eq!(read(&[(header::IF_NONE_MATCH, "*")]), Ok(Condition::Absent));
        for bad in ["17\"", "+17", "W/\"17\"", "\"x\"", "\"1\", \"2\"", ""] {
            assert_eq!(read(&[(header::IF_MATCH, bad)]).map_err(|p| p.code()), Err(Code::MalformedHeader), "{bad}");
        }
        assert!(read(&[(header::IF_NONE_MATCH, "\"1\"")]).is_err());
        let both = read(&[(header::IF_MATCH, "*"), (header::IF_NONE_MATCH, "*")]);
        assert_eq!(both.map_err(|problem| problem.code()), Err(Code::PreconditionFailed));
    }

    #[test]
    fn a_read_of_what_is_known_is_told_by_its_tag() {
        let tag = value(17);
        for (list, is) in [("\"17\"", true), ("\"3\", W/\"17\"", true), ("*", true), ("\"1\"", false), ("17", false)] {
            assert_eq!(names(&HeaderValue::from_static(list), &tag), is, "{list}");
        }
    }

    #[test]
    fn a_stale_revision_is_refused_with_the_current_one() {
        assert_eq!(Condition::Revision(3).check(4), Err(Problem::moved(Some(4))));
        assert_eq!(Condition::None.check(4), Ok(Expect::Revision(4)));
    }
}
