//! Second link: the key, its state, its expiry, and the networks it may come from.

use http::{HeaderMap, HeaderName, Request, header};
use store::{
    model::{AccountState, KeyHash, KeyState, Secret, SecretKind, is_within},
    view::FoundKey,
};

use super::{Inbound, Ledger, entry::Entry, link::Link};
use crate::error::Fault;

/// The link.
#[derive(Debug)]
pub(crate) struct Auth<S> {
    inner: S,
}

impl<S> Auth<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<L: Ledger, B: Inbound, S: Link<L, Request<B>>> Link<L, Request<B>> for Auth<S> {
    type Response = S::Response;

    async fn call(&self, entry: &mut Entry<L>, request: Request<B>) -> Result<S::Response, Fault> {
        authenticate(entry, &request)?;
        self.inner.call(entry, request).await
    }
}

fn authenticate<L: Ledger, B>(entry: &mut Entry<L>, request: &Request<B>) -> Result<(), Fault> {
    let shared = entry.shared.clone();
    let hash = key_hash(request.headers(), &shared.settings.key_headers)?;
    let Some(key) = shared.ledger.key(&hash) else {
        // A node that is cut off may not know a fresh key: it says 503, never 401 (P3).
        shared.ledger.check(entry.view).map_err(Fault::Unavailable)?;
        return Err(Fault::UnknownKey);
    };
    let verdict = judge(entry, &key);
    entry.know(key, hash, request);
    verdict
}

/// Whether a request may use its key.
fn judge<L: Ledger>(entry: &Entry<L>, key: &FoundKey) -> Result<(), Fault> {
    match (key.state, key.account.state) {
        (KeyState::Revoked, _) => return Err(Fault::RevokedKey),
        (KeyState::Disabled, _) => return Err(Fault::KeyDisabled),
        (KeyState::Active, AccountState::Suspended) => return Err(Fault::AccountSuspended),
        (KeyState::Active, AccountState::Active) => {}
    }
    if key.expires_at.is_some_and(|at| at <= entry.ts) {
        return Err(Fault::ExpiredKey);
    }
    let allowed = key.allowed_ips().is_empty() || is_within(key.allowed_ips(), entry.client.ip);
    if allowed { Ok(()) } else { Err(Fault::IpNotAllowed) }
}

/// Looks the key of a request up again that has waited since, and judges by it.
pub(super) fn look_again<L: Ledger>(entry: &mut Entry<L>) -> Result<(), Fault> {
    entry.view = entry.shared.ledger.view();
    let known = entry.known.as_ref().expect("the links below auth have a key");
    let Some(key) = entry.shared.ledger.key(&known.hash) else {
        entry.shared.ledger.check(entry.view).map_err(Fault::Unavailable)?;
        // It was known: its account is gone.
        return Err(Fault::RevokedKey);
    };
    let verdict = judge(entry, &key);
    entry.known.as_mut().expect("as above").key = key;
    verdict
}

/// The first configured header that is there decides. `Authorization` is a key's place only as `Bearer`; another scheme, and
/// one beside a key in another header, is the upstream's business.
pub(super) fn key_hash(headers: &HeaderMap, names: &[HeaderName]) -> Result<KeyHash, Fault> {
    for name in names {
        let mut values = headers.get_all(name).iter();
        let Some(value) = values.next() else { continue };
        let text = if *name == header::AUTHORIZATION {
            match bearer(value.as_bytes()) {
                Some(text) => text,
                None => continue,
            }
        } else {
            value.as_bytes()
        };
        if values.next().is_some() {
            return Err(Fault::MalformedKey);
        }
        let text = std::str::from_utf8(text).map_err(|_| Fault::MalformedKey)?;
        return match Secret::check(text) {
            Ok(SecretKind::Live | SecretKind::Test) => Ok(KeyHash::of(text)),
            Ok(SecretKind::Admin) | Err(_) => Err(Fault::MalformedKey),
        };
    }
    Err(Fault::MissingKey)
}

/// The credentials of `Bearer <credentials>` (RFC 6750 §2.1; the scheme's case does not matter).
pub(crate) fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn first_header_that_is_there_decides() {
        let names = [HeaderName::from_static("x-api-key"), header::AUTHORIZATION];
        let key = Secret::generate(SecretKind::Live);
        let value = |text: &str| HeaderValue::from_str(text).expect("ASCII");
        let mut headers = HeaderMap::new();
        assert!(matches!(key_hash(&headers, &names), Err(Fault::MissingKey)));
        headers.insert(header::AUTHORIZATION, value("Basic dTpw"));
        assert!(matches!(key_hash(&headers, &names), Err(Fault::MissingKey)));
        headers.insert("x-api-key", value(key.expose()));
        assert_eq!(key_hash(&headers, &names).ok(), Some(key.hash()));
        headers.append("x-api-key", value(key.expose()));
        assert!(matches!(key_hash(&headers, &names), Err(Fault::MalformedKey)));
        headers.remove("x-api-key");
        headers.insert(header::AUTHORIZATION, value(&format!("bearer  {}", key.expose())));
        assert_eq!(key_hash(&headers, &names).ok(), Some(key.hash()));
        headers.insert(header::AUTHORIZATION, value(Secret::generate(SecretKind::Admin).expose()));
        assert!(matches!(key_hash(&headers, &names), Err(Fault::MissingKey)));
    }
}
