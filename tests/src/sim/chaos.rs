//! What goes wrong, when: crashes, power cuts, cut and slow links, failing, full, slow and rotten disks, lost disks, restarts.
//! Meanwhile an operator changes the cluster (`operator.rs`).

use std::{rc::Rc, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use store::simulation::break_connections;
use turmoil::Sim;

use super::{
    cluster::{Ended, Shared},
    disk::Fault,
    operator::Operator,
};

/// Mean pause between two faults.
const PAUSE: Duration = Duration::from_millis(900);
/// A node that ended is restarted after this long at the most.
const LONGEST_AWAY: u64 = 5_000;
/// Latency of a healthy link at the most.
const LATENCY: Duration = Duration::from_millis(8);

/// A wall clock that is set is wrong by so much at the most.
const WALL_STEP_MS: i64 = 60_000;

/// Something that ends by itself later.
#[derive(Clone, Copy)]
enum Later {
    Start(usize),
    Heal(usize, usize),
    Release(usize, usize),
    Fast(usize),
    Latency,
}

pub(super) struct Chaos {
    shared: Rc<Shared>,
    rng: SmallRng,
    next: Duration,
    later: Vec<(Duration, Later)>,
    /// Down now.
    down: Vec<bool>,
    cut: Vec<(usize, usize)>,
    /// The last disk that was taken away: one at a time, and none while its successor catches up.
    lost_disk: Option<usize>,
    operator: Operator,
}

impl Chaos {
    pub(super) fn new(shared: Rc<Shared>) -> Self {
        let rng = SmallRng::seed_from_u64(shared.plan.seed ^ 0xc4a0_5000);
        let nodes = shared.plan.nodes;
        let operator = Operator::new(&shared);
        Self {
            shared,
            rng,
            next: Duration::from_secs(3),
            later: Vec::new(),
            down: vec![false; nodes],
            cut: Vec::new(),
            lost_disk: None,
            operator,
        }
    }

    fn name(&self, node: usize) -> String {
        self.shared.slots.borrow()[node].name.clone()
    }

    fn in_ms(&mut self, from: u64, to: u64) -> Duration {
        self.shared.elapsed() + Duration::from_millis(self.rng.random_range(from..to))
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, sim: &mut Sim<'_>) {
        let now = self.shared.elapsed();
        self.restart_ended(sim);
        while let Some(at) = self.later.iter().position(|(due, _)| *due <= now) {
            let (_, later) = self.later.remove(at);
            self.end(sim, later);
        }
        if now >= self.next && self.shared.plan.faults && self.shared.is_set_up.get() {
            // Exponential: bursts and lulls.
            let wait = -PAUSE.as_secs_f64() * (1.0 - self.rng.random::<f64>()).ln();
            self.next = now + Duration::from_secs_f64(wait);
            self.strike(sim);
        }
        let fit = self.operator.wants(now) && self.next != Duration::MAX && self.may_lose_a_disk();
        if let Some(node) = self.operator.tick(&self.shared, &self.down, fit) {
            // Removed: it comes back with an empty disk.
            self.crash(sim, node, false);
            self.replace_disk(node);
        }
    }

    /// Processes that ended by themselves are started again, some time later.
    fn restart_ended(&mut self, sim: &mut Sim<'_>) {
        for node in 0..self.down.len() {
            if self.down[node] {
                continue;
            }
            let Some(ended) = self.shared.slots.borrow()[node].ended.clone() else { continue };
            match ended {
                Ended::Failed(_) => self.crash(sim, node, true),
                Ended::Stopped => self.crash(sim, node, false),
                Ended::Refused(_) => {
                    self.crash(sim, node, false);
                    if self.lost_disk == Some(node) {
                        self.replace_disk(node);
                    }
                }
            }
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, node: usize, power: bool) {
        let name = self.name(node);
        sim.crash(name.as_str());
        {
            let mut slots = self.shared.slots.borrow_mut();
            let slot = &mut slots[node];
            (slot.store, slot.ended) = (None, None);
            if power { slot.disk.power_loss() } else { slot.disk.kill() }
        }
        self.shared.laws.borrow_mut().concurrency.crashed(node);
        self.down[node] = true;
        if self.shared.operating.get() == Some(node) {
            self.shared.operating.set(None);
        }
        let at = self.in_ms(100, LONGEST_AWAY);
        self.later.push((at, Later::Start(node)));
        self.shared.note(&format!("{name} is down (power {power})"));
    }

    fn replace_disk(&mut self, node: usize) {
        let name = self.name(node);
        self.shared.slots.borrow()[node].disk.replace();
        let _ = std::fs::remove_dir_all(&name);
        self.shared.note(&format!("{name} gets a new disk"));
    }

    fn end(&mut self, sim: &mut Sim<'_>, later: Later) {
        match later {
            Later::Start(node) => {
                let name = self.name(node);
                // What peers had with its predecessor is reset by the new process's kernel.
                for other in 0..self.down.len() {
                    if other != node {
                        break_connections(sim.lookup(name.as_str()), sim.lookup(self.name(other).as_str()));
                    }
                }
                sim.bounce(name.as_str());
                self.down[node] = false;
            }
            Later::Heal(a, b) => {
                let (a_name, b_name) = (self.name(a), self.name(b));
                sim.repair(a_name.as_str(), b_name.as_str());
                self.cut.retain(|cut| *cut != (a, b));
                // What was lost on the way is never sent again here: the connections end.
                break_connections(sim.lookup(a_name.as_str()), sim.lookup(b_name.as_str()));
                self.shared.note(&format!("{a_name} and {b_name} reach each other"));
            }
            Later::Release(a, b) => {
                sim.release(self.name(a).as_str(), self.name(b).as_str());
                self.cut.retain(|cut| *cut != (a, b));
            }
            Later::Fast(node) => self.shared.slots.borrow()[node].disk.slow_down(Duration::ZERO),
            Later::Latency => sim.set_max_message_latency(LATENCY),
        }
    }

    /// The nodes of a pair in order, unless something is wrong between them already.
    fn pair(&self, a: usize, b: usize) -> Option<(usize, usize)> {
        let pair = (a.min(b), a.max(b));
        (a != b && !self.cut.contains(&pair)).then_some(pair)
    }

    /// Any node, or the ledger's leader, with whom more can go wrong.
    fn target(&mut self) -> usize {
        let any = self.rng.random_range(0..self.down.len());
        if self.rng.random_bool(0.5) {
            return any;
        }
        let leads = |store: &store::Store| {
            store.group_views().iter().any(|view| view.group == store::model::GroupId::LEDGER && view.is_leader)
        };
        self.shared.running().iter().find(|(_, store)| leads(store)).map_or(any, |(at, _)| *at)
    }

    fn strike(&mut self, sim: &mut Sim<'_>) {
        let nodes = self.down.len();
        let node = self.target();
        let other = self.rng.random_range(0..nodes);
        let is_up = !self.down[node] && self.shared.slots.borrow()[node].store.is_some();
        let what = match self.rng.random_range(0..100) {
            0..20 if is_up => {
                self.crash(sim, node, true);
                "power cuts"
            }
            20..30 if is_up => {
                self.crash(sim, node, false);
                "kills"
            }
            30..33 => {
                for node in 0..nodes {
                    if !self.down[node] {
                        self.crash(sim, node, true);
                    }
                }
                "power cuts of all nodes"
            }
            33..43 => {
                // A node is cut off from all.
                let mut cut = false;
                let until = self.in_ms(300, 6_000);
                for other in 0..nodes {
                    if let Some((a, b)) = self.pair(node, other) {
                        sim.partition(self.name(a).as_str(), self.name(b).as_str());
                        self.cut.push((a, b));
                        self.later.push((until, Later::Heal(a, b)));
                        cut = true;
                    }
                }
                if !cut {
                    return;
                }
                self.shared.note(&format!("{} is cut off", self.name(node)));
                "nodes cut off"
            }
            43..50 => {
                let Some((a, b)) = self.pair(node, other) else { return };
                sim.partition(self.name(a).as_str(), self.name(b).as_str());
                self.cut.push((a, b));
                let until = self.in_ms(300, 6_000);
                self.later.push((until, Later::Heal(a, b)));
                self.shared.note(&format!("{} and {} are cut apart", self.name(a), self.name(b)));
                "links cut"
            }
            50..60 => {
                // One way: what `node` sends does not arrive, or what is sent to it.
                let outward = self.rng.random_bool(0.5);
                let until = self.in_ms(300, 6_000);
                let mut cut = false;
                for other in 0..nodes {
                    if let Some((a, b)) = self.pair(node, other) {
                        let (from, to) = if outward { (node, other) } else { (other, node) };
                        sim.partition_oneway(self.name(from).as_str(), self.name(to).as_str());
                        self.cut.push((a, b));
                        self.later.push((until, Later::Heal(a, b)));
                        cut = true;
                    }
                }
                if !cut {
                    return;
                }
                self.shared.note(&format!("{} is cut off one way (outward {outward})", self.name(node)));
                "nodes cut off one way"
            }
            60..66 => {
                let Some((a, b)) = self.pair(node, other) else { return };
                sim.hold(self.name(a).as_str(), self.name(b).as_str());
                self.cut.push((a, b));
                let until = self.in_ms(100, 2_500);
                self.later.push((until, Later::Release(a, b)));
                "links stalled"
            }
            66..69 => {
                for other in 0..nodes {
                    if other != node {
                        break_connections(sim.lookup(self.name(node).as_str()), sim.lookup(self.name(other).as_str()));
                    }
                }
                self.shared.note(&format!("{}'s connections are reset", self.name(node)));
                "connections reset"
            }
            69..72 => {
                let most = self.rng.random_range(20..250);
                sim.set_max_message_latency(Duration::from_millis(most));
                let until = self.in_ms(500, 4_000);
                self.later.push((until, Later::Latency));
                "slow networks"
            }
            72..75 => {
                let by = self.rng.random_range(-WALL_STEP_MS..=WALL_STEP_MS);
                self.shared.slots.borrow()[node].wrong_ms.set(by);
                self.shared.note(&format!("{}'s wall clock is wrong by {by} ms", self.name(node)));
                "wall clocks set"
            }
            75..80 => {
                let by = Duration::from_millis(self.rng.random_range(20..400));
                self.shared.slots.borrow()[node].disk.slow_down(by);
                let until = self.in_ms(500, 4_000);
                self.later.push((until, Later::Fast(node)));
                "slow disks"
            }
            80..90 if is_up => {
                let (fault, what) = match self.rng.random_range(0..3) {
                    0 => (Fault::FailedFlush, "failed flushes"),
                    1 => (Fault::FailedWrites, "failed writes"),
                    _ => (Fault::Full, "full disks"),
                };
                self.shared.slots.borrow()[node].disk.inject(fault);
                self.shared.note(&format!("{}: {fault:?}", self.name(node)));
                what
            }
            90..95 if is_up => {
                self.shared.slots.borrow_mut()[node].stop = true;
                "restarts in good order"
            }
            95..100 if is_up && !self.operator.removes() && self.may_lose_a_disk() => {
                self.lost_disk = Some(node);
                self.crash(sim, node, true);
                if self.rng.random_bool(0.5) {
                    self.replace_disk(node);
                    "lost disks"
                } else if self.shared.slots.borrow()[node].disk.rot() {
                    "rotten pages"
                } else {
                    return;
                }
            }
            _ => return,
        };
        self.shared.count(&format!("fault: {what}"));
    }

    /// Whether all is well enough for a node to lose what it has.
    fn may_lose_a_disk(&self) -> bool {
        let running = self.shared.running();
        self.cut.is_empty()
            && running.len() == self.down.len()
            && running.iter().all(|(_, store)| store.readiness() == store::Readiness::Ready)
            && running.iter().all(|(_, store)| {
                let votes = store.votes();
                votes.len() == self.down.len() && votes.iter().all(|votes| *votes)
            })
    }

    /// Ends all that is wrong.
    pub(super) fn heal(&mut self, sim: &mut Sim<'_>) {
        for (_, later) in std::mem::take(&mut self.later) {
            self.end(sim, later);
        }
        self.next = Duration::MAX;
        self.shared.note("all is healed");
    }
}
