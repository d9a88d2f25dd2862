//! Names and metadata of accounts that are gone: forgotten when the account is deleted, and looked for now and then, because
//! a node can die between the two and because what was staged may never be published.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::Store;
use crate::{
    model::{AccountId, ColdCommand, Command, GroupId, Timestamp, Unpublished},
    raft::Wait,
    state::State,
};

/// Between two looks for what nobody names.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// What was staged later may be about to be published: far longer than any change takes.
const YOUNG_SECONDS: i64 = 300;
/// Profiles looked at, and forgotten, at once.
const AT_ONCE: usize = 1_000;
const DEADLINE: Duration = Duration::from_secs(5);

impl Store {
    /// Forgets everything that is kept under these accounts' names, which were deleted before this call. What cannot be
    /// forgotten now is found later.
    pub(super) async fn forget(&self, accounts: Vec<AccountId>) {
        for account in accounts {
            // One made anew under the same id has a profile that is not to be touched.
            let Ok(None) = self.account(&account) else { continue };
            for (group, state) in self.states_of(&account) {
                let account = account.clone();
                let found = tokio::task::spawn_blocking(move || state.stages_of(&account)).await;
                if let Ok(Ok(gone)) = found {
                    self.drop_profiles(group, gone).await;
                }
            }
        }
    }

    /// Looks through all profiles for those of accounts that are gone. On the first ledger group's leader; says how many were forgotten.
    pub(super) async fn sweep_profiles(&self) -> usize {
        // What this node's replica of the metadata does not know yet must not look gone.
        if self.barrier().await.is_err() {
            return 0;
        }
        let mut forgotten = 0;
        for (group, state) in self.ledger_states() {
            forgotten += self.sweep_group(group, &state).await;
        }
        forgotten
    }

    async fn sweep_group(&self, group: GroupId, state: &Arc<State>) -> usize {
        let (mut after, mut forgotten) = (None::<(AccountId, String)>, 0);
        let before = Timestamp::now().plus_seconds(-YOUNG_SECONDS);
        loop {
            let (ledger, meta) = (Arc::clone(state), self.0.node.meta().state().clone());
            let (from, store) = (after.clone(), self.clone());
            let looked = tokio::task::spawn_blocking(move || {
                let some = ledger.staged_before(before, from.as_ref(), AT_ONCE)?;
                let last = some.last().cloned();
                let mut alive = HashSet::new();
                let mut gone = Vec::new();
                for (account, stage) in some {
                    if alive.contains(&account) {
                        continue;
                    }
                    match meta.account(&account)? {
                        None => gone.push(Unpublished { account, stage }),
                        // What its slot left behind is dropped by no later change of its own.
                        Some(found) if found.profile != stage && store.directory().group_of(&account) != group => {
                            gone.push(Unpublished { account, stage });
                        }
                        Some(_) if store.directory().group_of(&account) == group => {
                            alive.insert(account);
                        }
                        Some(_) => {}
                    }
                }
                Ok::<_, crate::state::ReadError>((last, gone))
            });
            let Ok(Ok((last, gone))) = looked.await else { return forgotten };
            forgotten += gone.len();
            self.drop_profiles(group, gone).await;
            match last {
                Some(last) => after = Some(last),
                None => return forgotten,
            }
        }
    }

    async fn drop_profiles(&self, group: GroupId, gone: Vec<Unpublished>) {
        let Some(ledger) = self.0.node.replica(group) else { return };
        for some in gone.chunks(AT_ONCE) {
            let command = Command::from(ColdCommand::DropProfiles(some.to_vec())).encode();
            if let Err(error) = ledger.propose(&command, Wait::Applied, true, DEADLINE).await {
                tracing::debug!(%error, profiles = some.len(), "forget profiles of accounts that are gone");
            }
        }
    }
}
