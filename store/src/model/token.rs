//! Admin tokens.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{AccountId, KeyHash, Name, Revision, Timestamp};

/// What an admin token may do; each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads.
    #[default]
    #[n(0)]
    Viewer,
    /// Writes accounts and keys.
    #[n(1)]
    Operator,
    /// Writes everything.
    #[n(2)]
    Admin,
}

/// An admin token, without its secret.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct Token {
    /// `tok_` and a ULID.
    #[n(0)]
    pub id: Name,
    /// What people call it.
    #[n(1)]
    pub name: Name,
    /// SHA-256 of the secret.
    #[n(2)]
    pub hash: KeyHash,
    /// What it may do.
    #[n(3)]
    pub role: Role,
    /// When it was made.
    #[n(4)]
    pub created_at: Timestamp,
    /// When it stops working.
    #[n(5)]
    pub expires_at: Option<Timestamp>,
    /// Set by apply: the entry that last changed it.
    #[n(6)]
    #[cbor(default)]
    pub revision: Revision,
    /// Accounts that it is limited to: ids, or beginnings of ids that end in `*`. Empty for all.
    #[n(7)]
    #[cbor(default)]
    pub accounts: Vec<Name>,
    /// The account whose own token it is: it reads what is the account's, and nothing else.
    #[n(8)]
    pub account: Option<AccountId>,
    /// The token whose rotation made it.
    #[n(9)]
    pub rotated_from: Option<Name>,
    /// Who has signed in by it: the identity provider's own id of a person.
    #[n(10)]
    pub subject: Option<Name>,
}

impl Token {
    /// Whether it may see an account.
    pub fn covers(&self, account: &str) -> bool {
        match &self.account {
            Some(own) => own.as_str() == account,
            None => self.accounts.is_empty() || self.accounts.iter().any(|selector| selects(selector, account)),
        }
    }
}

/// Whether a selector (an id, or a beginning and `*`) means an account.
fn selects(selector: &str, account: &str) -> bool {
    match selector.strip_suffix('*') {
        Some(beginning) => account.starts_with(beginning),
        None => selector == account,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_ids_or_beginnings_and_an_accounts_own_token_is_its_alone() {
        let token = |accounts: &[&str], account: Option<&str>| Token {
            accounts: accounts.iter().map(|text| Name::from(*text)).collect(),
            account: account.map(AccountId::from),
            ..Token::default()
        };
        assert!(token(&[], None).covers("acme"));
        assert!(token(&["acme"], None).covers("acme") && !token(&["acme"], None).covers("acme-2"));
        assert!(token(&["x", "eu-*"], None).covers("eu-1") && !token(&["eu-*"], None).covers("us-1"));
        assert!(token(&[], Some("acme")).covers("acme") && !token(&[], Some("acme")).covers("other"));
    }
}
