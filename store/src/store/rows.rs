//! A row's way in.

use std::{sync::atomic::Ordering, time::Duration};

use super::{CommitError, Readiness, Store, Unavailable};
use crate::{
    lease::Grant,
    model::{AccountId, GroupId, Row},
    platform::lease_clock_ns,
    raft::Place,
};

/// Until when what is looked up in the directory may be acted upon (P3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// On the lease clock (`CLOCK_BOOTTIME`).
    pub until_ns: u64,
}

/// A place in the commit queue, taken before the upstream is called (P5). Dropping it gives the place back.
#[derive(Debug)]
pub struct RowPermit {
    store: Store,
    group: GroupId,
    place: Place,
}

impl RowPermit {
    /// Sends the row where the request's units were taken: its charges are settled there. The account's slot may have moved since
    /// the permit was given.
    ///
    /// # Errors
    /// No fresh contact with that group's quorum.
    pub fn follow(&mut self, grant: &Grant) -> Result<(), Unavailable> {
        let group = grant.group();
        if group != self.group {
            if !self.store.0.lanes.of(group).ok_or_else(|| not_open(group))?.group.is_in_contact() {
                return Err(Unavailable::new(format!("this node was out of contact with the ledger group {group}")));
            }
            self.group = group;
        }
        Ok(())
    }

    /// Hands the row in and waits until it is on a quorum's disks, at most the commit deadline.
    /// The row still lands (exactly once) when the waiter gives up, if it was proposed.
    ///
    /// # Errors
    /// [`CommitError`]: the deadline passed or the quorum is lost; the row may land or not.
    pub async fn commit(self, row: Row) -> Result<(), CommitError> {
        let deadline = self.store.0.commit_deadline;
        let lane = self.store.0.lanes.of(self.group).ok_or_else(|| CommitError(not_open(self.group)))?;
        match tokio::time::timeout(deadline, lane.batcher.push(row, self.place)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(CommitError(Unavailable::new("the row was not committed"))),
            Err(_) => Err(CommitError(Unavailable::new(format!("the row was not committed within {deadline:?}")))),
        }
    }
}

impl Store {
    /// The lease on this node's view of the metadata. Taken before something is looked up in the directory; what is found may
    /// be acted upon as long as [`Store::check`] says so.
    pub fn view(&self) -> View {
        View { until_ns: self.0.node.meta().view_until_ns() }
    }

    /// Whether what was looked up after `view` was taken is in force still. The instant of this call is the one at which a
    /// request that goes on is admitted.
    pub fn is_in_force(&self, view: View) -> bool {
        lease_clock_ns() < view.until_ns
    }

    /// Whether this node may decide about requests now, by what was looked up after `view` was taken: it serves, it was in
    /// contact with a ledger's quorum a moment ago, and the view is in force. An answer that depends on the metadata (also
    /// "unknown key") must not be given when it may not.
    ///
    /// # Errors
    /// [`Unavailable`]: 503, never 401, 403 or 429.
    pub fn check(&self, view: View) -> Result<(), Unavailable> {
        self.may_decide(view, self.0.lanes.any_in_contact())
    }

    fn may_decide(&self, view: View, in_contact: bool) -> Result<(), Unavailable> {
        let node = &self.0.node;
        if self.is_in_force(view) && in_contact && !node.has_failed() && !node.is_retiring() {
            return Ok(());
        }
        let reason = match self.readiness() {
            Readiness::NotReady(reason) => reason,
            Readiness::Ready => "this node was out of contact a moment ago".into(),
        };
        Err(Unavailable::new(reason))
    }

    /// Makes sure that an account's row can be committed: fresh contact with its ledger's quorum and a place in the queue.
    ///
    /// # Errors
    /// [`Unavailable`]; the upstream must not be called.
    pub fn permit(&self, account: &AccountId, view: View) -> Result<RowPermit, Unavailable> {
        let group = self.directory().group_of(account);
        let in_contact = self.0.lanes.of(group).ok_or_else(|| not_open(group))?.group.is_in_contact();
        self.may_decide(view, in_contact)?;
        match self.0.lanes.place() {
            Some(place) => Ok(RowPermit { store: self.clone(), group, place }),
            None => Err(Unavailable {
                reason: "too many rows wait for their quorum".into(),
                retry_after: Duration::from_secs(1),
            }),
        }
    }

    /// Hands in a row that nobody waits for; it is tried until it lands or the node stops. A settling record always has a place
    /// (its request was answered, and its row would stay `open`); another is dropped and counted at the queue's bound. It goes to
    /// the group that gave the request its units, if it has any, as the row that it settles did.
    pub fn record(&self, row: Row, group: Option<GroupId>) {
        let group = group.unwrap_or_else(|| self.directory().group_of(&row.account));
        let lanes = &self.0.lanes;
        let place = || if row.settles { Some(lanes.place_to_settle()) } else { lanes.place() };
        match lanes.of(group).and_then(|lane| Some((lane, place()?))) {
            Some((lane, place)) => lane.batcher.push_unattended(row, place),
            None => {
                lanes.counters().dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn not_open(group: GroupId) -> Unavailable {
    Unavailable::new(format!("the ledger group {group} is not open here yet"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Completion,
        store::{Settings, merge, meta::tests::settings},
    };

    /// Streamed answers that ended while the queue was full stayed `open` for ever.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_settling_record_has_a_place_when_the_queue_is_full() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(Settings { max_waiting_rows: 1, ..settings(dir.path()) }).await.expect("opens");
        while store.readiness() != Readiness::Ready {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let row = |number| Row { completion: Completion::Open, ..merge::tests::row(number, 1) };
        let view = store.view();
        let account = AccountId::from("acme");
        store.permit(&account, view).expect("a place").commit(row(1)).await.expect("committed");
        // The committed row's place comes back a moment after its answer.
        let _full = loop {
            match store.permit(&account, store.view()) {
                Ok(place) => break place,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert!(store.permit(&account, store.view()).is_err());
        store.record(Row { completion: Completion::Complete, ..row(2) }, None);
        store.record(Row { completion: Completion::Complete, settles: true, ..row(1) }, None);
        let mut read = None;
        for _ in 0..1_000 {
            read = store.request(row(1).request_id).await.expect("read");
            if read.as_ref().is_some_and(|row| row.completion == Completion::Complete) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(read.expect("there").completion, Completion::Complete);
        assert_eq!(store.request(row(2).request_id).await.expect("read"), None, "there was no place for it");
        store.shutdown().await;
    }
}
