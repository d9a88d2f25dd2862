//! The leader's side of a message: what a node holds, what it has spent, what it asks for.

use bytes::Bytes;

use super::{
    authority::Authority,
    bucket::{NumberMap, Short},
    group::{Group, Remote, RemoteNode, Wants},
    lend::{self, Lending},
    reign::Reign,
    wire::{self, Answer, Ask, Decided, Decision, RateLevel, Verdict},
};

/// An account with a smaller concurrency has no unit kept idle on any node.
const KEEP_FROM: u64 = 16;
/// At most this part of a concurrency is idle on all nodes together.
const IDLE_PART: u64 = 4;

/// Acts on a message and answers it. `group` finds the group that it names.
pub(super) fn answer(
    body: &Bytes,
    authority: &dyn Authority,
    group: impl FnOnce(&Ask) -> std::sync::Arc<Group>,
) -> Bytes {
    let answer = match wire::decode::<Ask>(body) {
        Ok(ask) => act(&group(&ask), authority, &ask),
        Err(reason) => Answer::Unreadable(reason),
    };
    wire::encode(&answer)
}

fn act(group: &Group, authority: &dyn Authority, ask: &Ask) -> Answer {
    let now_ns = authority.now_ns();
    let Some(leadership) = authority.leading(group.id, now_ns) else { return Answer::NotLeading };
    if ask.node == authority.holder().node {
        return Answer::NotLeading;
    }
    let reign = group.reign(leadership);
    group
        .with_remote(reign, |remote| act_in(group, reign, remote, ask, now_ns))
        // A newer reign has begun since.
        .unwrap_or(Answer::NotLeading)
}

fn act_in(group: &Group, reign: Reign<'_>, remote: &mut Remote, ask: &Ask, now_ns: u64) -> Answer {
    let holder = ask.holder();
    match remote.nodes.get(&ask.node) {
        Some(known) if known.incarnation > holder.incarnation => return Answer::Stale,
        Some(known) if known.incarnation == holder.incarnation && known.number >= ask.number => return Answer::Stale,
        Some(known) if ask.full || (known.incarnation == holder.incarnation && !known.lapsed) => {}
        None if ask.full => {}
        _ => return Answer::SayAll,
    }
    let node = remote.nodes.entry(ask.node).or_default();
    if node.incarnation != holder.incarnation {
        // The process that held them is gone, and its requests with it.
        group.let_go(node);
        lend::forfeit(reign, node, now_ns);
        *node = RemoteNode { incarnation: holder.incarnation, ..RemoteNode::default() };
    }
    (node.number, node.heard_ns, node.lapsed) = (ask.number, now_ns, false);
    hold(group, node, ask);
    lend::hear(reign, remote, ask.node, &ask.reports, ask.full, now_ns);
    if ask.full {
        group.heard(reign, remote, ask.node);
    }
    let mut round = Round { group, reign, remote, ask, now_ns, lending: Lending::default() };
    let verdicts = ask.demands.iter().map(|demand| match demand.look {
        true => group.look(reign, &demand.wants(), now_ns),
        false => round.decide(demand.wants()),
    });
    let verdicts = verdicts.collect();
    round.lend_ahead();
    let Lending { all: mut lent, .. } = std::mem::take(&mut round.lending);
    for one in &mut lent {
        one.prompt = reign.buckets.is_tight(one.name, now_ns);
    }
    let keep = round.keep();
    Answer::Decided(Decided { term: reign.term(), now_ns, verdicts, lent, keep })
}

/// Takes over what the node says it holds.
fn hold(group: &Group, node: &mut RemoteNode, ask: &Ask) {
    if ask.full {
        let said: NumberMap<u32> = ask.held.iter().copied().collect();
        for account in node.held.keys().filter(|account| !said.contains_key(account)) {
            group.units.entry(*account).adjust_remote(node.held[account], 0);
        }
        node.held.retain(|account, _| said.contains_key(account));
        node.keeps.clear();
    }
    for (account, count) in &ask.held {
        let before = node.held.get(account).copied().unwrap_or(0);
        group.units.entry(*account).adjust_remote(before, *count);
        if *count == 0 {
            node.held.remove(account);
        } else {
            node.held.insert(*account, *count);
        }
    }
}

/// One message's demands.
struct Round<'a> {
    group: &'a Group,
    reign: Reign<'a>,
    remote: &'a mut Remote,
    ask: &'a Ask,
    now_ns: u64,
    lending: Lending,
}

impl Round<'_> {
    fn decide(&mut self, mut demand: Wants) -> Verdict {
        let (group, reign, now_ns) = (self.group, self.reign, self.now_ns);
        let Some(since_ns) = group.authority.decides(group.id, demand.slot) else {
            return reign.refusal(&demand, Decision::NotYet, 0, now_ns);
        };
        demand.begin_at(since_ns);
        let demand = &demand;
        let not_yet = !demand.rates.is_empty() && !reign.is_open(now_ns);
        if not_yet || (demand.concurrency.is_some() && !reign.is_settled(now_ns)) {
            return reign.refusal(demand, Decision::NotYet, 0, now_ns);
        }
        let Some(limit) = demand.concurrency else { return self.rates(demand, 0) };
        let entry = group.units.entry(demand.account);
        let mut taken = entry.take_remote(limit);
        if taken.is_err() && group.expire_in(self.remote, now_ns) {
            taken = entry.take_remote(limit);
        }
        match taken {
            Err(in_use) => reign.refusal(demand, Decision::Concurrency, in_use, now_ns),
            Ok(in_use) => {
                let verdict = self.rates(demand, in_use);
                if verdict.decision == Decision::Granted {
                    let node = self.remote.nodes.get_mut(&self.ask.node).expect("it was heard with this message");
                    *node.held.entry(demand.account).or_default() += 1;
                    node.keeps.insert(demand.account, limit);
                } else {
                    entry.adjust_remote(1, 0);
                }
                verdict
            }
        }
    }

    fn rates(&mut self, demand: &Wants, in_use: u64) -> Verdict {
        let now_ns = self.now_ns;
        match self.reign.buckets.lend_all(demand.rates.iter(), now_ns) {
            Ok(levels) => {
                for wanted in demand.rates.iter() {
                    lend::lend(self.reign, self.remote, self.ask.node, wanted, 1, &mut self.lending, now_ns);
                }
                self.group.raise_debts(self.reign, &demand.rates, now_ns, false);
                let level = |tat_ns: &u64| RateLevel { tat_ns: *tat_ns, ..RateLevel::default() };
                Verdict { decision: Decision::Granted, in_use, rates: levels.iter().map(level).collect() }
            }
            Err(Short::Refused) if self.reign.refills(demand, now_ns) => {
                self.reign.refusal(demand, Decision::NotYet, in_use.saturating_sub(1), now_ns)
            }
            Err(Short::Refused) => self.reign.refusal(demand, Decision::Rate, in_use.saturating_sub(1), now_ns),
            Err(Short::Bound) => {
                self.group.raise_debts(self.reign, &demand.rates, now_ns, true);
                self.reign.refusal(demand, Decision::NotYet, in_use.saturating_sub(1), now_ns)
            }
        }
    }

    fn lend_ahead(&mut self) {
        if !self.reign.is_open(self.now_ns) {
            return;
        }
        // A wish says not which slot it is of. Where slots move, a bucket that no decision has made may have been another group's
        // a moment ago: only the decision knows since when it is this one's.
        let have_moved = self.group.authority.decides(self.group.id, None).is_none();
        for wish in &self.ask.ahead {
            if have_moved && !self.reign.buckets.knows(wish.wanted.name) {
                continue;
            }
            let units = self.reign.buckets.lend_ahead(&wish.wanted, wish.units, self.now_ns);
            if units > 0 {
                lend::lend(self.reign, self.remote, self.ask.node, &wish.wanted, units, &mut self.lending, self.now_ns);
            }
        }
    }

    /// How many concurrency units of each account the node may keep idle. None of those that are tight: idle units of one
    /// node are refusals on another.
    fn keep(&mut self) -> Vec<(u64, u32)> {
        let nodes = self.remote.nodes.len() as u64;
        let Some(node) = self.remote.nodes.get_mut(&self.ask.node) else { return Vec::new() };
        let held = &node.held;
        node.keeps.retain(|account, _| held.contains_key(account));
        let keep = |(account, limit): (&u64, &u32)| {
            let (in_use, limit) = (self.group.units.entry(*account).in_use(), u64::from(*limit));
            let tight = limit < KEEP_FROM || in_use.saturating_mul(4) > limit.saturating_mul(3);
            let most = if tight { 0 } else { limit / (IDLE_PART * nodes.max(1)) };
            (*account, u32::try_from(most).unwrap_or(u32::MAX))
        };
        node.keeps.iter().map(keep).collect()
    }
}
