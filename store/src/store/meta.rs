//! Metadata: writes go to the leader, reads are of the local replica.

use std::time::Duration;

use super::{ReadError, Store, Unavailable, WriteError};
use crate::{
    model::{
        Account, AccountId, AuditRecord, ColdCommand, Command, Key, KeyId, MetaWrite, Profile, Reply, Revision, Route,
        Tier, Timestamp, Token, Upstream,
    },
    raft::{ProposeError, VIEW_LEASE, Wait},
};

/// How long a linearizable read waits for the quorum.
const READ_DEADLINE: Duration = Duration::from_secs(2);

fn unavailable(error: &ProposeError) -> Unavailable {
    Unavailable::new(error.to_string())
}

impl Store {
    /// One atomic change of metadata, forwarded to the leader. When it returns, this node and every node that is in contact
    /// acts on it.
    ///
    /// # Errors
    /// A condition that does not hold, or no quorum.
    pub async fn write(&self, write: MetaWrite) -> Result<Revision, WriteError> {
        let meta = self.0.node.meta();
        let command = Command::from(ColdCommand::Meta(write)).encode();
        let deadline = self.0.commit_deadline + VIEW_LEASE;
        let reply = meta.propose(&command, Wait::Everywhere, false, deadline).await;
        match reply.map_err(|error| unavailable(&error))? {
            Reply::Written(revision) => {
                // The leader has waited for this node too, unless it had lost sight of it.
                meta.wait_applied(revision, VIEW_LEASE).await.map_err(Unavailable::new)?;
                Ok(revision)
            }
            Reply::Refused(error) => Err(error.into()),
            reply => Err(Unavailable::new(format!("unexpected reply to a metadata write: {reply:?}")).into()),
        }
    }

    /// Stages an account's profile in its ledger group; publish it by writing the account with this stage id.
    ///
    /// # Errors
    /// No quorum.
    pub async fn stage_profile(
        &self,
        account: &AccountId,
        published: &str,
        profile: Profile,
    ) -> Result<String, WriteError> {
        let stage = ulid::Ulid::generate().to_string();
        let command = ColdCommand::StageProfile {
            account: account.clone(),
            stage: stage.clone(),
            published: published.to_owned(),
            profile,
        };
        let command = Command::from(command).encode();
        let ledger = self.0.node.ledger();
        let reply = ledger.propose(&command, Wait::Applied, true, self.0.commit_deadline).await;
        match reply.map_err(|error| unavailable(&error))? {
            Reply::Refused(error) => Err(error.into()),
            _ => Ok(stage),
        }
    }

    /// Waits until this node's replica of the metadata and the ledger has everything that was answered before this call
    /// (ReadIndex): after it, reads are linearizable.
    ///
    /// # Errors
    /// No quorum.
    pub async fn barrier(&self) -> Result<(), Unavailable> {
        let (meta, ledger) =
            tokio::join!(self.0.node.meta().barrier(READ_DEADLINE), self.0.node.ledger().barrier(READ_DEADLINE));
        meta.and(ledger).map_err(Unavailable::new)
    }

    /// Age of this replica's metadata, for `?consistency=stale`.
    pub fn staleness(&self) -> Duration {
        self.0.node.meta().staleness()
    }

    /// An account.
    ///
    /// # Errors
    /// The disk.
    pub fn account(&self, id: &AccountId) -> Result<Option<Account>, ReadError> {
        Ok(self.0.node.meta().state().account(id)?)
    }

    /// Accounts in order of id, after `after`.
    ///
    /// # Errors
    /// The disk.
    pub fn accounts(&self, after: Option<&str>, limit: usize) -> Result<Vec<Account>, ReadError> {
        Ok(self.0.node.meta().state().accounts(after, limit)?)
    }

    /// Published profiles of accounts, in the order asked; an unknown one is empty.
    ///
    /// # Errors
    /// The disk.
    pub fn profiles(&self, accounts: &[(AccountId, String)]) -> Result<Vec<Profile>, ReadError> {
        let ledger = self.0.node.ledger().state();
        accounts.iter().map(|(account, stage)| Ok(ledger.profile(account, stage)?.unwrap_or_default())).collect()
    }

    /// A key.
    ///
    /// # Errors
    /// The disk.
    pub fn key(&self, id: &KeyId) -> Result<Option<Key>, ReadError> {
        Ok(self.0.node.meta().state().key(id)?)
    }

    /// An account's keys in order of id, after `after`.
    ///
    /// # Errors
    /// The disk.
    pub fn keys(&self, account: &AccountId, after: Option<&str>, limit: usize) -> Result<Vec<Key>, ReadError> {
        Ok(self.0.node.meta().state().keys(account, after, limit)?)
    }

    /// When a key was last used (to the minute), from the rollups.
    ///
    /// # Errors
    /// The disk.
    pub fn key_last_used(&self, account: &AccountId, key: &KeyId) -> Result<Option<Timestamp>, ReadError> {
        Ok(self.0.node.ledger().state().key_last_used(account, key)?)
    }

    /// All tiers, by name.
    ///
    /// # Errors
    /// The disk.
    pub fn tiers(&self) -> Result<Vec<Tier>, ReadError> {
        Ok(self.0.node.meta().state().tiers()?)
    }

    /// All routes, by name.
    ///
    /// # Errors
    /// The disk.
    pub fn routes(&self) -> Result<Vec<Route>, ReadError> {
        Ok(self.0.node.meta().state().routes()?)
    }

    /// All upstreams, by name.
    ///
    /// # Errors
    /// The disk.
    pub fn upstreams(&self) -> Result<Vec<Upstream>, ReadError> {
        Ok(self.0.node.meta().state().upstreams()?)
    }

    /// All admin tokens, by id.
    ///
    /// # Errors
    /// The disk.
    pub fn tokens(&self) -> Result<Vec<Token>, ReadError> {
        Ok(self.0.node.meta().state().tokens()?)
    }

    /// The audit log, newest first, before revision `before`.
    ///
    /// # Errors
    /// The disk.
    pub fn audit(&self, before: Option<Revision>, limit: usize) -> Result<Vec<AuditRecord>, ReadError> {
        Ok(self.0.node.meta().state().audit(before, limit)?)
    }
}
