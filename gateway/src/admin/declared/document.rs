//! Reads a document.

use std::collections::HashSet;

use serde_json::Value;
use store::model::{Env, KeyHash, KeyState, Name, Overrides, Revision, Route, Tier, Timestamp, Upstream};

use crate::admin::{
    accounts,
    draft::Draft,
    forms,
    input::{self, Field, Object},
    problem::Result,
    routes, tiers, upstreams,
};

/// Objects of a kind in one document.
const MAX_NAMED: usize = 10_000;
const MAX_ACCOUNTS: usize = 100_000;
const MAX_KEYS: usize = 10_000;

/// A document. A list that it does not have is not its business.
#[derive(Debug)]
pub(super) struct Document {
    /// The state that it was made of.
    pub(super) revision: Option<Revision>,
    pub(super) upstreams: Option<Vec<Upstream>>,
    pub(super) tiers: Option<Vec<Tier>>,
    pub(super) routes: Option<Vec<Route>>,
    pub(super) accounts: Option<Vec<Declared>>,
}

/// An account and its keys.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) id: String,
    pub(super) form: accounts::Form,
    pub(super) keys: Option<Vec<DeclaredKey>>,
}

/// A key by the hash of its text.
#[derive(Debug)]
pub(super) struct DeclaredKey {
    pub(super) hash: KeyHash,
    pub(super) name: Name,
    pub(super) env: Env,
    pub(super) last4: String,
    pub(super) scopes: Vec<Name>,
    pub(super) allowed_ips: Vec<ipnet::IpNet>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) state: KeyState,
    pub(super) overrides: Overrides,
}

/// Knows the tiers of the document and of the store.
struct Known<'k, 'd> {
    declared: HashSet<Name>,
    draft: &'k mut Draft<'d>,
}

impl accounts::Tiers for Known<'_, '_> {
    fn has_tier(&mut self, name: &str) -> bool {
        self.declared.contains(name) || self.draft.has_tier(name)
    }
}

pub(super) fn read(value: Value, draft: &mut Draft<'_>) -> Result<Document> {
    input::read(value, |object| {
        let version = object.optional("version").map_or(Some(1), |field| field.whole::<u64>(1..=1));
        let revision =
            object.optional("revision").map_or(Some(None), |field| field.whole(0..=forms::MAX_WHOLE).map(Some));
        let upstreams = named(object, "upstreams", upstreams::read);
        let tiers = named(object, "tiers", tiers::read);
        let routes = named(object, "routes", routes::read);
        let declared = tiers.iter().flatten().flatten().map(|tier: &Tier| tier.name.clone()).collect();
        let mut known = Known { declared, draft };
        let accounts = object
            .optional("accounts")
            .map_or(Some(None), |field| field.list(MAX_ACCOUNTS, |item| account(item, &mut known)).map(Some));
        if let Some(Some(accounts)) = &accounts {
            twice(object, "accounts", accounts.iter().map(|account| account.id.as_str()));
        }
        version?;
        Some(Document {
            revision: revision?,
            upstreams: upstreams?,
            tiers: tiers?,
            routes: routes?,
            accounts: accounts?,
        })
    })
}

/// A list of objects, each with its name.
fn named<T: HasName>(
    object: &mut Object<'_>,
    key: &'static str,
    read: impl Fn(&mut Object<'_>, &str) -> Option<T>,
) -> Option<Option<Vec<T>>> {
    let Some(field) = object.optional(key) else { return Some(None) };
    let items = field.list(MAX_NAMED, |item| {
        let mut object = item.object()?;
        let Some(name) = object.peek("name") else {
            object.tell("name", "is required");
            // What else is wrong is told too.
            read(&mut object, "x");
            return None;
        };
        read(&mut object, &name)
    })?;
    twice(object, key, items.iter().map(HasName::name));
    Some(Some(items))
}

trait HasName {
    fn name(&self) -> &str;
}

macro_rules! has_name {
    ($($type:ty),*) => { $(impl HasName for $type {
        fn name(&self) -> &str {
            &self.name
        }
    })* };
}
has_name!(Tier, Route, Upstream);

/// Tells names that come more than once.
fn twice<'n>(object: &Object<'_>, key: &str, names: impl Iterator<Item = &'n str>) {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            object.tell(key, format!("has {name:?} more than once"));
        }
    }
}

fn account(field: Field<'_>, known: &mut Known<'_, '_>) -> Option<Declared> {
    let mut object = field.object()?;
    let keys = object.optional("keys").map_or(Some(None), |field| field.list(MAX_KEYS, key).map(Some));
    if object.peek("id").is_none() {
        object.tell("id", "is required");
    }
    let form = accounts::Form::read(&mut object, known);
    let form = form?;
    Some(Declared { id: form.id.clone()?, form, keys: keys? })
}

fn key(field: Field<'_>) -> Option<DeclaredKey> {
    let mut object = field.object()?;
    let hash = object
        .required("hash")
        .and_then(|field| field.parsed("sha256: and 64 hexadecimal digits, the SHA-256 of the key's text", hash_of));
    let name = object.optional("name").map_or(Some(String::new()), forms::label);
    let env = object
        .optional("env")
        .map_or(Some(Env::Live), |field| field.choice(&[("live", Env::Live), ("test", Env::Test)]));
    let last4 = object.optional("last4").map_or(Some(String::new()), |field| {
        field.text("the last four characters of the key", |text| {
            text.len() == 4 && text.chars().all(|c| c.is_ascii_alphanumeric())
        })
    });
    let scopes = object.optional("scopes").map_or(Some(Vec::new()), forms::scopes);
    let allowed_ips = object.optional("allowed_ips").map_or(Some(Vec::new()), forms::networks);
    let expires_at = object.optional("expires_at").map_or(Some(None), |field| forms::time(field).map(Some));
    let state = object.optional("state").map_or(Some(KeyState::Active), |field| {
        field.choice(&[("active", KeyState::Active), ("disabled", KeyState::Disabled)])
    });
    let overrides = object.optional("overrides").map_or(Some(Overrides::default()), forms::overrides);
    Some(DeclaredKey {
        hash: hash?,
        name: name?.into(),
        env: env?,
        last4: last4?,
        scopes: scopes?,
        allowed_ips: allowed_ips?,
        expires_at: expires_at?,
        state: state?,
        overrides: overrides?,
    })
}

/// `sha256:` and 64 digits.
fn hash_of(text: &str) -> std::result::Result<KeyHash, ()> {
    let digits = text.strip_prefix("sha256:").ok_or(())?;
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(());
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| ())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| ())?;
    }
    Ok(KeyHash(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_read() {
        let hash = KeyHash::of("x");
        let text: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash_of(&format!("sha256:{text}")), Ok(hash));
        for bad in
            ["", &text, "sha256:12", &format!("sha256:{}", "+f".repeat(32)), &format!("sha256:{}", "é".repeat(32))]
        {
            assert_eq!(hash_of(bad), Err(()), "{bad}");
        }
    }
}
