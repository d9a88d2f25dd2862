//! Which versions of the wire a build speaks, and whether two nodes understand each other.
//!
//! Messages are CBOR with numbered fields: a build skips those that it does not know and takes defaults for those that are
//! absent, so a new field is no new version. A new version means that something old is said no more, or in another way. A
//! build speaks a range of them; two nodes go on with the newest that both speak, or refuse each other by name.
//!
//! What replicas would apply differently is not proposed before every member speaks the version that brought it
//! ([`Node::all_speak`]).

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use minicbor::{Decode, Encode};
use tokio::time::Instant;

use super::{
    node::Node,
    wire::{Greeting, Lane},
};
use crate::model::{Name, NodeId};

/// This build.
pub(super) const BUILD: &str = env!("CARGO_PKG_VERSION");

/// Versions of the wire, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Spoken {
    #[n(0)]
    pub(crate) oldest: u16,
    #[n(1)]
    pub(crate) newest: u16,
}

impl Spoken {
    /// What was spoken before nodes said what they speak.
    pub(super) const FIRST: Self = Self { oldest: 1, newest: 1 };
    /// What this build speaks.
    pub(crate) const OURS: Self = Self { oldest: 1, newest: 3 };

    /// The newest version that both speak.
    pub(super) fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

/// From this version on audit lines say for how many requests they stand, and what was changed beside the object.
pub(crate) const SAYS_MORE_IN_AUDIT: u16 = 2;
/// From this version on a reservation can be a look at a quota's use.
pub(crate) const LOOKS_AT_QUOTAS: u16 = 2;

/// From this version on a cluster can have several ledger groups, and slots can move.
pub(crate) const MOVES_SLOTS: u16 = 3;

/// What members were heard to speak, and when each was asked last.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<BTreeMap<u64, Said>>);

#[derive(Debug, Clone, Copy)]
struct Said {
    /// None while it has not answered.
    newest: Option<u16>,
    asked: Instant,
}

/// A member that has answered is asked again after this: it may have been started with an older build.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// One that has not answered yet, after this.
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Heard {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_to_be_asked(&self, id: u64) -> bool {
        let wait = |said: &Said| if said.newest.is_some() { ASK_AGAIN } else { TRY_AGAIN };
        self.lock().get(&id).is_none_or(|said| said.asked.elapsed() >= wait(said))
    }

    /// A member was asked. One that does not answer speaks what it spoke before.
    fn hear(&self, id: u64, newest: Option<u16>) {
        let mut all = self.lock();
        let before = all.get(&id).and_then(|said| said.newest);
        all.insert(id, Said { newest: newest.or(before), asked: Instant::now() });
    }

    fn newest(&self, id: u64) -> Option<u16> {
        self.lock().get(&id).and_then(|said| said.newest)
    }
}

impl Node {
    /// Whether every member speaks a version, as far as this node has heard; one that it has never heard does not. Asks
    /// those that it has not asked for a while, and waits for them less than half a second.
    pub(crate) async fn all_speak(&self, version: u16) -> bool {
        let members = self.meta().members();
        if members.keys().any(|id| *id != self.me().0 && self.heard.is_to_be_asked(*id)) {
            for member in self.members_now().await {
                let spoken = member.status.map(|status| status.spoken.unwrap_or(Spoken::FIRST));
                self.heard.hear(member.id.0, spoken.map(|spoken| spoken.newest));
            }
        }
        let own = self.peers().own().spoken.newest;
        let speaks = |id: &u64| if *id == self.me().0 { Some(own) } else { self.heard.newest(*id) };
        members.keys().all(|id| speaks(id).is_some_and(|newest| newest >= version))
    }
}

impl std::fmt::Display for Spoken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.oldest == self.newest {
            return write!(f, "wire version {}", self.newest);
        }
        write!(f, "wire versions {} to {}", self.oldest, self.newest)
    }
}

/// Who says something.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Own {
    pub(super) id: NodeId,
    pub(super) name: Name,
    pub(super) build: String,
    pub(super) spoken: Spoken,
}

impl Own {
    /// The first thing that it says on a lane.
    pub(super) fn greeting(&self, to: Option<NodeId>, lane: Lane, refused: Option<String>) -> Greeting {
        Greeting {
            from: self.id,
            to,
            lane,
            refused,
            name: self.name.clone(),
            build: self.build.clone(),
            spoken: Some(self.spoken),
        }
    }

    /// Why nothing can be said to a peer that greets so: no version in common. Names both, and who is to be upgraded.
    pub(super) fn refusal(&self, greeting: &Greeting) -> Option<String> {
        let theirs = greeting.spoken.unwrap_or(Spoken::FIRST);
        if self.spoken.common(theirs).is_some() {
            return None;
        }
        let name = |name: &Name, id: NodeId| if name.is_empty() { format!("node {id}") } else { name.to_string() };
        let (own, other) = (name(&self.name, self.id), name(&greeting.name, greeting.from));
        let (older, newer) = if self.spoken.newest < theirs.oldest { (&own, &other) } else { (&other, &own) };
        Some(format!(
            "{other} (version {}, {theirs}) and {own} (version {}, {}) have no version in common: upgrade {older} first, \
             through the releases in between, or start {newer} with an older build",
            if greeting.build.is_empty() { "unknown" } else { &greeting.build },
            self.build,
            self.spoken,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &str, oldest: u16, newest: u16) -> Own {
        Own { id: NodeId(7), name: name.into(), build: format!("{newest}.0.0"), spoken: Spoken { oldest, newest } }
    }

    #[test]
    fn neighbours_in_a_rolling_upgrade_understand_each_other_and_strangers_are_refused_by_name() {
        let (old, next, far) = (own("a", 1, 1), own("b", 1, 2), own("c", 3, 4));
        let hello = |own: &Own| own.greeting(None, Lane::Call, None);
        assert_eq!((old.refusal(&hello(&next)), next.refusal(&hello(&old))), (None, None));
        assert_eq!(old.spoken.common(next.spoken), Some(1));
        for said in [old.refusal(&hello(&far)), far.refusal(&hello(&old))] {
            let said = said.expect("refused");
            assert!(said.contains("upgrade a first") && said.contains("start c with an older build"), "{said}");
            assert!(said.contains("a (version 1.0.0, wire version 1)"), "{said}");
            assert!(said.contains("c (version 4.0.0, wire versions 3 to 4)"), "{said}");
        }
        // A build that does not say speaks the first version.
        let silent = Greeting { spoken: None, name: Name::default(), ..hello(&old) };
        assert_eq!(next.refusal(&silent), None);
        assert!(far.refusal(&silent).is_some_and(|said| said.contains("upgrade node 0000000000000007 first")));
    }
}
