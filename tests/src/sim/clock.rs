//! The nodes' clocks: all read the simulated time, each with its own drift; wall clocks also jump.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use store::simulation::Clocks;
use tokio::runtime::{Handle, Id};

/// 2026-03-02T11:59:30Z: half a minute before the end of an hourly period.
const EPOCH: Duration = Duration::from_secs(1_772_452_770);
/// What nodes' lease clocks show at the start.
const BOOT: Duration = Duration::from_secs(1_000);
/// Parts in a million by which a clock may be fast or slow.
pub const DRIFT_PPM: i64 = 200;

/// A node's clocks.
struct Node {
    ppm: i64,
    wrong_ms: Rc<Cell<i64>>,
}

thread_local! {
    /// By the runtime that the node runs on.
    static NODES: RefCell<HashMap<Id, Node>> = RefCell::default();
    /// For code that runs between two steps, outside of every host.
    static BETWEEN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The clocks, for [`store::simulation::enter`].
pub(super) fn clocks() -> Clocks {
    Clocks { lease_ns, wall }
}

/// The runtime that this is called from has clocks with this drift, and a wall clock that is wrong by so much.
pub(super) fn set_node(ppm: i64, wrong_ms: Rc<Cell<i64>>) {
    NODES.with_borrow_mut(|nodes| nodes.insert(Handle::current().id(), Node { ppm, wrong_ms }));
}

/// Tells the time to code that runs outside of hosts.
pub(super) fn set_between(elapsed: Duration) {
    BETWEEN.set(elapsed);
}

/// True time since the simulation began.
pub(super) fn elapsed() -> Duration {
    turmoil::sim_elapsed().unwrap_or_else(|| BETWEEN.get())
}

/// Drift of the node that runs now, in parts in a million, and by how many milliseconds its wall clock is wrong.
fn node() -> (i64, i64) {
    let find =
        |handle: Handle| NODES.with_borrow(|nodes| nodes.get(&handle.id()).map(|node| (node.ppm, node.wrong_ms.get())));
    Handle::try_current().ok().and_then(find).unwrap_or_default()
}

fn drifted(ppm: i64) -> Duration {
    let true_ns = i64::try_from(elapsed().as_nanos()).unwrap_or(i64::MAX);
    let ns = true_ns + true_ns / 1_000_000 * ppm;
    Duration::from_nanos(ns.unsigned_abs())
}

fn lease_ns() -> u64 {
    u64::try_from((BOOT + drifted(node().0)).as_nanos()).unwrap_or(u64::MAX)
}

fn wall() -> Duration {
    let (ppm, wrong_ms) = node();
    let wrong = Duration::from_millis(wrong_ms.unsigned_abs());
    let right = EPOCH + drifted(ppm);
    if wrong_ms < 0 { right - wrong } else { right + wrong }
}
