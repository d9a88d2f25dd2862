//! What applying changed for those who keep a copy in memory.

use std::sync::Arc;

use crate::model::{Account, AccountId, Key, KeyHash, KeyId, Name, Placement, Route, Tier, Token, Upstream};

/// One changed object, as it is now.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each names its object")]
pub enum Change {
    Account(Arc<Account>),
    AccountGone(AccountId),
    Key(Arc<Key>),
    /// The key is gone, or has another hash now (its `Key` follows).
    KeyGone {
        id: KeyId,
        hash: KeyHash,
    },
    Tier(Arc<Tier>),
    TierGone(Name),
    Route(Arc<Route>),
    RouteGone(Name),
    Upstream(Arc<Upstream>),
    UpstreamGone(Name),
    Token(Arc<Token>),
    TokenGone(Name),
    Placement(Arc<Placement>),
    /// All was replaced: forget everything and [`super::State::load`] again.
    Reset,
}
