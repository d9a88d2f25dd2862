//! Slots that are to leave their group: this node lets no request of theirs through any more, and gives back what it holds.

use std::{ops::Range, sync::Arc};

use super::{Leases, group::Group, reserve};
use crate::model::GroupId;

impl Leases {
    /// Gives back what this node holds of a group's slots, which are closed; whether nothing was left: no concurrency unit, no
    /// quota slice; with `settles` also no quota unit of a request whose row is not committed. Rate units on lease are never
    /// spent again and end by themselves.
    pub async fn are_quiet(&self, group: GroupId, slots: &Range<u16>, settles: bool) -> bool {
        let group: Arc<Group> = self.inner.group(group);
        let is_busy = group.units.are_busy(slots);
        let (wants, is_waiting) = group.slices_back(slots, settles);
        let was_empty = wants.is_empty();
        if !was_empty {
            reserve::make(&group, wants).await;
        }
        was_empty && !is_busy && !is_waiting
    }
}
