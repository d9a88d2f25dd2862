//! Metadata: writes go to the leader, reads are of the local replica.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{ReadError, Store, Unavailable, WriteError};
use crate::{
    model::{
        Account, AccountId, AuditNote, AuditRecord, ColdCommand, Command, CommandError, GroupId, Happened, Key,
        KeyHash, KeyId, MetaOp, MetaWrite, Name, Once, Profile, Reply, Revision, Route, Staged, Tier, Timestamp, Token,
        Upstream,
    },
    raft::{Everywhere, ProposeError, SAYS_MORE_IN_AUDIT, VIEW_LEASE, Wait},
};

/// How long a linearizable read waits for the quorum.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// Longest that the leader waits for leases: one, and what its predecessor may have trusted itself beyond its end.
const LONGEST_BARRIER: Duration = Duration::from_secs(4);

/// Profiles in one command: with metadata of 16 KiB each far below what peers take in one message.
const STAGED_AT_ONCE: usize = 500;

fn unavailable(error: &ProposeError) -> Unavailable {
    Unavailable::new(error.to_string())
}

/// A write that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The new revision of every object put.
    pub revision: Revision,
    /// How long it took in all.
    pub took: Duration,
    /// How much of that the leader waited for the other nodes.
    pub barrier: Duration,
    /// Names of the nodes that did not confirm it. They decide nothing until they have it.
    pub waited_out: Vec<Name>,
}

impl Store {
    /// One atomic change of metadata, forwarded to the leader. When it returns, every node acts on it, or can decide nothing by
    /// what was before (P3).
    ///
    /// # Errors
    /// A condition that does not hold, or no quorum.
    pub async fn write(&self, write: MetaWrite) -> Result<Written, WriteError> {
        let started = Instant::now();
        let meta = self.0.node.meta();
        // One that happens once may be asked for again when its fate is unknown.
        let repeatable = write.once.is_some();
        let request_id = write.request_id.clone();
        let deleted: Vec<AccountId> = write
            .ops
            .iter()
            .filter_map(|op| if let MetaOp::DeleteAccount { id, .. } = op { Some(id.clone()) } else { None })
            .collect();
        let write = self.as_all_audit(write).await;
        let command = Command::from(ColdCommand::Meta(write)).encode();
        let deadline = self.0.commit_deadline + LONGEST_BARRIER;
        let answer = meta.propose_and_tell(&command, Wait::Everywhere, repeatable, deadline).await;
        let answer = answer.map_err(|error| unavailable(&error))?;
        let (revision, everywhere) = match answer.reply {
            Reply::Written(revision) => (revision, answer.everywhere.unwrap_or_default()),
            // Its own first landing, whose answer was lost.
            Reply::Refused(CommandError::Happened(happened)) if repeatable && happened.request_id == request_id => {
                (happened.revision, self.wait_everywhere(deadline).await?)
            }
            Reply::Refused(error) => return Err(error.into()),
            reply => return Err(Unavailable::new(format!("unexpected reply to a metadata write: {reply:?}")).into()),
        };
        // The leader has waited for this node too, unless it had lost sight of it.
        meta.wait_applied(revision, VIEW_LEASE).await.map_err(Unavailable::new)?;
        if !deleted.is_empty() {
            self.forget(deleted).await;
        }
        let barrier = Duration::from_micros(everywhere.took_us);
        Ok(Written { revision, took: started.elapsed(), barrier, waited_out: everywhere.waited_out })
    }

    /// A write whose audit lines every member makes alike: what a member does not know is left out, for a replica that
    /// leaves it out by itself has another chain of lines.
    async fn as_all_audit(&self, mut write: MetaWrite) -> MetaWrite {
        let says_more = write.changed.is_some() || write.notes.iter().any(|note| note.count.is_some());
        if says_more && !self.0.node.all_speak(SAYS_MORE_IN_AUDIT).await {
            write.changed = None;
            for note in &mut write.notes {
                if let Some(count) = note.count.take() {
                    tracing::info!(
                        count,
                        actor = note.actor,
                        result = note.result,
                        "a line of the audit stands for many"
                    );
                }
            }
        }
        write
    }

    /// Waits until everything that was committed before this call is in force on every node that may decide.
    ///
    /// # Errors
    /// No quorum.
    pub async fn settle(&self) -> Result<(), Unavailable> {
        self.wait_everywhere(self.0.commit_deadline + LONGEST_BARRIER).await.map(drop)
    }

    /// An entry that changes nothing, waited for everywhere: what came before it is in force then too.
    async fn wait_everywhere(&self, deadline: Duration) -> Result<Everywhere, Unavailable> {
        let command = Command::from(ColdCommand::Meta(MetaWrite::default())).encode();
        let answer = self.0.node.meta().propose_and_tell(&command, Wait::Everywhere, true, deadline).await;
        answer.map(|answer| answer.everywhere.unwrap_or_default()).map_err(|error| unavailable(&error))
    }

    /// Writes audit lines of requests that changed nothing.
    ///
    /// # Errors
    /// No quorum.
    pub async fn note(&self, notes: Vec<AuditNote>) -> Result<(), Unavailable> {
        let write = self.as_all_audit(MetaWrite { at: Timestamp::now(), notes, ..MetaWrite::default() }).await;
        let command = Command::from(ColdCommand::Meta(write)).encode();
        let reply = self.0.node.meta().propose(&command, Wait::Applied, false, self.0.commit_deadline).await;
        reply.map(drop).map_err(|error| unavailable(&error))
    }

    /// What a write that happens once was, if it has happened.
    ///
    /// # Errors
    /// The disk.
    pub fn happened(&self, once: &Once) -> Result<Option<Happened>, ReadError> {
        Ok(self.0.node.meta().state().happened(&once.key, Timestamp::now())?)
    }

    /// Stages profiles of accounts in their ledger group; publish each by writing its account with its stage's id. Each is
    /// given with the stage that is published now.
    ///
    /// # Errors
    /// No quorum.
    pub async fn stage_profiles(&self, profiles: Vec<(AccountId, String, Profile)>) -> Result<Vec<String>, WriteError> {
        let mut stages = Vec::with_capacity(profiles.len());
        let mut by_group: BTreeMap<GroupId, Vec<Staged>> = BTreeMap::new();
        for (account, published, profile) in profiles {
            let stage = ulid::Ulid::generate().to_string();
            stages.push(stage.clone());
            let group = self.directory().group_of(&account);
            by_group.entry(group).or_default().push(Staged { account, stage, published, profile });
        }
        let mut parts = Vec::new();
        for (group, all) in &by_group {
            parts.extend(all.chunks(STAGED_AT_ONCE).map(|some| (*group, some)));
        }
        for (group, some) in parts {
            let command = Command::from(ColdCommand::StageProfiles(some.to_vec())).encode();
            let ledger = self.0.node.replica(group);
            let ledger =
                ledger.ok_or_else(|| Unavailable::new(format!("the ledger group {group} is not open here yet")))?;
            let reply = ledger.propose(&command, Wait::Applied, true, self.0.commit_deadline).await;
            if let Reply::Refused(error) = reply.map_err(|error| unavailable(&error))? {
                return Err(error.into());
            }
        }
        Ok(stages)
    }

    /// Waits until this node's replicas of the metadata and of every ledger group have everything that was answered before this call
    /// (ReadIndex): after it, reads are linearizable.
    ///
    /// # Errors
    /// No quorum.
    pub async fn barrier(&self) -> Result<(), Unavailable> {
        let groups = self.0.node.groups();
        let mut all = Vec::with_capacity(groups.len());
        for group in groups.iter() {
            all.push(group.barrier(READ_DEADLINE));
        }
        let all: Result<(), String> = futures_util::future::join_all(all).await.into_iter().collect();
        all.map_err(Unavailable::new)
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

    /// Published profiles of accounts, in the order asked; that of an account which never had one is empty.
    ///
    /// # Errors
    /// [`ReadError::Behind`] when one is not here; the disk.
    pub fn profiles(&self, accounts: &[(AccountId, String)]) -> Result<Vec<Profile>, ReadError> {
        let profile = |(account, stage): &(AccountId, String)| {
            let mut found = None;
            for (_, state) in self.states_of(account) {
                found = state.profile(account, stage)?;
                if found.is_some() {
                    break;
                }
            }
            published(stage, found)
        };
        accounts.iter().map(profile).collect()
    }

    /// Accounts whose name begins so, without regard to case, by id; none when they are more than `most`, and a look through
    /// all accounts finds a page of them sooner.
    ///
    /// # Errors
    /// [`ReadError::Behind`] when one may be missing; the disk.
    pub fn accounts_named(&self, prefix: &str, most: usize) -> Result<Option<Vec<AccountId>>, ReadError> {
        let mut found = Vec::new();
        for (_, state) in self.ledger_states() {
            match state.profiles_named(prefix, most)? {
                Some(some) if found.len() + some.len() <= most => found.extend(some),
                _ => return Ok(None),
            }
        }
        let mut published = Vec::with_capacity(found.len());
        for (id, stage) in found {
            let Some(account) = self.account(&id)? else { continue };
            if account.profile == stage {
                published.push(id);
            } else {
                // One that is not here yet may be named so too.
                self.profiles(&[(id, account.profile)])?;
            }
        }
        published.sort_unstable();
        Ok(Some(published))
    }

    /// A key.
    ///
    /// # Errors
    /// The disk.
    pub fn key(&self, id: &KeyId) -> Result<Option<Key>, ReadError> {
        Ok(self.0.node.meta().state().key(id)?)
    }

    /// A key by the hash of its text.
    ///
    /// # Errors
    /// The disk.
    pub fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<Key>, ReadError> {
        Ok(self.0.node.meta().state().key_by_hash(hash)?)
    }

    /// The newest entry of the metadata that this replica has applied: no object has a greater revision.
    pub fn revision(&self) -> Revision {
        self.0.node.meta().state().applied().last.map_or(0, |last| last.index)
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
        let mut last = None;
        for (_, state) in self.states_of(account) {
            last = last.max(state.key_last_used(account, key)?);
        }
        Ok(last)
    }

    /// A tier.
    ///
    /// # Errors
    /// The disk.
    pub fn tier(&self, name: &str) -> Result<Option<Tier>, ReadError> {
        Ok(self.0.node.meta().state().tier(name)?)
    }

    /// All tiers, by name.
    ///
    /// # Errors
    /// The disk.
    pub fn tiers(&self) -> Result<Vec<Tier>, ReadError> {
        Ok(self.0.node.meta().state().tiers()?)
    }

    /// A route.
    ///
    /// # Errors
    /// The disk.
    pub fn route(&self, name: &str) -> Result<Option<Route>, ReadError> {
        Ok(self.0.node.meta().state().route(name)?)
    }

    /// All routes, by name.
    ///
    /// # Errors
    /// The disk.
    pub fn routes(&self) -> Result<Vec<Route>, ReadError> {
        Ok(self.0.node.meta().state().routes()?)
    }

    /// An upstream.
    ///
    /// # Errors
    /// The disk.
    pub fn upstream(&self, name: &str) -> Result<Option<Upstream>, ReadError> {
        Ok(self.0.node.meta().state().upstream(name)?)
    }

    /// All upstreams, by name.
    ///
    /// # Errors
    /// The disk.
    pub fn upstreams(&self) -> Result<Vec<Upstream>, ReadError> {
        Ok(self.0.node.meta().state().upstreams()?)
    }

    /// A token.
    ///
    /// # Errors
    /// The disk.
    pub fn token(&self, id: &str) -> Result<Option<Token>, ReadError> {
        Ok(self.0.node.meta().state().token(id)?)
    }

    /// All admin tokens, by id.
    ///
    /// # Errors
    /// The disk.
    pub fn tokens(&self) -> Result<Vec<Token>, ReadError> {
        Ok(self.0.node.meta().state().tokens()?)
    }

    /// The audit log, newest first, before a line.
    ///
    /// # Errors
    /// The disk.
    pub fn audit(&self, before: Option<(Revision, u32)>, limit: usize) -> Result<Vec<AuditRecord>, ReadError> {
        Ok(self.0.node.meta().state().audit(before, limit)?)
    }

    /// The audit log's lines as they are stored, oldest first, after a line: what [`crate::model::AuditChain`] follows.
    ///
    /// # Errors
    /// The disk.
    pub fn audit_lines(&self, after: Option<(Revision, u32)>, limit: usize) -> Result<Vec<Bytes>, ReadError> {
        Ok(self.0.node.meta().state().audit_lines(after, limit)?)
    }
}

/// The profile that an account names. One that is named and not found is never taken for an empty one: what is made of it
/// would be written over the true one.
fn published(stage: &str, found: Option<Profile>) -> Result<Profile, ReadError> {
    match found {
        Some(profile) => Ok(profile),
        None if stage.is_empty() => Ok(Profile::default()),
        None => Err(ReadError::Behind),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        model::{Expect, NodeInfo},
        raft::Spoken,
        state,
        store::{Readiness, Settings},
        wal,
    };

    pub(in crate::store) fn settings(dir: &std::path::Path) -> Settings {
        Settings {
            data_dir: dir.to_path_buf(),
            node: NodeInfo { name: "a".into(), peer_addr: "127.0.0.1:0".into(), ..NodeInfo::default() },
            peer_listen: ([127, 0, 0, 1], 0).into(),
            peer_tls: None,
            join: Vec::new(),
            voters: 1,
            ledger_groups: 1,
            commit_deadline: Duration::from_secs(30),
            max_waiting_rows: 1_024,
            log_retention_days: 30,
            first_token: None,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn audit_lines_say_no_more_than_every_member_knows() {
        let told = async |newest| {
            let dir = tempfile::tempdir().expect("a directory");
            let spoken = Spoken { oldest: 1, newest };
            let (disk, files) = (Arc::new(wal::RealDisk), Arc::new(state::Disk));
            let store = Store::open_speaking(settings(dir.path()), disk, files, spoken).await.expect("opens");
            while store.readiness() != Readiness::Ready {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let tier = Tier { name: "free".into(), ..Tier::default() };
            let ops = vec![MetaOp::PutTier { tier, expect: Expect::Any }];
            let changed = Some(vec![(0, vec!["/name".to_owned()])]);
            let at = Timestamp::now();
            store.write(MetaWrite { at, ops, changed, ..MetaWrite::default() }).await.expect("written");
            store.note(vec![AuditNote { at, count: Some(7), ..AuditNote::default() }]).await.expect("noted");
            let lines = store.audit(None, 2).expect("lines");
            store.shutdown().await;
            lines.into_iter().map(|line| (line.count, line.changed)).collect::<Vec<_>>()
        };
        assert_eq!(told(1).await, [(None, None), (None, None)]);
        assert_eq!(told(2).await, [(Some(7), None), (None, Some(vec!["/name".to_owned()]))]);
    }

    #[test]
    fn a_profile_that_is_named_and_not_there_is_not_an_empty_one() {
        let profile = Profile { name: "Acme".to_owned(), ..Profile::default() };
        assert_eq!(published("01J8", Some(profile.clone())).expect("it is there"), profile);
        assert_eq!(published("", None).expect("none was ever given"), Profile::default());
        assert!(matches!(published("01J8", None), Err(ReadError::Behind)));
    }
}
