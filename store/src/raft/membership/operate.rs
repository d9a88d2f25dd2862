//! What an operator asks of any node: take a node in, let one go, drain one, move leadership.

use std::{sync::PoisonError, time::Duration};

use minicbor::{Decode, Encode};
use tokio::time::Instant;

use super::MemberNow;
use crate::{
    model::{GroupId, NodeId},
    raft::{
        bootstrap::Join,
        node::Node,
        peer::CallError,
        status::Status,
        wire::{self, Fault, Kind},
    },
};

const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// A hand-over takes an election, and the new leader must be heard of.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(5);
/// How long a node that is to leave may take for its requests in flight.
const RETIRE_DEADLINE: Duration = Duration::from_secs(10);
/// Leases run out in 4 s or less; the rest is for a leader that changes meanwhile.
const REMOVE_DEADLINE: Duration = Duration::from_secs(25);
const PAUSE: Duration = Duration::from_millis(100);

/// Why something that an operator asked for was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OperateError {
    /// There is no such node.
    #[error("there is no node {0:?}")]
    Unknown(String),
    /// It must not be done, and why.
    #[error("{0}")]
    Refused(String),
    /// It could not be done now.
    #[error("{0}")]
    Unavailable(String),
}

use OperateError::{Refused, Unavailable};

/// A question of `Kind::Drain`.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(in crate::raft) struct Drain {
    /// Gives leadership away and is not ready; or serves again.
    #[n(0)]
    pub(in crate::raft) drains: bool,
    /// Lets no new request through.
    #[n(1)]
    pub(in crate::raft) retires: bool,
}

/// A question of `Kind::Remove`.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(in crate::raft) struct Remove {
    #[n(0)]
    pub(in crate::raft) group: GroupId,
    #[n(1)]
    pub(in crate::raft) id: NodeId,
}

/// A question of `Kind::HandOver`.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(in crate::raft) struct HandOver {
    #[n(0)]
    pub(in crate::raft) group: GroupId,
    /// The next leader; whoever has most of the log when not said.
    #[n(1)]
    pub(in crate::raft) to: Option<NodeId>,
}

/// What peers ask of this node.
impl Node {
    pub(in crate::raft) fn set_drain(&self, drain: Drain) {
        if drain.drains != self.is_draining() {
            tracing::info!(
                drains = drain.drains,
                retires = drain.retires,
                "an operator has drained this node, or ended it"
            );
        }
        self.retire(drain.retires);
        self.draining(drain.drains);
    }

    /// On a leader: whether a node has gone. The leader of group 0 sees to it that it goes, the others follow by themselves.
    pub(in crate::raft) fn let_go(&self, remove: &Remove) -> Result<bool, Fault> {
        let group = self.group(remove.group)?;
        if group.leads().is_none() {
            return Err(Fault::NotLeader(group.leader().map(|(id, _)| id.0)));
        }
        let gone = !group.members().contains_key(&remove.id.0);
        if !gone && remove.group == GroupId::META {
            self.asked_to_go.lock().unwrap_or_else(PoisonError::into_inner).insert(remove.id.0);
        }
        Ok(gone && group.is_membership_committed())
    }

    /// On a leader: hands the leadership over, and says to whom.
    pub(in crate::raft) async fn hand_over(&self, ask: &HandOver) -> Result<NodeId, Fault> {
        let group = self.group(ask.group)?;
        if !group.is_leader() {
            return Err(Fault::NotLeader(group.leader().map(|(id, _)| id.0)));
        }
        if ask.to == Some(self.me()) {
            return Ok(self.me());
        }
        let now = self.members_now().await;
        let ready = |id: u64| {
            let member = now.iter().find(|member| member.id.0 == id);
            let status = member.and_then(|member| member.status.as_ref());
            status.is_some_and(|status| !status.draining) && ask.to.is_none_or(|to| to.0 == id)
        };
        let to = group.furthest(ready);
        let to =
            to.ok_or_else(|| Fault::Failed("no other voter is there to lead: see tollgate cluster status".into()))?;
        group.hand_over_to(to).await.map_err(Fault::Failed)?;
        Ok(NodeId(to))
    }
}

/// What an operator asks.
impl Node {
    /// Takes in the node that answers at an address, which must be empty.
    pub(crate) async fn take_in_at(&self, addr: &str) -> Result<Status, OperateError> {
        let answer = self.peers().anyone(addr).call(Kind::Status, wire::cbor(&()), CALL_DEADLINE).await;
        let body = answer.map_err(|error| Refused(format!("no node answers there: {error}")))?;
        let status: Status = wire::from_cbor(&body).map_err(|fault| Refused(fault.to_string()))?;
        if self.meta().members().contains_key(&status.id.0) {
            return Ok(status);
        }
        if status.member {
            return Err(Refused(format!(
                "{} has data of a cluster that it belongs or belonged to: start it with an empty data directory",
                status.info
            )));
        }
        let join = wire::cbor(&Join { id: status.id, info: status.info.clone(), group: GroupId::META });
        match self.ask_leader(GroupId::META, Kind::Join, join, CALL_DEADLINE * 2).await {
            Ok(_) => Ok(status),
            Err(CallError::Fault(Fault::Failed(why))) => Err(Refused(why)),
            Err(error) => Err(Unavailable(error.to_string())),
        }
    }

    /// Makes a node give leadership away and say that it is not ready; or end that.
    pub(crate) async fn drain_node(&self, name: &str, drains: bool) -> Result<(), OperateError> {
        let member = self.find(name).await?;
        self.tell_drain(&member, Drain { drains, retires: false }).await?;
        let until = Instant::now() + HAND_OVER_DEADLINE;
        while drains && Instant::now() < until {
            let now = self.members_now().await;
            let status = now.into_iter().find(|one| one.id == member.id).and_then(|one| one.status);
            // It goes on leading when nobody else is there to.
            if status.is_none_or(|status| status.leading.is_empty()) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Takes a node out of the cluster. When it returns, the node holds no lease and no vote.
    pub(crate) async fn remove_node(&self, name: &str) -> Result<(), OperateError> {
        let member = self.find(name).await?;
        self.may_go(&member).await?;
        if member.status.is_some() {
            self.tell_drain(&member, Drain { drains: true, retires: true }).await?;
            self.wait_retired(&member).await?;
        }
        let until = Instant::now() + REMOVE_DEADLINE;
        for group in self.groups().iter() {
            let remove = Remove { group: group.id(), id: member.id };
            loop {
                let answer = self.ask_leader(group.id(), Kind::Remove, wire::cbor(&remove), CALL_DEADLINE).await;
                let why = match answer.map(|body| wire::from_cbor::<bool>(&body)) {
                    Ok(Ok(true)) => break,
                    Ok(Ok(false)) => "it still holds leases".to_owned(),
                    Ok(Err(fault)) => fault.to_string(),
                    Err(error) => error.to_string(),
                };
                if Instant::now() > until {
                    return Err(Unavailable(format!("node {name} has not gone yet ({why}): ask again")));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Hands the leadership of a group (of all when none is named) to a node, or to whoever is fit.
    pub(crate) async fn transfer(&self, group: Option<GroupId>, to: Option<&str>) -> Result<(), OperateError> {
        let to = match to {
            Some(name) => Some(self.find(name).await?),
            None => None,
        };
        if let Some(to) = to.as_ref().filter(|to| !to.voter || to.status.is_none()) {
            let why = if to.voter { "does not answer" } else { "is a learner and cannot lead" };
            return Err(Refused(format!("node {} {why}", to.info)));
        }
        for id in self.groups().iter().map(|one| one.id()).filter(|id| group.is_none_or(|group| group == *id)) {
            let ask = wire::cbor(&HandOver { group: id, to: to.as_ref().map(|to| to.id) });
            let body = match self.ask_leader(id, Kind::HandOver, ask, HAND_OVER_DEADLINE).await {
                Ok(body) => body,
                Err(CallError::Fault(Fault::Failed(why))) => return Err(Refused(why)),
                Err(error) => return Err(Unavailable(error.to_string())),
            };
            let next: NodeId = wire::from_cbor(&body).map_err(|fault| Unavailable(fault.to_string()))?;
            let until = Instant::now() + HAND_OVER_DEADLINE;
            let leader = || self.group(id).ok().and_then(|group| group.leader()).map(|(id, _)| id);
            while leader() != Some(next) && Instant::now() < until {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// A member by its name or id, with what it says.
    async fn find(&self, name: &str) -> Result<MemberNow, OperateError> {
        let mut found: Vec<MemberNow> = self.members_now().await;
        found.retain(|member| member.id.to_string() == name || member.info.name.as_str() == name);
        // An id is one node's; a name can be a dead node's and its successor's.
        match (found.pop(), found.pop()) {
            (None, _) => Err(OperateError::Unknown(name.to_owned())),
            (Some(member), None) => Ok(member),
            (Some(one), Some(other)) => Err(Refused(format!(
                "two nodes are called {name}, {} and {}: say which one by its id",
                one.id, other.id
            ))),
        }
    }

    /// Whether the cluster has a quorum without this node.
    async fn may_go(&self, member: &MemberNow) -> Result<(), OperateError> {
        if !member.voter {
            return Ok(());
        }
        let now = self.members_now().await;
        let others: Vec<&MemberNow> = now.iter().filter(|other| other.voter && other.id != member.id).collect();
        if others.is_empty() {
            return Err(Refused(format!("{} is the only voter: take another node in first", member.info)));
        }
        let (live, needed) = (others.iter().filter(|other| other.status.is_some()).count(), others.len() / 2 + 1);
        if live < needed {
            return Err(Refused(format!(
                "without {} there would be {} voters, of which {live} answer and {needed} are needed: start or replace those \
                 that do not answer first",
                member.info,
                others.len(),
            )));
        }
        Ok(())
    }

    async fn tell_drain(&self, member: &MemberNow, drain: Drain) -> Result<(), OperateError> {
        if member.id == self.me() {
            self.set_drain(drain);
            return Ok(());
        }
        let peer = self.peers().peer(member.id, &member.info.peer_addr);
        let told = peer.call(Kind::Drain, wire::cbor(&drain), CALL_DEADLINE).await;
        told.map(drop).map_err(|error| Refused(format!("{} does not answer: {error}", member.info)))
    }

    /// Waits until a node leads nothing and its requests in flight have their rows, for these as long as is reasonable.
    async fn wait_retired(&self, member: &MemberNow) -> Result<(), OperateError> {
        let until = Instant::now() + RETIRE_DEADLINE;
        loop {
            let now = self.members_now().await;
            let Some(status) = now.into_iter().find(|one| one.id == member.id).and_then(|one| one.status) else {
                return Ok(());
            };
            if status.leading.is_empty() && (status.in_flight == 0 || Instant::now() > until) {
                return Ok(());
            }
            if Instant::now() > until {
                let _ = self.tell_drain(member, Drain { drains: false, retires: false }).await;
                return Err(Unavailable(format!(
                    "{} leads, and nobody took that over in time: try again",
                    member.info
                )));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks whoever leads a group, here or elsewhere.
    async fn ask_leader(
        &self,
        group: GroupId,
        kind: Kind,
        body: bytes::Bytes,
        deadline: Duration,
    ) -> Result<bytes::Bytes, CallError> {
        let leader = self.group(group)?.leader();
        let (id, info) = leader.ok_or(Fault::NotLeader(None))?;
        if id != self.me() {
            return self.peers().peer(id, &info.peer_addr).call(kind, body, deadline).await;
        }
        Ok(match kind {
            Kind::Join => self.take_in(self.me(), wire::from_cbor(&body)?).await.map(|()| bytes::Bytes::new())?,
            Kind::Remove => wire::cbor(&self.let_go(&wire::from_cbor(&body)?)?),
            _ => self.hand_over(&wire::from_cbor(&body)?).await.map(|to| wire::cbor(&to))?,
        })
    }
}
