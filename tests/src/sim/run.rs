//! Plays a plan.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use store::{
    Readiness, RowQuery, Store, UsageQuery, UsageStep,
    model::{GroupId, Row, Timestamp},
    simulation::{Defect, enter},
    state::State,
};
use turmoil::{Builder, Sim};

use super::{
    chaos::Chaos,
    clock,
    cluster::{Ended, Shared},
    node,
};
use crate::invariants::{Violation, usage_is_the_sum_of_the_rows};

/// After the last fault, the cluster must be whole again within this time.
const RECOVERY: Duration = Duration::from_secs(60);
/// How often leaders are looked at; logs; states.
const ELECTIONS_EVERY: u32 = 10;
const LOGS_EVERY: u32 = 100;
const STATES_EVERY: u32 = 1_000;
/// Newest entries of each log that are looked at each time.
const TAIL: u64 = 200;
const PAGE: usize = 1_000;

/// The first panic, on whichever task.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides everything else.
    pub seed: u64,
    /// Nodes in the end.
    pub nodes: usize,
    /// Nodes that form the cluster; the others join it.
    pub founders: usize,
    /// Ledger groups to begin with.
    pub groups: u32,
    /// Whether more are added, and slots moved to them.
    pub splits: bool,
    /// Simulated time with clients and faults.
    pub length: Duration,
    /// Whether anything goes wrong.
    pub faults: bool,
    /// What the store does wrong.
    pub defect: Option<Defect>,
    /// Prints what happens.
    pub trace: bool,
}

impl Plan {
    /// The plan of a seed: 3 or 5 nodes, some of them joining later.
    pub fn of(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let nodes = if rng.random_ratio(1, 4) { 5 } else { 3 };
        let founders = if rng.random_ratio(1, 2) { nodes } else { 3 };
        // Not drawn, so that all else of a seed stays what it was.
        let groups = if seed.is_multiple_of(4) { 3 } else { 1 };
        let splits = seed.is_multiple_of(2);
        let length = Duration::from_secs(45);
        Self { seed, nodes, founders, groups, splits, length, faults: true, defect: None, trace: false }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The first law that was broken.
    pub violation: Option<Violation>,
    /// Simulated time.
    pub simulated: Duration,
    /// Sum over all that happened: equal for equal runs.
    pub sum: u32,
    /// Faults (`fault: …`) and what clients met, by kind.
    pub counts: BTreeMap<String, u64>,
}

/// Plays a plan in the current directory, which must be empty. Once a process.
pub fn run(plan: Plan) -> Outcome {
    enter(clock::clocks(), plan.defect);
    std::panic::set_hook(Box::new(|panic| {
        let mut first = PANIC.lock().expect("no holder of this lock panics");
        first.get_or_insert_with(|| panic.to_string());
    }));
    let mut rng = SmallRng::seed_from_u64(plan.seed ^ 0x5eed);
    let mut sim = Builder::new()
        .rng_seed(plan.seed)
        .epoch(std::time::UNIX_EPOCH + Duration::from_secs(1_772_452_770))
        .simulation_duration(Duration::from_secs(100_000))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(8))
        .tcp_capacity(4_096)
        .build();
    let names: Vec<String> = ["a", "b", "c", "d", "e"][..plan.nodes].iter().map(ToString::to_string).collect();
    let drifts: Vec<i64> = names.iter().map(|_| rng.random_range(-clock::DRIFT_PPM..=clock::DRIFT_PPM)).collect();
    let shared = Rc::new(Shared::new(plan, names.clone(), &drifts));
    for (at, name) in names.iter().enumerate() {
        let shared = Rc::clone(&shared);
        sim.host(name.as_str(), move || node::main(Rc::clone(&shared), at));
    }
    let mut chaos = Chaos::new(Rc::clone(&shared));
    let violation = play(&mut sim, &shared, &mut chaos).err();
    let outcome =
        Outcome { violation, simulated: sim.elapsed(), sum: shared.sum(), counts: shared.counts.borrow().clone() };
    // What is left need not be taken apart: the process ends.
    std::mem::forget(sim);
    outcome
}

fn play(sim: &mut Sim<'_>, shared: &Rc<Shared>, chaos: &mut Chaos) -> Result<(), Violation> {
    let mut steps = 0;
    while sim.elapsed() < shared.plan.length {
        step(sim, shared, chaos, &mut steps)?;
    }
    chaos.heal(sim);
    shared.load.set(false);
    let until = sim.elapsed() + RECOVERY;
    let mut whole_since = None;
    loop {
        step(sim, shared, chaos, &mut steps)?;
        let now = sim.elapsed();
        match (is_whole(shared), whole_since) {
            (true, None) => whole_since = Some(now),
            (true, Some(since)) if now - since > Duration::from_secs(3) => break,
            (true, Some(_)) => {}
            (false, _) => whole_since = None,
        }
        if now > until {
            return Err(Violation {
                law: "liveness",
                what: format!("{RECOVERY:?} after the last fault: {}", state_of(shared)),
            });
        }
    }
    at_the_end(shared)
}

fn step(sim: &mut Sim<'_>, shared: &Rc<Shared>, chaos: &mut Chaos, steps: &mut u32) -> Result<(), Violation> {
    let panicked = |what: String| Violation { law: "no panic", what };
    sim.step().map_err(|error| panicked(error.to_string()))?;
    if let Some(what) = PANIC.lock().expect("no holder of this lock panics").take() {
        return Err(panicked(what));
    }
    clock::set_between(sim.elapsed());
    *steps += 1;
    if steps.is_multiple_of(ELECTIONS_EVERY) {
        observe(shared, *steps)?;
        refusals(shared)?;
        if let Some(violation) = shared.laws.borrow_mut().violation() {
            return Err(violation);
        }
    }
    chaos.tick(sim);
    Ok(())
}

/// A node that refuses its disk although nothing is wrong with it.
fn refusals(shared: &Shared) -> Result<(), Violation> {
    for slot in shared.slots.borrow().iter() {
        if let Some(Ended::Refused(reason)) = &slot.ended
            && !slot.disk.is_rotten()
        {
            let what = format!("{} refuses to start: {reason}", slot.name);
            return Err(Violation { law: "a node opens what it wrote", what });
        }
    }
    Ok(())
}

fn observe(shared: &Shared, steps: u32) -> Result<(), Violation> {
    for (at, store) in shared.running() {
        let name = shared.slots.borrow()[at].name.clone();
        for view in store.group_views() {
            let mut laws = shared.laws.borrow_mut();
            if view.is_leader {
                laws.elections.leads(view.group, view.term, store.node_id())?;
            }
            if let (Some(last), true) = (view.last, steps.is_multiple_of(LOGS_EVERY)) {
                let from = view.first.max(last.saturating_sub(TAIL));
                if let Ok(entries) = store.log_entries(view.group, from, last + 1) {
                    laws.logs.seen(&name, view.group, &entries, view.committed)?;
                }
            }
            if let (Some(applied), true) = (view.applied, steps.is_multiple_of(STATES_EVERY)) {
                digest(&mut laws, &name, &store, view.group, applied.index)?;
            }
        }
    }
    Ok(())
}

fn digest(
    laws: &mut crate::invariants::Laws,
    name: &str,
    store: &Store,
    group: GroupId,
    index: u64,
) -> Result<(), Violation> {
    match store.group_state(group).map(|state| state.digest()) {
        Some(Ok(digest)) => laws.states.seen(name, group, index, digest),
        // Its disk has just failed.
        _ => Ok(()),
    }
}

/// Whether every node serves and has what the others have.
fn is_whole(shared: &Shared) -> bool {
    let running = shared.running();
    if running.len() < shared.plan.nodes || running.iter().any(|(_, store)| store.readiness() != Readiness::Ready) {
        return false;
    }
    let applied = |store: &Store| -> Vec<_> { store.group_views().iter().map(|view| view.applied).collect() };
    let first = applied(&running[0].1);
    running.iter().all(|(_, store)| applied(store) == first)
        && running.iter().all(|(_, store)| {
            store.group_views().iter().all(|view| view.applied.map_or(0, |id| id.index) >= view.last.unwrap_or(0))
        })
}

fn state_of(shared: &Shared) -> String {
    let slots = shared.slots.borrow();
    let texts: Vec<String> = slots
        .iter()
        .map(|slot| match &slot.store {
            Some(store) => {
                let views: Vec<String> = store
                    .group_views()
                    .iter()
                    .map(|v| format!("{}: term {} last {:?} applied {:?}", v.group, v.term, v.last, v.applied))
                    .collect();
                format!("{}: {:?} ({})", slot.name, store.readiness(), views.join(", "))
            }
            None => format!("{}: down ({:?})", slot.name, slot.ended),
        })
        .collect();
    texts.join("; ")
}

fn at_the_end(shared: &Shared) -> Result<(), Violation> {
    let running = shared.running();
    for (at, store) in &running {
        let name = shared.slots.borrow()[*at].name.clone();
        for view in store.group_views() {
            let mut laws = shared.laws.borrow_mut();
            let index = view.applied.map_or(0, |id| id.index);
            digest(&mut laws, &name, store, view.group, index)?;
        }
        let rows = all_rows(store).map_err(|what| Violation { law: "rows can be read", what })?;
        shared.laws.borrow().rows.check(&name, &rows)?;
        let mut usage = BTreeMap::new();
        let accounts: std::collections::BTreeSet<_> = rows.iter().map(|row| row.account.clone()).collect();
        for account in accounts {
            let (since, until) = (Timestamp(0), Timestamp(Timestamp::now().0 + 86_400_000_000));
            let query = UsageQuery { account: account.clone(), since, until, step: UsageStep::Day, by: None };
            let mut points = Vec::new();
            for state in ledgers(store) {
                let of_group = state.usage(&query);
                points
                    .extend(of_group.map_err(|error| Violation { law: "usage can be read", what: error.to_string() })?);
            }
            usage.insert(account.to_string(), points);
        }
        usage_is_the_sum_of_the_rows(&name, &rows, &usage)?;
    }
    shared.laws.borrow().reads.check()
}

/// The states of all ledger groups.
fn ledgers(store: &Store) -> Vec<Arc<State>> {
    let ids = store.group_views().into_iter().map(|view| view.group).filter(|group| *group != GroupId::META);
    ids.filter_map(|group| store.group_state(group)).collect()
}

fn all_rows(store: &Store) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for state in ledgers(store) {
        rows.extend(rows_of(&state)?);
    }
    Ok(rows)
}

fn rows_of(state: &State) -> Result<Vec<Row>, String> {
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let query = RowQuery { limit: PAGE, cursor, ..RowQuery::default() };
        let page = state.rows(&query).map_err(|error| error.to_string())?;
        rows.extend(page.rows);
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(rows),
        }
    }
}
