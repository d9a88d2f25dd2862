//! Which ledger group an account is in: accounts hash to slots, slots are placed on groups, and move to groups that are
//! younger than their own: never back, so that what an older group knows of a slot is never newer than what a younger one does.

use std::{cmp::Reverse, ops::Range};

use minicbor::{Decode, Encode};

use super::{GroupId, NodeId, NodeInfo, Revision, SLOTS};

/// Ledger groups of a cluster at most.
pub const MAX_LEDGER_GROUPS: u32 = 16;
/// Slots that move at once: they are closed together, and the counters of their accounts are found by one look through those
/// of their group.
const SLOTS_AT_ONCE: u16 = 128;

/// Where all slots are. A cluster that has none has one ledger group, with everything in it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Placement {
    /// The entry of group 0 that made it so.
    #[n(0)]
    pub epoch: Revision,
    /// Ledger groups beside the first, numbered from 2 on without holes.
    #[n(1)]
    pub added: Vec<AddedGroup>,
    /// All slots in order, as runs.
    #[n(2)]
    pub runs: Vec<SlotRun>,
    /// Ledger groups that slots are being spread over; 0 when that is done.
    #[n(3)]
    #[cbor(default)]
    pub goal: u32,
    /// Slots that are closed: nobody lets a request of theirs through.
    #[n(4)]
    pub moving: Option<Moving>,
    /// Groups that slots have left, and up to which entry they may have had something of those slots.
    #[n(5)]
    #[cbor(default)]
    pub left: Vec<Left>,
}

/// Slots on their way from one group to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Moving {
    /// The first of them.
    #[n(0)]
    pub first: u16,
    /// How many.
    #[n(1)]
    pub slots: u16,
    /// The group that they are in.
    #[n(2)]
    pub from: GroupId,
    /// The group that they come to; a younger one.
    #[n(3)]
    pub to: GroupId,
}

/// A group that slots have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Left {
    /// The group.
    #[n(0)]
    pub group: GroupId,
    /// What it had of them is in its state once this entry is applied.
    #[n(1)]
    pub index: u64,
}

impl Moving {
    /// The slots.
    pub fn range(&self) -> Range<u16> {
        self.first..self.first.saturating_add(self.slots).min(SLOTS)
    }
}

/// A ledger group beside the first.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AddedGroup {
    /// Its number.
    #[n(0)]
    pub id: GroupId,
    /// Who voted in group 0 when it was added. It is made with exactly these voters, whoever makes it, so that it is made once.
    #[n(1)]
    pub voters: Vec<FirstVoter>,
}

/// A voter that a group is made with.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FirstVoter {
    /// Who.
    #[n(0)]
    pub id: NodeId,
    /// Its name and addresses.
    #[n(1)]
    pub info: NodeInfo,
}

/// Slots in order that are in one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct SlotRun {
    /// How many.
    #[n(0)]
    pub slots: u16,
    /// The group.
    #[n(1)]
    pub group: GroupId,
}

/// Slots of one of so many groups, when all have as many.
fn share(group: u32, groups: u32) -> u32 {
    let upto = |group: u32| u32::from(SLOTS) * group / groups;
    upto(group) - upto(group - 1)
}

impl Placement {
    /// Slots spread evenly over `groups` ledger groups, those beside the first made with these voters.
    pub fn even(groups: u32, voters: &[FirstVoter]) -> Self {
        let groups = groups.clamp(1, MAX_LEDGER_GROUPS);
        let added = (2..=groups).map(|id| AddedGroup { id: GroupId(id), voters: voters.to_vec() }).collect();
        let slots = |group| u16::try_from(share(group, groups)).unwrap_or(SLOTS);
        let runs = (1..=groups).map(|group| SlotRun { slots: slots(group), group: GroupId(group) });
        Self { epoch: 0, added, runs: runs.collect(), goal: 0, moving: None, left: Vec::new() }
    }

    /// How many ledger groups there are.
    pub fn groups(&self) -> u32 {
        self.added.len() as u32 + 1
    }

    /// The same with more ledger groups, made with these voters, which slots are to be spread over.
    pub fn grown(&self, groups: u32, voters: &[FirstVoter]) -> Self {
        let more = (self.groups() + 1..=groups).map(|id| AddedGroup { id: GroupId(id), voters: voters.to_vec() });
        let added = self.added.iter().cloned().chain(more).collect();
        Self { added, goal: groups, ..self.clone() }
    }

    /// Slots that are still to come to another group.
    pub fn slots_to_move(&self) -> u32 {
        (1..=self.goal).map(|group| share(group, self.goal).saturating_sub(self.slots_of(GroupId(group)))).sum()
    }

    /// What moves next towards the goal: from the group that has most too many to the one that lacks most. None when all are
    /// even. Older groups had as many each, so it is the added ones that lack some.
    pub fn next_move(&self) -> Option<Moving> {
        let all = || (1..=self.goal).map(GroupId);
        let lacks = |id: GroupId| share(id.0, self.goal).saturating_sub(self.slots_of(id));
        let spares = |id: GroupId| self.slots_of(id).saturating_sub(share(id.0, self.goal));
        let to = all().max_by_key(|id| (lacks(*id), Reverse(*id)))?;
        let from = all().filter(|id| *id < to).max_by_key(|id| (spares(*id), Reverse(*id)))?;
        let some = u16::try_from(lacks(to).min(spares(from))).unwrap_or(SLOTS).min(SLOTS_AT_ONCE);
        // The tail of its last run.
        let mut end = SLOTS;
        let run = self.runs.iter().rev().find(|run| {
            let found = run.group == from;
            end -= if found { 0 } else { run.slots };
            found
        })?;
        let slots = some.min(run.slots);
        (slots > 0).then(|| Moving { first: end - slots, slots, from, to })
    }

    /// The same with slots closed.
    pub fn closed(&self, moving: Moving) -> Self {
        Self { moving: Some(moving), ..self.clone() }
    }

    /// The same with the closed slots in the group that they come to; the old one's state has all of theirs at `index`.
    pub fn opened(&self, index: u64) -> Self {
        let Some(moving) = self.moving else { return self.clone() };
        let mut groups: Vec<GroupId> = self.groups_of_slots().collect();
        for slot in moving.range() {
            groups[usize::from(slot)] = moving.to;
        }
        let runs = groups.chunk_by(|a, b| a == b);
        let runs = runs.map(|run| SlotRun { slots: u16::try_from(run.len()).unwrap_or(SLOTS), group: run[0] });
        let mut left = self.left.clone();
        match left.iter_mut().find(|left| left.group == moving.from) {
            Some(left) => left.index = left.index.max(index),
            None => left.push(Left { group: moving.from, index }),
        }
        Self { runs: runs.collect(), moving: None, left, ..self.clone() }
    }

    /// The same with the closed slots open where they were.
    pub fn reopened(&self) -> Self {
        Self { moving: None, ..self.clone() }
    }

    /// The same with nothing to move any more.
    pub fn settled(&self) -> Self {
        Self { goal: 0, ..self.clone() }
    }

    /// Whether a slot has ever moved, or is about to.
    pub fn has_moved(&self) -> bool {
        self.moving.is_some() || !self.left.is_empty()
    }

    /// The group of every slot.
    pub fn groups_of_slots(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.runs.iter().flat_map(|run| std::iter::repeat_n(run.group, usize::from(run.slots)))
    }

    /// Slots in a group.
    pub fn slots_of(&self, group: GroupId) -> u32 {
        self.runs.iter().filter(|run| run.group == group).map(|run| u32::from(run.slots)).sum()
    }

    /// Why it makes no sense; none when it does.
    pub fn flaw(&self) -> Option<String> {
        let slots: u64 = self.runs.iter().map(|run| u64::from(run.slots)).sum();
        if slots != u64::from(SLOTS) {
            return Some(format!("places {slots} slots of {SLOTS}"));
        }
        if self.added.len() >= MAX_LEDGER_GROUPS as usize {
            return Some(format!("has more than {MAX_LEDGER_GROUPS} ledger groups"));
        }
        if !self.added.iter().zip(2..).all(|(added, id)| added.id.0 == id) {
            return Some("has groups that are not numbered 2, 3, …".into());
        }
        if let Some(added) = self.added.iter().find(|added| added.voters.is_empty()) {
            return Some(format!("names no voters of group {}", added.id));
        }
        let groups = 1..=self.groups();
        if let Some(unknown) = self.runs.iter().find(|run| !groups.contains(&run.group.0)) {
            return Some(format!("places slots in group {}, which is none of it", unknown.group));
        }
        if self.goal > self.groups() {
            return Some(format!("spreads slots over {} groups of {}", self.goal, self.groups()));
        }
        let moving = self.moving?;
        if moving.slots == 0 || moving.first.checked_add(moving.slots).is_none_or(|end| end > SLOTS) {
            return Some(format!("moves {} slots from slot {} on", moving.slots, moving.first));
        }
        if moving.to <= moving.from || !groups.contains(&moving.to.0) {
            return Some(format!("moves slots of group {} to group {}", moving.from, moving.to));
        }
        let strange = self
            .groups_of_slots()
            .zip(0..)
            .find(|(group, slot)| moving.range().contains(slot) && *group != moving.from)?;
        Some(format!("moves slot {} of group {}, which is in group {}", strange.1, moving.from, strange.0))
    }

    /// Why it cannot follow another placement; none when it can. Slots come to another group only when they were closed, and
    /// all of them at once.
    pub fn cannot_follow(&self, old: &Self) -> Option<String> {
        if !self.added.starts_with(&old.added) {
            return Some("forgets or changes ledger groups".into());
        }
        let mut changed = Vec::new();
        for (slot, (before, after)) in (0..).zip(old.groups_of_slots().zip(self.groups_of_slots())) {
            if before != after {
                let Some(moving) = old.moving.filter(|moving| moving.range().contains(&slot) && moving.to == after)
                else {
                    return Some(format!("moves slot {slot}, which was not closed for group {after}"));
                };
                changed.push((slot, moving));
            }
        }
        if let Some((_, moving)) = changed.first() {
            if changed.len() != usize::from(moving.slots) || self.moving.is_some() {
                return Some("opens some of the closed slots, and not all".into());
            }
            if !self.left.iter().any(|left| left.group == moving.from && left.index > 0) {
                return Some(format!("does not say up to which entry group {} had the slots", moving.from));
            }
        }
        if old.moving.is_some() && self.moving.is_some() && self.moving != old.moving {
            return Some("closes slots while others are".into());
        }
        let kept = |left: &Left| self.left.iter().any(|now| now.group == left.group && now.index >= left.index);
        old.left.iter().any(|left| !kept(left)).then(|| "forgets which groups slots have left".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter() -> FirstVoter {
        FirstVoter { id: NodeId(1), info: NodeInfo::default() }
    }

    #[test]
    fn slots_are_spread_evenly_and_each_is_in_one_group() {
        for groups in 1..=MAX_LEDGER_GROUPS {
            let placement = Placement::even(groups, &[voter()]);
            assert_eq!(placement.flaw(), None);
            assert_eq!(placement.groups_of_slots().count(), usize::from(SLOTS));
            let sizes: Vec<u32> = (1..=groups).map(|group| placement.slots_of(GroupId(group))).collect();
            assert_eq!(sizes.iter().sum::<u32>(), u32::from(SLOTS));
            let (least, most) = (sizes.iter().min().expect("some"), sizes.iter().max().expect("some"));
            assert!(most - least <= 1, "{sizes:?}");
        }
    }

    /// From any number of groups to any greater one: each step may follow the one before, no slot ever comes to an older group,
    /// and in the end all have as many.
    #[test]
    fn slots_move_until_all_groups_have_as_many_and_never_to_an_older_group() {
        for before in 1..MAX_LEDGER_GROUPS {
            for after in before + 1..=MAX_LEDGER_GROUPS {
                let mut placement = Placement::even(before, &[voter()]);
                let step = |next: Placement, placement: &mut Placement| {
                    assert_eq!((next.flaw(), next.cannot_follow(placement)), (None, None));
                    let (old, new) = (placement.groups_of_slots(), next.groups_of_slots());
                    assert!(old.zip(new).all(|(old, new)| old <= new), "{before} to {after}");
                    *placement = next;
                };
                step(placement.grown(after, &[voter()]), &mut placement);
                let mut moves = 0;
                while let Some(moving) = placement.next_move() {
                    let to_move = placement.slots_to_move();
                    step(placement.closed(moving), &mut placement);
                    assert!(placement.has_moved());
                    step(placement.opened(7), &mut placement);
                    assert_eq!(placement.slots_to_move(), to_move - u32::from(moving.slots));
                    moves += 1;
                    assert!(moves < 200, "{before} to {after} does not end");
                }
                assert_eq!(placement.slots_to_move(), 0);
                step(placement.settled(), &mut placement);
                let sizes: Vec<u32> = (1..=after).map(|group| placement.slots_of(GroupId(group))).collect();
                let (least, most) = (sizes.iter().min().expect("some"), sizes.iter().max().expect("some"));
                assert!(most - least <= 1, "{before} to {after}: {sizes:?}");
            }
        }
    }

    #[test]
    fn a_slot_that_is_not_closed_moves_nowhere() {
        let old = Placement::even(2, &[voter()]).grown(3, &[voter()]);
        let moving = old.next_move().expect("a move");
        let closed = old.closed(moving);
        let opened = closed.opened(7);
        assert!(opened.cannot_follow(&old).expect("refused").contains("not closed"));
        let other = Moving { first: 0, ..moving };
        assert!(old.closed(other).cannot_follow(&closed).expect("refused").contains("while others are"));
        let mut half = closed.closed(Moving { slots: moving.slots - 1, ..moving }).opened(7);
        assert!(half.cannot_follow(&closed).expect("refused").contains("not all"));
        half = opened.clone();
        half.left.clear();
        assert!(half.cannot_follow(&closed).expect("refused").contains("up to which entry"));
        assert!(old.cannot_follow(&opened).expect("refused").contains("not closed"), "never back");
        assert_eq!(closed.reopened().cannot_follow(&closed), None);
        let back = Moving { from: GroupId(2), to: GroupId(1), first: 600, slots: 1 };
        assert!(old.closed(back).flaw().expect("a flaw").contains("group 2 to group 1"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let good = Placement::even(3, &[voter()]);
        let flaw = |change: fn(&mut Placement)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad.flaw().expect("a flaw")
        };
        assert!(flaw(|bad| bad.runs[0].slots -= 1).contains("1023 slots of 1024"));
        assert!(flaw(|bad| bad.runs[0].group = GroupId(0)).contains("group 0"));
        assert!(flaw(|bad| bad.runs[0].group = GroupId(4)).contains("group 4"));
        assert!(flaw(|bad| bad.added[0].id = GroupId(7)).contains("not numbered"));
        assert!(flaw(|bad| bad.added[1].voters.clear()).contains("no voters of group 3"));
    }
}
