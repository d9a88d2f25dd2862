//! The leader's side of a message: what a node holds, what it returns, what it asks for.

use bytes::Bytes;

use super::{
    authority::Authority,
    bucket::{AnyRefused, NumberMap, Taken},
    group::{Group, Reign, Remote, RemoteNode, Wants},
    wire::{self, Answer, Ask, Decision, RateLevel, Verdict, WireDemand},
};

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
    group
        .with_reign(leadership, |reign| group.with_remote(reign, |remote| act_in(group, reign, remote, ask, now_ns)))
        // A newer reign has begun since.
        .unwrap_or(Answer::NotLeading)
}

fn act_in(group: &Group, reign: &Reign, remote: &mut Remote, ask: &Ask, now_ns: u64) -> Answer {
    let holder = ask.holder();
    match remote.nodes.get(&ask.node) {
        Some(known) if known.incarnation > holder.incarnation => return Answer::Stale,
        Some(known) if known.incarnation == holder.incarnation && known.number >= ask.number => return Answer::Stale,
        Some(known) if known.incarnation == holder.incarnation || ask.full => {}
        None if ask.full => {}
        _ => return Answer::SayAll,
    }
    let node = remote.nodes.entry(ask.node).or_default();
    if node.incarnation != holder.incarnation {
        // The process that held them is gone, and its requests with it.
        group.let_go(node);
        *node = RemoteNode { incarnation: holder.incarnation, ..RemoteNode::default() };
    }
    (node.number, node.heard_ns) = (ask.number, now_ns);
    hold(group, node, ask);
    for returned in ask.returned.iter().filter(|returned| returned.term == reign.term()) {
        reign.buckets.give_back(&returned.unit, now_ns);
    }
    let full = ask.full;
    if full {
        group.heard(reign, remote, ask.node);
    }
    let decide = |demand: &WireDemand| match demand.look {
        true => group.look(reign, &demand.wants(), now_ns),
        false => decide(group, reign, remote, ask, &demand.wants(), now_ns),
    };
    let verdicts = ask.demands.iter().map(decide).collect();
    Answer::Decided { term: reign.term(), now_ns, verdicts }
}

/// Takes over what the node says it holds.
fn hold(group: &Group, node: &mut RemoteNode, ask: &Ask) {
    if ask.full {
        let said: NumberMap<u32> = ask.held.iter().copied().collect();
        for account in node.held.keys().filter(|account| !said.contains_key(account)) {
            group.units.entry(*account).adjust_remote(node.held[account], 0);
        }
        node.held.retain(|account, _| said.contains_key(account));
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

fn decide(group: &Group, reign: &Reign, remote: &mut Remote, ask: &Ask, demand: &Wants, now_ns: u64) -> Verdict {
    let Some(limit) = demand.concurrency else {
        return rates(reign, demand, 0, now_ns);
    };
    let entry = group.units.entry(demand.account);
    if !group.is_settled(reign, now_ns) {
        return reign.refusal(demand, Decision::NotYet, 0, now_ns);
    }
    let mut taken = entry.take_remote(limit);
    if taken.is_err() && group.expire_in(remote, now_ns) {
        taken = entry.take_remote(limit);
    }
    match taken {
        Err(in_use) => reign.refusal(demand, Decision::Concurrency, in_use, now_ns),
        Ok(in_use) => {
            let verdict = rates(reign, demand, in_use, now_ns);
            if verdict.decision == Decision::Granted {
                let node = remote.nodes.get_mut(&ask.node).expect("it was heard with this message");
                *node.held.entry(demand.account).or_default() += 1;
            } else {
                entry.adjust_remote(1, 0);
            }
            verdict
        }
    }
}

fn rates(reign: &Reign, demand: &Wants, in_use: u64, now_ns: u64) -> Verdict {
    match reign.buckets.take_all(demand.rates.iter(), now_ns) {
        Ok(taken) => {
            let level = |unit: &Taken| RateLevel { tat_ns: unit.after_ns, retry_after_ns: None, taken: Some(*unit) };
            Verdict { decision: Decision::Granted, in_use, rates: taken.iter().map(level).collect() }
        }
        Err(AnyRefused) => reign.refusal(demand, Decision::Rate, in_use.saturating_sub(1), now_ns),
    }
}
