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
    group::Group,
    held::Held,
    wire::{self, Answer, Ask, Decision, Verdict, WireDemand},
};
use crate::Unavailable;

/// Demands that may wait for a message; at the bound a request is answered 503.
pub(super) const ASKS_WAITING: usize = 16_384;
/// Demands in one message.
const ASKS_A_MESSAGE: usize = 4_096;
/// A node that holds units says so at least this often, and every node shortly after a new leader began.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// An answer that takes longer is none.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// The leader may ask once for everything; twice only when leaders change in between.
const TRIES: usize = 3;
/// What a refusal for concurrency is worth without asking again. Short, as units come back without notice.
const CROWDED_NS: u64 = 5_000_000;

/// A demand that waits.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) demand: WireDemand,
    pub(super) answer: oneshot::Sender<Result<Told, AskError>>,
}

/// The leader's verdict, and what was taken with it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) verdict: Verdict,
    /// The leader's clock then.
    pub(super) leader_ns: u64,
    pub(super) held: Option<Box<Held>>,
}

#[derive(Debug, Clone)]
pub(super) enum AskError {
    /// Leadership has moved, maybe to this node: look again.
    Moved,
    Unavailable(Unavailable),
}

/// Runs until the group is gone.
pub(super) async fn run(group: Weak<Group>, mut asks: mpsc::Receiver<Asked>) {
    let mut sender = Sender { number: 0, say_all: true };
    loop {
        let mut batch = Vec::new();
        {
            let Some(strong) = group.upgrade() else { return };
            let nudge = strong.nudge.notified();
            tokio::select! {
                count = asks.recv_many(&mut batch, ASKS_A_MESSAGE) => if count == 0 { return },
                () = nudge => {}
                () = tokio::time::sleep(RENEW_EVERY) => {}
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
}

impl Sender {
    async fn send(&mut self, group: &Arc<Group>, mut batch: Vec<Asked>) {
        batch.retain(|asked| !asked.answer.is_closed());
        for _ in 0..TRIES {
            let sent_ns = group.authority.now_ns();
            if group.authority.leading(group.id, sent_ns).is_some() {
                // This node decides itself; and its own units are known to it.
                group.renewed_ns.store(sent_ns, Ordering::Release);
                self.say_all = true;
                return fail(batch, &AskError::Moved);
            }
            let ask = self.message(group, &batch);
            group.counters.asks.add(1);
            group.counters.asked_demands.add(batch.len() as u64);
            let answer = tokio::time::timeout(ASK_TIMEOUT, group.authority.ask(group.id, wire::encode(&ask))).await;
            // Until this has succeeded, nothing is known of what the leader knows.
            let said_all = std::mem::replace(&mut self.say_all, true);
            let answer = match answer {
                Ok(Ok(bytes)) => wire::decode(&bytes),
                Ok(Err(unavailable)) => return fail(batch, &AskError::Unavailable(unavailable)),
                Err(_) => Err(format!("no answer from the leader within {ASK_TIMEOUT:?}")),
            };
            match answer {
                Ok(Answer::Decided { term, now_ns, verdicts }) if verdicts.len() == batch.len() => {
                    self.say_all = false;
                    group.renewed_ns.store(sent_ns, Ordering::Release);
                    return tell(group, batch, verdicts, term, sent_ns, now_ns);
                }
                Ok(Answer::SayAll) if !said_all => {}
                Ok(Answer::NotLeading | Answer::SayAll | Answer::Stale) => return fail(batch, &AskError::Moved),
                Ok(Answer::Unreadable(reason)) | Err(reason) => return fail(batch, &unavailable(reason)),
                Ok(Answer::Decided { .. }) => {
                    return fail(batch, &unavailable("the leader answered another message".into()));
                }
            }
        }
        fail(batch, &AskError::Moved);
    }

    fn message(&mut self, group: &Group, batch: &[Asked]) -> Ask {
        self.number += 1;
        let holder = group.authority.holder();
        Ask {
            group: group.id,
            node: holder.node,
            incarnation: holder.incarnation,
            number: self.number,
            full: self.say_all,
            held: if self.say_all { group.units.all_own() } else { group.units.changes() },
            returned: std::mem::take(&mut *group.returns.lock().expect("no holder panics")),
            demands: batch.iter().map(|asked| asked.demand.clone()).collect(),
        }
    }
}

/// Hands the verdicts out, with what was taken. What nobody waits for any more goes back by itself.
fn tell(group: &Arc<Group>, batch: Vec<Asked>, verdicts: Vec<Verdict>, term: u64, sent_ns: u64, leader_ns: u64) {
    for (asked, verdict) in batch.into_iter().zip(verdicts) {
        for (wanted, level) in asked.demand.rates.iter().zip(&verdict.rates) {
            // As old as the question: a hint must not be later than the truth, which would refuse too long.
            let tat_ns = sent_ns.saturating_add(level.tat_ns.saturating_sub(leader_ns));
            group.hints.learn(wanted, tat_ns, sent_ns);
        }
        let held = match verdict.decision {
            Decision::Granted if !asked.demand.look => {
                let unit = asked.demand.concurrency.map(|_| {
                    let entry = group.units.entry(asked.demand.account);
                    entry.add_own();
                    entry
                });
                let taken = verdict.rates.iter().filter_map(|level| level.taken).collect();
                Some(Box::new(Held::new(group.clone(), unit, term, false, taken)))
            }
            Decision::Concurrency => {
                let mut crowded = group.crowded.lock().expect("no holder panics");
                crowded.retain(|_, until_ns| *until_ns > sent_ns);
                crowded.insert(asked.demand.account, sent_ns + CROWDED_NS);
                None
            }
            _ => None,
        };
        // Dropping what could not be sent gives it back.
        let _ = asked.answer.send(Ok(Told { verdict, leader_ns, held }));
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
