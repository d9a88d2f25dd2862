//! Whether a node can serve, and why not.

use std::sync::atomic::Ordering;

use super::Node;
use crate::model::GroupId;

impl Node {
    pub(in crate::raft) fn set_progress(&self, progress: impl Into<String>) {
        let progress = progress.into();
        let mut held = self.progress.lock().expect("no holder of this lock panics");
        if *held != progress && !progress.is_empty() {
            tracing::info!("{progress}");
        }
        *held = progress;
    }

    pub(in crate::raft) fn set_trouble(&self, trouble: String) {
        let mut held = self.trouble.lock().expect("no holder of this lock panics");
        if *held != trouble && !trouble.is_empty() {
            tracing::warn!("{trouble}");
        }
        *held = trouble;
    }

    fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().expect("no holder of this lock panics").clone();
        Some(trouble).filter(|trouble| !trouble.is_empty())
    }

    /// Why this node cannot serve; none when it can.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if let Some(reason) = self.failure() {
            return Some(reason);
        }
        if self.meta().is_stranger() {
            return Some(format!(
                "this node ({}) was removed from the cluster: stop it; to bring it back, move its data directory away and \
                 start it with an empty one",
                self.me()
            ));
        }
        if self.is_retiring() {
            return Some("this node is to leave the cluster".into());
        }
        if self.is_draining() {
            return Some("draining".into());
        }
        let progress = self.progress.lock().expect("no holder of this lock panics").clone();
        if !progress.is_empty() {
            return self.trouble().or(Some(progress));
        }
        // A group that was just added has nothing to serve: slots come to it when all members have it.
        let placement = self.meta().state().placement();
        let serves = |id: &GroupId| {
            *id <= GroupId::LEDGER
                || placement.as_ref().is_some_and(|placement| {
                    placement.slots_of(*id) > 0 || placement.moving.is_some_and(|moving| moving.to == *id)
                })
        };
        if let Some(id) = self.unopened().find(serves) {
            return Some(format!("ledger group {id} is not open here yet"));
        }
        self.groups().iter().filter(|group| serves(&group.id())).find_map(|group| {
            let what = match group.id() {
                GroupId::META => "metadata".to_owned(),
                GroupId::LEDGER => "ledger".to_owned(),
                id => format!("ledger {id}"),
            };
            if group.leader().is_none() {
                return self.trouble().or_else(|| Some(format!("no leader of the {what} group is known")));
            }
            if !group.is_in_contact() {
                let trouble = self.trouble();
                return trouble.or_else(|| Some(format!("no fresh contact with the quorum of the {what} group")));
            }
            if group.id() == GroupId::META {
                return (!group.has_view_lease()).then(|| "the metadata here may not be trusted yet".into());
            }
            (!group.is_decided()).then(|| "the ledger's leader is new and does not decide yet".into())
        })
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(in crate::raft) fn draining(&self, drains: bool) {
        self.draining.store(drains, Ordering::Relaxed);
    }

    /// Whether it lets no new request through because it is to leave the cluster.
    pub(crate) fn is_retiring(&self) -> bool {
        self.retiring.load(Ordering::Relaxed)
    }

    pub(in crate::raft) fn retire(&self, retires: bool) {
        self.retiring.store(retires, Ordering::Relaxed);
    }
}
