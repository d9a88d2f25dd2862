//! What the objects of group 0 have in common.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::{
    model::{Account, Key, KeyState, Revision, Route, Tier, Token, Upstream},
    state::{Change, tables::Table},
};

/// An object that is stored whole under its id.
pub(in crate::state) trait Object: Clone + Encode<()> + for<'b> Decode<'b, ()> {
    const TABLE: Table;
    /// Its name in conflicts and in the audit.
    const KIND: &'static str;

    fn id(&self) -> &str;
    fn revision(&self) -> Revision;
    fn set_revision(&mut self, revision: Revision);
    /// Takes over what a change must not lose.
    fn keep(&mut self, _old: &Self) {}
    fn change(object: Arc<Self>) -> Change;
    fn gone(&self) -> Change;
}

macro_rules! object {
    ($type:ident, $table:ident, $kind:literal, $id:ident, $gone:expr, $keep:expr) => {
        impl Object for $type {
            const TABLE: Table = Table::$table;
            const KIND: &'static str = $kind;

            fn id(&self) -> &str {
                self.$id.as_str()
            }
            fn revision(&self) -> Revision {
                self.revision
            }
            fn set_revision(&mut self, revision: Revision) {
                self.revision = revision;
            }
            fn keep(&mut self, old: &Self) {
                let keep: fn(&mut Self, &Self) = $keep;
                keep(self, old);
            }
            fn change(object: Arc<Self>) -> Change {
                Change::$type(object)
            }
            fn gone(&self) -> Change {
                let gone: fn(&Self) -> Change = $gone;
                gone(self)
            }
        }
    };
}

object!(Account, Accounts, "account", id, |old| Change::AccountGone(old.id.clone()), |new, old| {
    new.created_at = old.created_at;
});
object!(Key, Keys, "key", id, |old| Change::KeyGone { id: old.id.clone(), hash: old.hash }, |new, old| {
    new.created_at = old.created_at;
    if old.state == KeyState::Revoked {
        new.revoked_at = old.revoked_at;
    }
});
object!(Tier, Tiers, "tier", name, |old| Change::TierGone(old.name.clone()), |_, _| {});
object!(Route, Routes, "route", name, |old| Change::RouteGone(old.name.clone()), |_, _| {});
object!(Upstream, Upstreams, "upstream", name, |old| Change::UpstreamGone(old.name.clone()), |_, _| {});
object!(Token, Tokens, "token", id, |old| Change::TokenGone(old.id.clone()), |new, old| {
    new.created_at = old.created_at;
});
