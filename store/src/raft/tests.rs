//! Whole nodes in one process: real sockets, real log, real elections.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    node::{Node, NodeSettings},
    view_lease::VIEW_LEASE,
    wait::{Everywhere, Wait},
};
use crate::{
    model::{ColdCommand, Command, Expect, GroupId, MetaOp, MetaWrite, NodeInfo, Tier},
    state::{State, StateError},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn free_addrs(n: usize) -> Vec<String> {
    let held: Vec<_> = (0..n).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("bound").to_string()).collect()
}

async fn start(dir: &std::path::Path, name: &str, addr: &str, join: &[String]) -> Arc<Node> {
    start_with(dir, name, addr, join, |_, _| Ok(())).await
}

async fn start_with(
    dir: &std::path::Path,
    name: &str,
    addr: &str,
    join: &[String],
    prepare: impl Fn(GroupId, &Arc<State>) -> Result<(), StateError>,
) -> Arc<Node> {
    let listen: SocketAddr = addr.parse().expect("an address");
    let settings = NodeSettings {
        tls: None,
        data_dir: dir.join(name),
        info: NodeInfo { name: name.into(), peer_addr: addr.into(), ..NodeInfo::default() },
        listen,
        join: join.to_vec(),
        voters: 3,
        retention_days: 30,
        disk: Arc::new(crate::wal::RealDisk),
        files: Arc::new(crate::state::Disk),
    };
    Node::start(settings, prepare).await.expect("starts")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "{what} did not happen within {PATIENCE:?}");
}

fn command(n: u64) -> bytes::Bytes {
    Command::from(ColdCommand::Seal { from: n, to: n }).encode()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_makes_a_cluster_commits_and_resumes_with_a_new_incarnation() {
    let dir = tempfile::tempdir().expect("a directory");
    let addr = free_addrs(1).remove(0);
    let node = start(dir.path(), "a", &addr, &[]).await;
    until("readiness", || node.not_ready().is_none()).await;
    assert!(node.made_cluster());
    for n in 0..50 {
        node.ledger().propose(&command(n), Wait::Committed, false, PATIENCE).await.expect("commits");
    }
    let (id, last) = (node.me(), node.ledger().progress().last);
    node.shutdown().await;
    drop(node);
    let addr = free_addrs(1).remove(0);
    let node = start(dir.path(), "a", &addr, &[]).await;
    until("readiness", || node.not_ready().is_none()).await;
    assert_eq!((node.me(), node.incarnation()), (id, 2));
    assert!(!node.made_cluster());
    assert!(node.ledger().progress().applied > last);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_a_cluster_forward_to_the_leader_and_survive_its_loss() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(3);
    let mut nodes = Vec::new();
    for (name, addr) in ["a", "b", "c"].iter().zip(&addrs) {
        nodes.push(start(dir.path(), name, addr, &addrs).await);
    }
    for node in &nodes {
        until("readiness", || node.not_ready().is_none()).await;
    }
    for (n, node) in nodes.iter().enumerate() {
        node.ledger().propose(&command(n as u64), Wait::Applied, false, PATIENCE).await.expect("forwards");
        node.meta().barrier(PATIENCE).await.expect("reads");
    }
    let leader = nodes.iter().position(|node| node.ledger().is_leader()).expect("a leader");
    let lost = nodes.remove(leader);
    lost.shutdown().await;
    drop(lost);
    for node in &nodes {
        node.ledger().propose(&command(9), Wait::Applied, true, PATIENCE).await.expect("commits without it");
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_waits_for_listed_peers_by_name_and_never_forms_half_a_cluster() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(3);
    let a = start(dir.path(), "a", &addrs[0], &addrs).await;
    let b = start(dir.path(), "b", &addrs[1], &addrs).await;
    until("waiting by name", || a.not_ready().is_some_and(|reason| reason.contains(&addrs[2]))).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(a.not_ready().is_some() && b.not_ready().is_some());
    let c = start(dir.path(), "c", &addrs[2], &addrs).await;
    for node in [&a, &b, &c] {
        until("readiness", || node.not_ready().is_none()).await;
        assert_eq!(node.meta().members().len(), 3);
    }
    for node in [a, b, c] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_empty_disk_takes_the_place_of_the_member_whose_name_it_has() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(3);
    let mut nodes = Vec::new();
    for (name, addr) in ["a", "b", "c"].iter().zip(&addrs) {
        nodes.push(start(dir.path(), name, addr, &addrs).await);
    }
    for node in &nodes {
        until("readiness", || node.not_ready().is_none()).await;
    }
    for n in 0..20 {
        nodes[0].ledger().propose(&command(n), Wait::Applied, true, PATIENCE).await.expect("commits");
    }
    let lost = nodes.pop().expect("the third");
    let old = lost.me();
    lost.shutdown().await;
    drop(lost);
    std::fs::remove_dir_all(dir.path().join("c")).expect("its disk is gone");
    let new = start(dir.path(), "c", &addrs[2], &addrs).await;
    until("readiness", || new.not_ready().is_none()).await;
    assert_ne!(new.me(), old);
    for group in nodes[0].groups() {
        until("membership", || {
            let members = group.members();
            members.len() == 3 && members.get(&new.me().0).is_some_and(|(_, votes)| *votes)
        })
        .await;
    }
    for node in [&nodes[0], &new] {
        node.ledger().barrier(PATIENCE).await.expect("reads");
    }
    let digest = |node: &Arc<Node>| node.ledger().state().digest().expect("a digest");
    until("the same state", || digest(&nodes[0]) == digest(&new)).await;
    for node in nodes.into_iter().chain([new]) {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_log_no_longer_reaches_gets_a_snapshot() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(2);
    let first = start(dir.path(), "a", &addrs[0], &[]).await;
    until("readiness", || first.not_ready().is_none()).await;
    for n in 0..20 {
        first.ledger().propose(&command(n), Wait::Applied, true, PATIENCE).await.expect("commits");
    }
    for group in first.groups() {
        let last = group.progress().last;
        until("a checkpoint", || group.state().checkpointed().is_some_and(|(at, _)| at.index >= last)).await;
        until("a snapshot", || {
            let metrics = group.raft().metrics();
            openraft::async_runtime::watch::WatchReceiver::borrow_watched(&metrics).snapshot.is_some()
        })
        .await;
        group.raft().trigger().purge_log(last).await.expect("purges");
        let gone = || first.wal().group(group.id()).purged.is_some_and(|(index, _)| index >= last);
        until("the purge", gone).await;
    }
    let late = start(dir.path(), "b", &addrs[1], &addrs).await;
    until("readiness", || late.not_ready().is_none()).await;
    for (ours, theirs) in first.groups().iter().zip(late.groups()) {
        theirs.barrier(PATIENCE).await.expect("reads");
        until("the same state", || {
            ours.state().digest().expect("a digest") == theirs.state().digest().expect("a digest")
        })
        .await;
    }
    for node in [first, late] {
        node.shutdown().await;
    }
}

/// A metadata write that is waited for everywhere: how that went.
async fn write(node: &Node, tier: &str) -> Everywhere {
    let tier = Tier { name: tier.into(), ..Tier::default() };
    let ops = vec![MetaOp::PutTier { tier, expect: Expect::Any }];
    let command = Command::from(ColdCommand::Meta(MetaWrite { ops, ..MetaWrite::default() })).encode();
    let answer = node.meta().propose_and_tell(&command, Wait::Everywhere, false, PATIENCE).await.expect("writes");
    answer.everywhere.expect("it was waited for")
}

/// A node in contact that does not act on what it receives: it had been taken for one that does.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_is_not_answered_while_a_node_in_contact_may_decide_without_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(3);
    let (stuck, held) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(())));
    let mut nodes = Vec::new();
    for (name, addr) in ["a", "b", "c"].iter().zip(&addrs) {
        let (stuck, held) = (Arc::clone(&stuck), Arc::clone(&held));
        let prepare = move |group: GroupId, state: &Arc<State>| {
            if group == GroupId::META && *name == "c" {
                let (stuck, held) = (Arc::clone(&stuck), Arc::clone(&held));
                state.subscribe(Box::new(move |_| {
                    if stuck.load(Ordering::SeqCst) {
                        drop(tokio::task::block_in_place(|| held.lock()));
                    }
                }));
            }
            Ok(())
        };
        nodes.push(start_with(dir.path(), name, addr, &addrs, prepare).await);
    }
    for node in &nodes {
        until("readiness", || node.not_ready().is_none()).await;
    }
    if nodes[2].meta().is_leader() {
        nodes[2].meta().raft().trigger().transfer_leader(nodes[0].me().0).await.expect("asks for it");
        until("another leader", || nodes[0].meta().is_leader()).await;
    }
    // The leases that a predecessor may have granted are over.
    tokio::time::sleep(VIEW_LEASE + Duration::from_millis(600)).await;
    assert_eq!(write(&nodes[1], "first").await.waited_out, Vec::<crate::model::Name>::new());

    let guard = held.lock();
    stuck.store(true, Ordering::SeqCst);
    let started = Instant::now();
    let lapsed = {
        let c = Arc::clone(&nodes[2]);
        tokio::spawn(async move {
            until("the end of its lease", || !c.meta().has_view_lease()).await;
            Instant::now()
        })
    };
    let everywhere = write(&nodes[0], "second").await;
    let answered = Instant::now();
    assert_eq!(everywhere.waited_out, vec![crate::model::Name::from("c")]);
    // It is in contact all the time, and decides nothing any more by the time of the answer.
    assert!(nodes[2].meta().is_in_contact() && !nodes[2].meta().has_view_lease());
    assert!(lapsed.await.expect("no panic") <= answered);
    assert!(answered - started < VIEW_LEASE + Duration::from_millis(500), "{:?}", answered - started);
    assert!(nodes[2].not_ready().is_some());
    // The next write need not wait: there is no lease any more.
    let started = Instant::now();
    assert_eq!(write(&nodes[0], "third").await.waited_out.len(), 1);
    // (A lease that was granted just after the second write, and never counted, may be over a little later.)
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());

    stuck.store(false, Ordering::SeqCst);
    drop(guard);
    until("its view", || nodes[2].meta().has_view_lease()).await;
    assert_eq!(write(&nodes[0], "fourth").await.waited_out.len(), 0);
    for node in nodes {
        node.shutdown().await;
    }
}
