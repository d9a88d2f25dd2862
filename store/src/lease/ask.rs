//! The asking side: one message at a time to a group's leader, with everything that waits.
//!
//! One at a time, so that what this node says it holds is never overtaken by what it has just been granted: a unit that
//! the leader counts is one that the node said it holds or that was granted in answer to its last message. A message that
//! may be lost costs nothing: the next one says everything anew.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    bucket::{NumberMap, Wanted},
    group::Group,
    held::{Held, Promises},
    purse::Promise,
    wire::{self, Answer, Ask, Decided, Decision, Verdict, WireDemand},
};
use crate::model::Unavailable;

/// Demands that may wait for a message; at the bound a request is answered 503.
pub(super) const ASKS_WAITING: usize = 16_384;
/// Demands in one message.
const ASKS_A_MESSAGE: usize = 4_096;
/// A node that holds units says so at least this often, and every node shortly after a new leader began.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// A node that holds rate units looks this often whether some should go back or be renewed.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// What nobody waits for is said together with what comes within this.
const LINGER: Duration = Duration::from_millis(1);
/// An answer that takes longer is none. Units lent with it would have ended.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// The leader may ask once for everything; twice only when leaders change in between.
const TRIES: usize = 3;
/// What a refusal for concurrency is worth without asking again. Short, as units come back without notice.
const CROWDED_NS: u64 = 5_000_000;

/// A demand that waits.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) demand: WireDemand,
    /// Takes over the concurrency unit; none for a look.
    pub(super) held: Option<Held>,
    pub(super) answer: oneshot::Sender<Result<Told, AskError>>,
}

/// The leader's verdict, and what was granted with it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) verdict: Verdict,
    /// The leader's clock then.
    pub(super) leader_ns: u64,
    pub(super) held: Option<Held>,
    pub(super) promises: Option<Promises>,
}

#[derive(Debug, Clone)]
pub(super) enum AskError {
    /// Leadership has moved, maybe to this node: look again.
    Moved,
    Unavailable(Unavailable),
}

/// Runs until the group is gone.
pub(super) async fn run(group: Weak<Group>, mut asks: mpsc::Receiver<Asked>) {
    let mut sender = Sender { number: 0, say_all: true, term: 0, swept_ns: 0 };
    loop {
        let mut batch = Vec::new();
        {
            let Some(strong) = group.upgrade() else { return };
            let nudge = strong.nudge.notified();
            let pause = if strong.purses.any() { SWEEP_EVERY } else { RENEW_EVERY };
            tokio::select! {
                count = asks.recv_many(&mut batch, ASKS_A_MESSAGE) => if count == 0 { return },
                () = nudge => {
                    if let Ok(0) = tokio::time::timeout(LINGER, asks.recv_many(&mut batch, ASKS_A_MESSAGE)).await {
                        return;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
        let Some(strong) = group.upgrade() else { return };
        sender.send(&strong, batch).await;
    }
}

struct Sender {
    number: u64,
    /// The leader may not know what this node holds.
    say_all: bool,
    /// Of the leader that answered last.
    term: u64,
    /// When all purses were last looked at.
    swept_ns: u64,
}

impl Sender {
    async fn send(&mut self, group: &Arc<Group>, mut batch: Vec<Asked>) {
        batch.retain(|asked| !asked.answer.is_closed());
        for _ in 0..TRIES {
            let sent_ns = group.authority.now_ns();
            if let Some(leadership) = group.authority.leading(group.id, sent_ns) {
                // This node decides itself; and its own units are known to it.
                group.reign(leadership);
                group.renewed_ns.store(sent_ns, Ordering::Release);
                self.say_all = true;
                return fail(batch, &AskError::Moved);
            }
            group.note_lapse(sent_ns);
            let ask = self.message(group, &batch, sent_ns);
            group.counters.asks.add(1);
            group.counters.asked_demands.add(batch.len() as u64);
            let answer = tokio::time::timeout(ASK_TIMEOUT, group.authority.ask(group.id, wire::encode(&ask))).await;
            // Until this has succeeded, nothing is known of what the leader knows.
            let said_all = std::mem::replace(&mut self.say_all, true);
            let answer = match answer {
                Ok(Ok(bytes)) => wire::decode(&bytes),
                Ok(Err(unavailable)) => Ok(Answer::Unreadable(unavailable.reason)),
                Err(_) => Err(format!("no answer from the leader within {ASK_TIMEOUT:?}")),
            };
            match answer {
                Ok(Answer::Decided(decided)) if decided.verdicts.len() == batch.len() => {
                    // A leader that did not know what is reported was told of all of it in a message before.
                    self.say_all = false;
                    self.term = decided.term;
                    group.renewed_ns.fetch_max(sent_ns, Ordering::AcqRel);
                    return tell(group, batch, &ask, &decided, sent_ns);
                }
                answer => {
                    group.purses.not_ahead(&ask.ahead);
                    match answer {
                        Ok(Answer::SayAll) if !said_all => {}
                        Ok(Answer::NotLeading | Answer::SayAll | Answer::Stale) => {
                            return fail(batch, &AskError::Moved);
                        }
                        Ok(Answer::Unreadable(reason)) | Err(reason) => return fail(batch, &unavailable(reason)),
                        Ok(Answer::Decided(_)) => {
                            return fail(batch, &unavailable("the leader answered another message".into()));
                        }
                    }
                }
            }
        }
        fail(batch, &AskError::Moved);
    }

    fn message(&mut self, group: &Group, batch: &[Asked], now_ns: u64) -> Ask {
        self.number += 1;
        let holder = group.authority.holder();
        let sweep = now_ns.saturating_sub(self.swept_ns) >= SWEEP_EVERY.as_nanos() as u64;
        if sweep {
            self.swept_ns = now_ns;
        }
        Ask {
            group: group.id,
            node: holder.node,
            incarnation: holder.incarnation,
            number: self.number,
            full: self.say_all,
            held: if self.say_all { group.units.all_held() } else { group.units.changes() },
            demands: batch.iter().map(|asked| asked.demand.clone()).collect(),
            reports: group.purses.reports(self.term, self.say_all, sweep, now_ns),
            ahead: group.purses.ahead(now_ns),
        }
    }
}

/// Hands the verdicts out, with what was granted. What nobody waits for any more goes back by itself.
fn tell(group: &Arc<Group>, batch: Vec<Asked>, ask: &Ask, decided: &Decided, sent_ns: u64) {
    let Decided { term, now_ns: leader_ns, verdicts, lent, keep } = decided;
    let now_ns = group.authority.now_ns();
    group.purses.reported(&ask.reports, *term, sent_ns, *leader_ns);
    let granted = |asked: &Asked, verdict: &Verdict| verdict.decision == Decision::Granted && !asked.demand.look;
    let mut promised: NumberMap<u64> = lent.iter().map(|one| (one.name, 0)).collect();
    let waiting = batch.iter().zip(verdicts).filter(|(asked, verdict)| granted(asked, verdict));
    for wanted in waiting.flat_map(|(asked, _)| &asked.demand.rates) {
        *promised.entry(wanted.name).or_default() += 1;
    }
    for one in lent {
        group.purses.lent(one, promised[&one.name], *term, sent_ns, *leader_ns);
    }
    let leases: NumberMap<(u64, u64)> = lent.iter().map(|one| (one.name, (one.lease, one.revision))).collect();
    for (asked, verdict) in batch.into_iter().zip(verdicts) {
        // A new leader that does not decide yet has not refused: what it would have to give then says nothing of now. Nor does
        // a look, which does not tell the two apart.
        if verdict.decision != Decision::NotYet && !asked.demand.look {
            for (wanted, level) in asked.demand.rates.iter().zip(&verdict.rates) {
                group.purses.learn(wanted, level, *leader_ns, sent_ns, now_ns);
            }
        }
        let (mut held, mut promises) = (None, None);
        if granted(&asked, verdict) {
            held = asked.held.map(|mut held| {
                if asked.demand.concurrency.is_some() {
                    held.handle.units.add_own();
                    held.handle.units.learn(verdict.in_use);
                    held.unit.hold(true, group.lapses());
                }
                held
            });
            let of = |wanted: &Wanted| {
                let (lease, revision) = *leases.get(&wanted.name)?;
                Some(Promise { name: wanted.name, lease, revision })
            };
            let all = asked.demand.rates.iter().filter_map(of).collect();
            promises = Some(Promises { group: group.clone(), all });
        } else if verdict.decision == Decision::Concurrency && !asked.demand.look {
            let mut crowded = group.crowded.lock().expect("no holder panics");
            crowded.retain(|_, until_ns| *until_ns > now_ns);
            crowded.insert(asked.demand.account, now_ns + CROWDED_NS);
        }
        let told = Told { verdict: verdict.clone(), leader_ns: *leader_ns, held, promises };
        // Dropping what could not be sent gives it back.
        let _ = asked.answer.send(Ok(told));
    }
    for (account, most) in keep {
        if let Some(entry) = group.units.look(*account)
            && group.units.keep(&entry, *most)
        {
            group.nudge.notify_one();
        }
    }
}

fn fail(batch: Vec<Asked>, error: &AskError) {
    for asked in batch {
        let _ = asked.answer.send(Err(error.clone()));
    }
}

fn unavailable(reason: String) -> AskError {
    AskError::Unavailable(Unavailable { reason, retry_after: Duration::from_secs(1) })
}
