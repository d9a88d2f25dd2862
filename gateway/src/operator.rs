//! Who may use the admin API: tokens, their roles, and the first token of a cluster.
//!
//! Only hashes are compared, and only hashes are kept. A token that this node was given by file or environment is an
//! administrator's here whether or not the cluster knows it, so that nobody is locked out of a node they can configure.

pub mod sign_in;
mod throttle;

use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::{Counter, counter};
use store::{
    FirstToken, Store, Unavailable,
    model::{AccountId, KeyHash, Name, Role, Secret, SecretKind, Timestamp, Token},
};

use self::throttle::Throttle;
use crate::telemetry::ADMIN_REFUSED;

/// How many unknown tokens may ask the quorum at once whether they are new; more wait.
const UNKNOWN_AT_ONCE: usize = 4;
/// Tokens that are not known, from an address (IPv6: a /64) in a minute; with more, only one that is known is looked at.
const WRONG_A_MINUTE: u32 = 60;

/// The first admin token of a node.
#[derive(Debug)]
pub struct Bootstrap {
    hash: KeyHash,
    /// The text of a token that this node has made.
    minted: Option<Secret>,
}

impl Bootstrap {
    /// The token of the file, else of the environment; else a new one, in case the cluster has none.
    ///
    /// # Errors
    /// What is wrong with the file or the variable, without repeating any of the secret.
    pub fn find(file: &Path, variable: Option<String>) -> Result<Self, String> {
        let make = "make one with `tollgate token generate`";
        if !file.as_os_str().is_empty() {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("read admin_token_file {}: {error}: {make}", file.display()))?;
            return Self::given(&text)
                .map_err(|reason| format!("admin_token_file {}: {reason}: {make}", file.display()));
        }
        if let Some(text) = variable.filter(|text| !text.is_empty()) {
            return Self::given(&text).map_err(|reason| format!("TOLLGATE_ADMIN_TOKEN: {reason}: {make}"));
        }
        let secret = Secret::generate(SecretKind::Admin);
        Ok(Self { hash: secret.hash(), minted: Some(secret) })
    }

    fn given(text: &str) -> Result<Self, String> {
        let secret = Secret::parse(text.trim()).map_err(|error| format!("not an admin token: it {error}"))?;
        if secret.kind() != SecretKind::Admin {
            return Err(format!("not an admin token: it begins with {}, expected tga_", secret.kind().prefix()));
        }
        Ok(Self { hash: secret.hash(), minted: None })
    }

    /// What the store writes into a cluster that has no token; `show` is handed one that was minted, just before.
    pub fn first_token(self, show: fn(&Secret)) -> FirstToken {
        let tell = self.minted.map(|secret| Arc::new(move || show(&secret)) as Arc<dyn Fn() + Send + Sync>);
        FirstToken { hash: self.hash, tell }
    }
}

/// A known caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// The token's id, or `bootstrap`.
    pub actor: String,
    /// What it may do.
    pub role: Role,
    /// Accounts that it is limited to: ids, or beginnings of ids that end in `*`. Empty for all.
    pub accounts: Vec<Name>,
    /// The account whose own token it uses.
    pub account: Option<AccountId>,
    /// When its token ends.
    pub expires_at: Option<Timestamp>,
}

impl Caller {
    /// Whether it may see an account.
    pub fn covers(&self, account: &str) -> bool {
        // The token's own rule; a caller has what decides of it.
        let limits = Token { accounts: self.accounts.clone(), account: self.account.clone(), ..Token::default() };
        !self.is_limited() || limits.covers(account)
    }

    /// Whether it may see some accounts only.
    pub fn is_limited(&self) -> bool {
        self.account.is_some() || !self.accounts.is_empty()
    }
}

/// Why a caller is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No `Authorization: Bearer`.
    #[error("no admin token: send it as Authorization: Bearer tga_...")]
    Missing,
    /// Not an admin token's text.
    #[error("this is not an admin token: mistyped, cut, or of another kind")]
    Malformed,
    /// No such token.
    #[error("the admin token is not known")]
    Unknown,
    /// Its time is over.
    #[error("the admin token has expired")]
    Expired,
    /// Not known, as too many were from this address.
    #[error("too many tokens that are not known came from this address: wait, and look which client has a wrong one")]
    TooMany(Duration),
    /// This node cannot say.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Tells callers apart.
#[derive(Debug)]
pub struct Operator {
    configured: Option<KeyHash>,
    unknown: tokio::sync::Semaphore,
    wrong: Throttle,
    refused: Refused,
    sign_in: Option<sign_in::SignIn>,
}

impl Operator {
    /// Knows the cluster's tokens, and the one that this node was configured with.
    pub fn new(bootstrap: &Bootstrap) -> Self {
        let configured = bootstrap.minted.is_none().then_some(bootstrap.hash);
        Self {
            configured,
            unknown: tokio::sync::Semaphore::new(UNKNOWN_AT_ONCE),
            wrong: Throttle::new(WRONG_A_MINUTE),
            refused: Refused::new(),
            sign_in: None,
        }
    }

    /// Also lets people in whom an identity provider vouches for.
    #[must_use]
    pub fn with_sign_in(self, sign_in: Option<sign_in::SignIn>) -> Self {
        Self { sign_in, ..self }
    }

    /// How people sign in, if they can.
    pub fn sign_in(&self) -> Option<&sign_in::SignIn> {
        self.sign_in.as_ref()
    }

    /// Who sends this `Authorization` header, from where. A token that is known is let in however many wrong ones came from
    /// the same address: behind a proxy that is everybody's.
    ///
    /// # Errors
    /// [`Unknown`]. A node that has lost its quorum says [`Unknown::Unavailable`], never that the token is unknown.
    pub async fn identify(
        &self,
        store: &Store,
        authorization: Option<&str>,
        from: Option<IpAddr>,
    ) -> Result<Caller, Unknown> {
        let found = self.look(store, authorization, from).await;
        if let Err(why) = &found {
            self.refused.count(why);
        }
        found
    }

    async fn look(&self, store: &Store, authorization: Option<&str>, from: Option<IpAddr>) -> Result<Caller, Unknown> {
        let tried = || from.map_or(Ok(()), |from| self.wrong.count(from, Instant::now()).map_err(Unknown::TooMany));
        let hash = match presented(authorization) {
            Err(Unknown::Malformed) => return tried().and(Err(Unknown::Malformed)),
            presented => presented?,
        };
        if self.configured.is_some_and(|configured| same(&configured, &hash)) {
            return Ok(Caller { actor: "bootstrap".into(), role: Role::Admin, ..Caller::default() });
        }
        if let Some(found) = find(store, &hash) {
            return found;
        }
        tried()?;
        // It may have been made on another node just now.
        let _turn = self.unknown.acquire().await.expect("the semaphore is never closed");
        store.barrier().await?;
        find(store, &hash).unwrap_or(Err(Unknown::Unknown))
    }
}

/// How many callers were refused, by reason.
#[derive(Debug)]
struct Refused {
    missing: Counter,
    malformed: Counter,
    unknown: Counter,
    expired: Counter,
    throttled: Counter,
}

impl Refused {
    fn new() -> Self {
        let of = |reason: &'static str| counter!(ADMIN_REFUSED, "reason" => reason);
        Self {
            missing: of("missing-token"),
            malformed: of("malformed-token"),
            unknown: of("unknown-token"),
            expired: of("expired-token"),
            throttled: of("too-many-wrong-tokens"),
        }
    }

    fn count(&self, why: &Unknown) {
        match why {
            Unknown::Missing => self.missing.increment(1),
            Unknown::Malformed => self.malformed.increment(1),
            Unknown::Unknown => self.unknown.increment(1),
            Unknown::Expired => self.expired.increment(1),
            Unknown::TooMany(_) => self.throttled.increment(1),
            // Not the caller's doing.
            Unknown::Unavailable(_) => {}
        }
    }
}

fn find(store: &Store, hash: &KeyHash) -> Option<Result<Caller, Unknown>> {
    let token = store.directory().token(hash)?;
    if token.expires_at.is_some_and(|at| at <= Timestamp::now()) {
        return Some(Err(Unknown::Expired));
    }
    Some(Ok(Caller {
        actor: token.id.to_string(),
        role: token.role,
        accounts: token.accounts.clone(),
        account: token.account.clone(),
        expires_at: token.expires_at,
    }))
}

/// The hash of the token in a header; scheme names are compared without case (RFC 9110 §11.1).
fn presented(authorization: Option<&str>) -> Result<KeyHash, Unknown> {
    let (scheme, token) = authorization.and_then(|text| text.trim().split_once(' ')).ok_or(Unknown::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Unknown::Missing);
    }
    match Secret::check(token.trim()) {
        Ok(SecretKind::Admin) => Ok(KeyHash::of(token.trim())),
        _ => Err(Unknown::Malformed),
    }
}

/// Compares without telling by its duration how many bytes agree.
fn same(a: &KeyHash, b: &KeyHash) -> bool {
    let differing = a.0.iter().zip(&b.0).fold(0, |differing, (a, b)| differing | (a ^ b));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_comes_from_the_file_then_the_environment_then_is_minted() {
        let secret = Secret::generate(SecretKind::Admin);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), format!("{}\n", secret.expose())).expect("written");
        let other = Secret::generate(SecretKind::Admin).expose().to_owned();
        let found = Bootstrap::find(file.path(), Some(other.clone())).expect("a token");
        assert_eq!(found.hash, secret.hash());
        let found = Bootstrap::find(Path::new(""), Some(other.clone())).expect("a token");
        assert_eq!(found.hash, KeyHash::of(&other));
        assert!(Bootstrap::find(Path::new(""), None).expect("minted").minted.is_some());
    }

    #[test]
    fn a_bad_token_is_refused_with_what_to_do_and_never_repeated() {
        let live = Secret::generate(SecretKind::Live).expose().to_owned();
        for bad in [live.as_str(), "tga_short", "hunter2-hunter2"] {
            let reason = Bootstrap::find(Path::new(""), Some(bad.to_owned())).expect_err("refused");
            assert!(reason.starts_with("TOLLGATE_ADMIN_TOKEN: not an admin token"), "{reason}");
            assert!(reason.contains("tollgate token generate") && !reason.contains(bad), "{reason}");
        }
        assert!(Bootstrap::find(Path::new("/nowhere/token"), None).expect_err("refused").contains("/nowhere/token"));
    }

    #[test]
    fn headers_without_a_bearer_token_and_with_another_secret_are_told_apart() {
        let token = Secret::generate(SecretKind::Admin);
        assert_eq!(presented(None), Err(Unknown::Missing));
        assert_eq!(presented(Some("Basic dGdhXw==")), Err(Unknown::Missing));
        assert_eq!(presented(Some("Bearer tg_live_x")), Err(Unknown::Malformed));
        assert_eq!(presented(Some(&format!("bearer {}", token.expose()))), Ok(token.hash()));
    }

    #[test]
    fn hashes_are_the_same_only_when_every_byte_is() {
        let hash = KeyHash::of("x");
        assert!(same(&hash, &hash));
        for byte in 0..32 {
            let mut other = hash;
            other.0[byte] ^= 1;
            assert!(!same(&hash, &other));
        }
    }
}
