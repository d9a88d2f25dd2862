//! Whole nodes in one process: real sockets, real log, real elections.

mod moved;
mod silent;
mod versions;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    group::LEADER_TRUST,
    node::{Fail, Node, NodeSettings},
    version::Spoken,
    view_lease::VIEW_LEASE,
    wait::{Everywhere, Wait},
};
use crate::{
    model::{ColdCommand, Command, Expect, GroupId, MetaOp, MetaWrite, NodeInfo, Tier},
    state::{State, StateError},
};

mod groups;

const PATIENCE: Duration = Duration::from_secs(20);

fn free_addrs(n: usize) -> Vec<String> {
    let held: Vec<_> = (0..n).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("bound").to_string()).collect()
}

async fn start(dir: &std::path::Path, name: &str, addr: &str, join: &[String]) -> Arc<Node> {
    start_with(dir, name, addr, join, |_, _, _| Ok(())).await
}

async fn start_with(
    dir: &std::path::Path,
    name: &str,
    addr: &str,
    join: &[String],
    prepare: impl Fn(GroupId, &Arc<State>, &Fail) -> Result<(), StateError>,
) -> Arc<Node> {
    Node::start(settings(dir, name, addr, join), prepare).await.expect("starts")
}

fn settings(dir: &std::path::Path, name: &str, addr: &str, join: &[String]) -> NodeSettings {
    let listen: SocketAddr = addr.parse().expect("an address");
    NodeSettings {
        tls: None,
        data_dir: dir.join(name),
        info: NodeInfo { name: name.into(), peer_addr: addr.into(), ..NodeInfo::default() },
        listen,
        join: join.to_vec(),
        voters: 3,
        ledger_groups: 1,
        retention_days: 30,
        disk: Arc::new(crate::wal::RealDisk),
        files: Arc::new(crate::state::Disk),
        spoken: Spoken::OURS,
    }
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

/// On a machine that was busy for longer than a leader trusts its quorum's last answer, an only node refused requests with
/// "no fresh contact with the quorum": it had not come to look that it needs nobody.
#[tokio::test]
async fn an_only_node_is_its_own_quorum_however_late_it_looks_and_one_of_three_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    // All on this thread: nothing of the nodes runs while it stands still.
    let stand_still = || std::thread::sleep(2 * LEADER_TRUST);
    let alone = start(&dir.path().join("alone"), "x", &free_addrs(1)[0], &[]).await;
    until("readiness", || alone.not_ready().is_none()).await;
    stand_still();
    assert_eq!(alone.not_ready(), None);
    alone.shutdown().await;

    let nodes = grown(dir.path(), &["a", "b", "c"]).await;
    until("three voters", || voters(&nodes[0]) == ["a", "b", "c"]).await;
    let leader = || nodes.iter().find(|node| node.meta().leads().is_some());
    until("a leader", || leader().is_some()).await;
    let leader = leader().expect("it leads");
    stand_still();
    assert!(!leader.meta().is_in_contact(), "the others may have elected another meanwhile");
    for node in &nodes {
        node.shutdown().await;
    }
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
    for group in nodes[0].groups().iter() {
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
    for group in first.groups().iter() {
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
    for (ours, theirs) in first.groups().iter().zip(late.groups().iter()) {
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
        let prepare = move |group: GroupId, state: &Arc<State>, _: &Fail| {
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

async fn grown(dir: &std::path::Path, names: &[&str]) -> Vec<Arc<Node>> {
    let addrs = free_addrs(names.len());
    let mut nodes = vec![start(dir, names[0], &addrs[0], &[]).await];
    until("readiness", || nodes[0].not_ready().is_none()).await;
    for (name, addr) in names.iter().zip(&addrs).skip(1) {
        nodes.push(start(dir, name, addr, &[addrs[0].clone(), addr.clone()]).await);
    }
    for node in &nodes {
        until("readiness", || node.not_ready().is_none()).await;
    }
    nodes
}

fn voters(node: &Node) -> Vec<String> {
    let mut of: Vec<Vec<String>> = Vec::new();
    for group in node.groups().iter() {
        let mut names: Vec<String> =
            group.members().into_values().filter(|(_, votes)| *votes).map(|(info, _)| info.name.to_string()).collect();
        names.sort();
        of.push(names);
    }
    if of[0] == of[1] && node.groups().iter().all(|group| group.unfinished_change().is_none()) {
        of.remove(0)
    } else {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_of_one_grows_to_three_voters_and_a_learner_and_shrinks_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = grown(dir.path(), &["a", "b", "c", "d"]).await;
    for node in &nodes {
        until("three voters", || voters(node) == ["a", "b", "c"]).await;
        assert_eq!(node.meta().members().len(), 4, "and a learner, which serves as well");
        node.ledger().propose(&command(1), Wait::Applied, true, PATIENCE).await.expect("commits");
    }
    // The leader of both groups goes, asked for at a learner; the learner votes in its place.
    nodes[1].transfer(None, Some("a")).await.expect("leads again");
    until("it leads", || nodes[0].meta().is_leader() && nodes[0].ledger().is_leader()).await;
    let before = crate::platform::lease_clock_ns();
    nodes[3].remove_node("a").await.expect("goes");
    assert!(crate::platform::lease_clock_ns() - before >= 3_000_000_000, "its leases were waited out");
    until("another voter", || voters(&nodes[1]) == ["b", "c", "d"]).await;
    assert!(nodes[1].groups().iter().all(|group| !group.members().contains_key(&nodes[0].me().0)));
    until("it knows", || nodes[0].not_ready().is_some_and(|why| why.contains("was removed from the cluster"))).await;
    assert!(!nodes[0].meta().has_view_lease());
    let refused = nodes[0].ask_lease(GroupId::LEDGER, bytes::Bytes::new(), PATIENCE).await;
    assert!(refused.is_err_and(|why| why.contains("no member")), "it gets no units");
    for name in ["b", "c"] {
        nodes[3].remove_node(name).await.expect("goes");
    }
    assert_eq!(voters(&nodes[3]), ["d"]);
    let last = nodes[3].remove_node("d").await.expect_err("the last one stays").to_string();
    assert!(last.contains("the only voter"), "{last}");
    nodes[3].ledger().propose(&command(2), Wait::Applied, true, PATIENCE).await.expect("commits alone");
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_name_that_is_taken_and_a_quorum_that_would_be_lost_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut nodes = grown(dir.path(), &["a", "b", "c"]).await;
    until("three voters", || voters(&nodes[0]) == ["a", "b", "c"]).await;
    let addr = free_addrs(1).remove(0);
    let listed = [nodes[0].info().peer_addr.clone(), addr.clone()];
    let second = start(&dir.path().join("second"), "b", &addr, &listed).await;
    until("the refusal", || second.not_ready().is_some_and(|why| why.contains("give this one another --node-name")))
        .await;
    second.shutdown().await;
    assert!(matches!(nodes[0].remove_node("nobody").await, Err(crate::raft::OperateError::Unknown(_))));

    nodes.pop().expect("c").shutdown().await;
    let refused = nodes[0].remove_node("b").await.expect_err("one of two voters would be left").to_string();
    assert!(refused.contains("2 voters, of which 1 answer and 2 are needed"), "{refused}");
    nodes[0].remove_node("c").await.expect("the dead one goes");
    assert_eq!(voters(&nodes[0]), ["a", "b"]);
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_lost_disks_of_three_are_refused_with_what_to_do_and_one_that_comes_back_helps_the_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(3);
    let names = ["a", "b", "c"];
    let mut nodes = Vec::new();
    for (name, addr) in names.iter().zip(&addrs) {
        nodes.push(start(dir.path(), name, addr, &addrs).await);
    }
    for node in &nodes {
        until("readiness", || node.not_ready().is_none()).await;
    }
    nodes[0].ledger().propose(&command(7), Wait::Applied, true, PATIENCE).await.expect("commits");
    for node in nodes.drain(1..) {
        node.shutdown().await;
    }
    for name in ["b", "c"] {
        std::fs::rename(dir.path().join(name), dir.path().join(format!("{name}-lost"))).expect("its disk is gone");
    }
    until("the loss of the quorum is known", || nodes[0].not_ready().is_some()).await;
    let empty = [start(dir.path(), "b", &addrs[1], &addrs).await, start(dir.path(), "c", &addrs[2], &addrs).await];
    for node in empty.iter().chain(&nodes) {
        let told =
            |why: String| why.contains("have lost the data") && why.contains("Bring back the data directory of b");
        until("the refusal", || node.not_ready().is_some_and(told)).await;
        assert_eq!(nodes[0].meta().members().len(), 3, "nobody was taken in");
    }
    // The disk of b is found again: b and a are a quorum, and c is taken in anew.
    let [b, c] = empty;
    b.shutdown().await;
    std::fs::rename(dir.path().join("b"), dir.path().join("b-empty")).expect("moved away");
    std::fs::rename(dir.path().join("b-lost"), dir.path().join("b")).expect("found");
    let b = start(dir.path(), "b", &addrs[1], &addrs).await;
    for node in [&nodes[0], &b, &c] {
        until("readiness", || node.not_ready().is_none()).await;
        until("three voters", || voters(node) == names && node.meta().members().contains_key(&c.me().0)).await;
        until("no other member", || node.meta().members().len() == 3).await;
    }
    for node in [nodes.remove(0), b, c] {
        node.shutdown().await;
    }
}
