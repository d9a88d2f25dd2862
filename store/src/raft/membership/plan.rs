//! Which members should vote and which should go: rules over what the leader sees, and nothing else.

use std::collections::BTreeSet;

use crate::model::Name;

/// A member as the leader sees it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) id: u64,
    pub(super) name: Name,
    pub(super) voter: bool,
    /// It leads: this node.
    pub(super) leader: bool,
    /// It has said something a moment ago.
    pub(super) live: bool,
    /// It has said nothing for so long that nobody waits for it any more.
    pub(super) forgotten: bool,
    /// Its log is as long as the leader's was a moment ago.
    pub(super) caught_up: bool,
    /// It is to be taken down.
    pub(super) draining: bool,
    /// Voters that it is set to want.
    pub(super) wants: usize,
}

/// What should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) voters: BTreeSet<u64>,
    pub(super) leave: BTreeSet<u64>,
}

/// Makes the plan. `asked`: who an operator wants to go.
///
/// - The cluster aims at as many voters as the most that any live member is set to want.
/// - Learners become voters only so many at a time that the number of voters is odd: a second or fourth voter would have to be
///   there for every commit and could not be missed in an election, so it would make the cluster weaker.
/// - A learner that was forgotten goes: it has no data that voters do not have.
/// - A dead member whose name a live one has was replaced: it goes, and the new one votes in its place.
/// - More voters than wanted are made learners only while all members are there to say what they want.
pub(super) fn plan(members: &[Seen], asked: &BTreeSet<u64>) -> Plan {
    // The leader goes when it leads no more.
    let asked: BTreeSet<u64> =
        members.iter().filter(|one| asked.contains(&one.id) && !one.leader).map(|one| one.id).collect();
    let mut leave = asked.clone();
    leave
        .extend(members.iter().filter(|one| one.forgotten && !one.live && !one.voter && !one.leader).map(|one| one.id));
    let mut voters: BTreeSet<u64> = members.iter().filter(|one| one.voter).map(|one| one.id).collect();
    voters.retain(|id| !asked.contains(id));
    for old in members.iter().filter(|one| !one.live && !one.leader) {
        let same = |new: &&Seen| new.id != old.id && new.name == old.name && new.live && !asked.contains(&new.id);
        let Some(new) = members.iter().find(same) else { continue };
        if !old.voter || new.voter {
            voters.remove(&old.id);
            leave.insert(old.id);
        } else if new.caught_up {
            voters.remove(&old.id);
            voters.insert(new.id);
            leave.insert(old.id);
        }
    }
    let stay = || members.iter().filter(|one| !leave.contains(&one.id));
    let wanted = stay().filter(|one| one.live).map(|one| one.wants).max().unwrap_or(0);
    let mut ready: Vec<&Seen> =
        stay().filter(|one| one.live && one.caught_up && !one.draining && !voters.contains(&one.id)).collect();
    ready.sort_by(|a, b| a.name.cmp(&b.name));
    let possible = wanted.min(voters.len() + ready.len());
    let odd = possible.saturating_sub(usize::from(possible.is_multiple_of(2)));
    if odd > voters.len() {
        let missing = odd - voters.len();
        voters.extend(ready.iter().take(missing).map(|one| one.id));
    } else if voters.len() > wanted && wanted > 0 && stay().all(|one| one.live) {
        let mut spare: Vec<&Seen> = stay().filter(|one| voters.contains(&one.id) && !one.leader).collect();
        spare.sort_by(|a, b| (a.draining, &a.name).cmp(&(b.draining, &b.name)));
        for one in spare.iter().rev().take(voters.len() - wanted) {
            voters.remove(&one.id);
        }
    }
    Plan { voters, leave }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name/id` of members: upper-case votes, `!` is dead, `?` for long, `~` lags, `-` drains, `*` leads; the number is what it wants.
    fn members(text: &str) -> Vec<Seen> {
        text.split_whitespace()
            .map(|word| {
                let (name, rest) = word.split_at(1);
                let (wants, marks) = rest.split_at(1);
                Seen {
                    id: u64::from(word.as_bytes()[0]) + 1_000 * marks.matches('\'').count() as u64,
                    name: name.to_lowercase().as_str().into(),
                    voter: name.chars().all(char::is_uppercase),
                    leader: marks.contains('*'),
                    live: !marks.contains(['!', '?']),
                    forgotten: marks.contains('?'),
                    caught_up: !marks.contains('~'),
                    draining: marks.contains('-'),
                    wants: wants.parse().expect("a digit"),
                }
            })
            .collect()
    }

    fn planned(text: &str, asked: &str) -> (String, String) {
        let members = members(text);
        let asked = asked.bytes().map(u64::from).collect();
        let plan = plan(&members, &asked);
        let text = |ids: &BTreeSet<u64>| -> String {
            ids.iter()
                .map(|id| format!("{}{}", char::from((id % 1_000) as u8), if *id > 1_000 { "'" } else { "" }))
                .collect()
        };
        (text(&plan.voters), text(&plan.leave))
    }

    #[track_caller]
    fn check(members: &str, asked: &str, voters: &str, leave: &str) {
        assert_eq!(planned(members, asked), (voters.to_owned(), leave.to_owned()), "{members}");
    }

    #[test]
    fn voters_grow_in_odd_numbers_up_to_what_is_wanted() {
        check("A3*", "", "A", "");
        check("A3* b3", "", "A", "");
        check("A3* b3 c3~", "", "A", "");
        check("A3* b3 c3", "", "Abc", "");
        check("A3* B3 C3 d3 e3", "", "ABC", "");
        check("A3* B3 C3 d5", "", "ABC", "");
        check("A3* B3 C3 d5 e5", "", "ABCde", "");
        check("A3* B3 C3 d5 e5-", "", "ABC", "");
        check("A3* B3 C3 d5 e5!", "", "ABC", "");
        // One of three was removed: a learner takes its place, and without one two go on.
        check("A3* B3 d3", "", "ABd", "");
        check("A3* B3", "", "AB", "");
        check("A1* b1 c1", "", "A", "");
    }

    #[test]
    fn who_is_asked_to_go_goes_and_the_leader_only_when_it_leads_no_more() {
        check("A3* B3 C3", "C", "AB", "C");
        check("A3* B3 C3 d3", "C", "ABd", "C");
        check("A3* B3 C3 d3", "d", "ABC", "d");
        check("A3* B3 C3", "A", "ABC", "");
        check("A5* B5 C5 D5 E5", "DE", "ABC", "DE");
    }

    #[test]
    fn a_learner_that_was_silent_for_long_goes_and_a_voter_never_by_itself() {
        check("A3* B3 C3 d3!", "", "ABC", "");
        check("A3* B3 C3 d3?", "", "ABC", "d");
        check("A3* B3 C3? d3?", "", "ABC", "d");
    }

    #[test]
    fn a_node_that_came_back_empty_takes_the_place_of_its_name() {
        check("A3* B3 C3! c3'", "", "ABc'", "C");
        check("A3* B3 C3! c3'~", "", "ABC", "");
        check("A3* B3 C3 d3! d3'", "", "ABC", "d");
        // Nobody of that name is dead: nothing happens.
        check("A3* B3 C3 c3'", "", "ABC", "");
        check("A3* B3 C3! c3'!", "", "ABC", "");
        // The newcomer votes already: its predecessor goes all the same.
        check("A3* B3 C3! C3'", "", "ABC'", "C");
    }

    #[test]
    fn voters_beyond_what_is_wanted_become_learners_when_all_are_there() {
        check("A3 B3 C3 D3* E3", "", "ABD", "");
        check("A3 B3 C3- D3* E3", "", "ABD", "");
        check("A3 B3 C5! D3* E3", "", "ABCDE", "");
        check("A3 B3 C5 D3* E3", "", "ABCDE", "");
    }
}
