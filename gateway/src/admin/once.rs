//! `Idempotency-Key`: a POST that is sent again changes nothing and is answered as it was
//! (draft-ietf-httpapi-idempotency-key-header).
//!
//! What happened is kept for a day in the replicated state, so it holds across nodes and changes of leaders. Refusals are not
//! kept: they changed nothing, and a later try may succeed. Secrets are not kept either: a repeated answer has none.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::model::{Happened, Once};

use super::{
    draft::{Effect, Kind},
    problem::{Code, Problem, Result},
};
use crate::operator::Caller;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer repeats an earlier one.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
pub(crate) const REPLAYED_VALUE: HeaderValue = HeaderValue::from_static("true");
/// Longest key.
const MAX_KEY_BYTES: usize = 255;

/// A POST's key, before its body is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    key: Vec<u8>,
    target: String,
}

/// Keys of requests that are under way on this node; as many as there are requests.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Arc<Mutex<HashSet<Vec<u8>>>>);

/// A key that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    all: Arc<Mutex<HashSet<Vec<u8>>>>,
    key: Vec<u8>,
    pub(crate) fingerprint: Vec<u8>,
}

/// What an operation came to, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) id: String,
}

impl Asked {
    /// The key of a POST, if it has one.
    pub(crate) fn read(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Option<Self>> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let (Some(value), true) = (values.next(), method == Method::POST) else { return Ok(None) };
        let key = value.as_bytes();
        let fits = (1..=MAX_KEY_BYTES).contains(&key.len()) && key.iter().all(|byte| (0x21..0x7f).contains(byte));
        if !fits || values.next().is_some() {
            let detail = format!("expected once, 1 to {MAX_KEY_BYTES} ASCII characters that can be seen");
            return Err(Problem::of_header("Idempotency-Key", &detail));
        }
        let target = uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string);
        Ok(Some(Self { key: key.to_vec(), target }))
    }
}

impl UnderWay {
    /// Takes the key, unless a request with it is under way.
    pub(crate) fn begin(&self, caller: &Caller, asked: &Asked, body: &[u8]) -> Result<Held> {
        let key = digest(&[caller.actor.as_bytes(), &asked.key]);
        let fingerprint = digest(&[asked.target.as_bytes(), body]);
        let all = self.0.clone();
        if !all.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            return Err(Problem::new(
                Code::IdempotencyKeyInProgress,
                "a request with this Idempotency-Key is under way: wait for its answer, or ask again later",
            ));
        }
        Ok(Held { all, key, fingerprint })
    }
}

impl Held {
    /// As the store keeps it.
    pub(crate) fn once(&self, effects: &[Effect]) -> Once {
        let kept: Vec<Kept> = effects
            .iter()
            .map(|effect| Kept {
                status: effect.status.as_u16(),
                kind: effect.kind.noun().to_owned(),
                id: effect.id.clone(),
            })
            .collect();
        let answer = serde_json::to_string(&kept).expect("numbers and texts are JSON");
        Once { key: self.key.clone(), fingerprint: self.fingerprint.clone(), answer }
    }

    /// What happened, if it was this request.
    pub(crate) fn kept(&self, happened: &Happened) -> Result<Vec<(StatusCode, Kind, String)>> {
        if happened.fingerprint != self.fingerprint {
            return Err(Problem::new(
                Code::IdempotencyKeyReused,
                format!(
                    "this Idempotency-Key was used at {} for another request (id {}): use a new key for a new request",
                    happened.at, happened.request_id
                ),
            ));
        }
        let unreadable = || Problem::new(Code::Internal, "what happened under this Idempotency-Key cannot be read");
        let kept: Vec<Kept> = serde_json::from_str(&happened.answer).map_err(|_| unreadable())?;
        kept.into_iter()
            .map(|kept| {
                let status = StatusCode::from_u16(kept.status).map_err(|_| unreadable())?;
                Ok((status, Kind::of(&kept.kind).ok_or_else(unreadable)?, kept.id))
            })
            .collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// SHA-256 over texts, each after its length.
fn digest(texts: &[&[u8]]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &Method, values: &[&str]) -> Result<Option<Asked>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_str(value).expect("a value"));
        }
        Asked::read(method, &Uri::from_static("/v1/accounts?x=1"), &headers)
    }

    #[test]
    fn only_a_post_has_a_key_and_a_bad_one_is_refused() {
        assert_eq!(asked(&Method::POST, &[]), Ok(None));
        assert_eq!(asked(&Method::PUT, &["a"]), Ok(None));
        assert!(asked(&Method::POST, &["8e03978e"]).is_ok_and(|asked| asked.is_some()));
        for bad in [&[""][..], &["a", "b"], &["x y"], &[&"x".repeat(256)]] {
            assert_eq!(asked(&Method::POST, bad).map_err(|problem| problem.code()), Err(Code::MalformedHeader));
        }
    }

    #[test]
    fn a_key_is_under_way_once_and_is_each_callers_own() {
        let caller = |actor: &str| Caller { actor: actor.into(), ..Caller::default() };
        let (keys, asked) = (UnderWay::default(), asked(&Method::POST, &["k"]).expect("reads").expect("a key"));
        let held = keys.begin(&caller("a"), &asked, b"x").expect("first");
        assert_eq!(
            keys.begin(&caller("a"), &asked, b"x").map_err(|problem| problem.code()).err(),
            Some(Code::IdempotencyKeyInProgress)
        );
        let other = keys.begin(&caller("b"), &asked, b"x").expect("another caller's");
        assert!(other.key != held.key && other.fingerprint == held.fingerprint);
        drop(held);
        let again = keys.begin(&caller("a"), &asked, b"y").expect("it has ended");
        assert_ne!(again.fingerprint, other.fingerprint);
        let effect = Effect::gone(Kind::Key, "key_1");
        let happened = Happened {
            fingerprint: again.fingerprint.clone(),
            answer: again.once(&[effect]).answer,
            ..Happened::default()
        };
        assert_eq!(again.kept(&happened), Ok(vec![(StatusCode::NO_CONTENT, Kind::Key, "key_1".to_owned())]));
        assert_eq!(other.kept(&happened).map_err(|problem| problem.code()), Err(Code::IdempotencyKeyReused));
    }
}
