//! Policies of a key's own, laid over its account's when the key is found.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{AccountView, Attachment};
use crate::model::{Key, KeyId, Overrides, Revision};

/// A key's overrides, and what came of them last: made anew when the account's view has changed since.
#[derive(Debug)]
pub(super) struct OwnPolicies {
    overrides: Overrides,
    revision: Revision,
    made: ArcSwapOption<Made>,
}

#[derive(Debug)]
struct Made {
    of: Arc<AccountView>,
    view: Arc<AccountView>,
}

impl OwnPolicies {
    pub(super) fn new(key: &Key) -> Self {
        Self { overrides: key.overrides.clone(), revision: key.revision, made: ArcSwapOption::empty() }
    }

    /// The account as this key sees it.
    pub(super) fn over(&self, account: Arc<AccountView>, key: impl FnOnce() -> KeyId) -> Arc<AccountView> {
        if let Some(made) = self.made.load().as_ref().filter(|made| Arc::ptr_eq(&made.of, &account)) {
            return made.view.clone();
        }
        let key = key();
        let view = Arc::new(AccountView {
            id: account.id.clone(),
            state: account.state,
            tier: account.tier.clone(),
            region: account.region.clone(),
            policies: Arc::new(account.policies.of_key(&key, &self.overrides, self.revision)),
            slot: account.slot,
            number: account.number,
            overrides: None,
            revision: account.revision,
            of_key: Some(key),
            attachment: Attachment::default(),
        });
        self.made.store(Some(Arc::new(Made { of: account, view: view.clone() })));
        view
    }
}
