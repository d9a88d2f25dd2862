//! A node's process in the simulation: it opens its store, serves clients, and ends when its disk fails.

use std::{future::pending, net::SocketAddr, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use store::{Settings, Store, model::NodeInfo};

use super::{
    client, clock,
    cluster::{Ended, Order, Shared},
};

const PORT: u16 = 7000;

fn addr(name: &str) -> String {
    format!("{name}:{PORT}")
}

/// Runs until the host is crashed.
pub(super) async fn main(shared: Rc<Shared>, at: usize) -> turmoil::Result {
    let (name, disk, life) = {
        let mut slots = shared.slots.borrow_mut();
        let slot = &mut slots[at];
        slot.life += 1;
        (slot.store, slot.ended, slot.stop, slot.order) = (None, None, false, None);
        clock::set_node(slot.drift_ppm, Rc::clone(&slot.wrong_ms));
        (slot.name.clone(), slot.disk.clone(), slot.life)
    };
    let founders = shared.plan.founders;
    let mut join: Vec<String> = shared.slots.borrow()[..founders].iter().map(|slot| addr(&slot.name)).collect();
    if at >= founders {
        join.push(addr(&name));
    }
    let settings = Settings {
        data_dir: PathBuf::from(&name),
        node: NodeInfo { name: name.as_str().into(), peer_addr: addr(&name), ..NodeInfo::default() },
        peer_listen: SocketAddr::from(([0, 0, 0, 0], PORT)),
        peer_tls: None,
        join,
        voters: shared.plan.nodes,
        ledger_groups: shared.plan.groups,
        commit_deadline: Duration::from_secs(2),
        max_waiting_rows: 4_096,
        log_retention_days: 30,
        first_token: None,
    };
    let store = match Store::open_on(settings, Arc::new(disk.clone()), Arc::new(disk)).await {
        Ok(store) => store,
        Err(error) => {
            shared.note(&format!("{name} refuses to start: {error}"));
            shared.slots.borrow_mut()[at].ended = Some(Ended::Refused(error.to_string()));
            return pending().await;
        }
    };
    shared.note(&format!("{name} started, life {life}, id {}", store.node_id()));
    shared.slots.borrow_mut()[at].store = Some(store.clone());
    client::start(&shared, at, life, &store);
    tokio::task::spawn_local(operate(Rc::clone(&shared), at, store.clone()));
    let ended = tokio::select! {
        biased;
        reason = store.failed() => Ended::Failed(reason),
        () = stopped(&shared, at) => {
            store.drain().await;
            store.shutdown().await;
            Ended::Stopped
        }
    };
    shared.note(&format!("{name} ended: {ended:?}"));
    {
        let mut slots = shared.slots.borrow_mut();
        (slots[at].store, slots[at].ended) = (None, Some(ended));
    }
    pending().await
}

/// Carries out what an operator asks of the cluster through this node.
async fn operate(shared: Rc<Shared>, at: usize, store: Store) {
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let Some(order) = shared.slots.borrow_mut()[at].order.take() else { continue };
        let (what, done) = match &order {
            Order::Remove(name) => ("removals", store.remove_node(name).await),
            Order::Drain(name, true) => ("drains", store.drain_node(name, true).await),
            Order::Drain(name, false) => ("ends of drains", store.drain_node(name, false).await),
            Order::Transfer => ("transfers of leadership", store.transfer_leader(None, None).await),
        };
        shared.note(&format!("{order:?}: {done:?}"));
        shared.count(&format!("operator: {what}{}", if done.is_ok() { "" } else { ", not done" }));
        shared.operating.set(None);
    }
}

async fn stopped(shared: &Rc<Shared>, at: usize) {
    while !shared.slots.borrow()[at].stop {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
