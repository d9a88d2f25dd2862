//! Nodes that are elsewhere, or something else, than at their last start.

use std::{path::Path, sync::Arc};

use super::{free_addrs, settings, start, until};
use crate::{
    model::NodeInfo,
    raft::node::{Node, NodeSettings},
};

async fn serving(nodes: &[Arc<Node>]) {
    for node in nodes {
        until("readiness", || node.not_ready().is_none()).await;
    }
}

async fn three(dir: &Path, addrs: &[String]) -> Vec<Arc<Node>> {
    let mut nodes = Vec::new();
    for (name, addr) in ["a", "b", "c"].iter().zip(addrs) {
        nodes.push(start(dir, name, addr, addrs).await);
    }
    serving(&nodes).await;
    nodes
}

/// Stops a node, and lets another have its directory.
async fn stop(node: Arc<Node>) {
    node.shutdown().await;
}

/// All nodes know `node` in both groups as it is.
async fn known(nodes: &[Arc<Node>], node: &Node) {
    for other in nodes {
        for group in other.groups().iter() {
            until("the membership is told", || {
                group.members().get(&node.me().0).is_some_and(|(info, _)| info == node.info())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_back_elsewhere_tells_its_cluster_whoever_leads() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(3);
    let mut nodes = three(dir.path(), &addrs).await;
    // Each once, a leader among them; the ports of the others stay.
    for (n, name) in ["a", "b", "c"].iter().enumerate() {
        stop(nodes.remove(n)).await;
        let addr = free_addrs(1).remove(0);
        let settings = settings(dir.path(), name, &addr, &addrs);
        let info = NodeInfo { region: "eu".into(), ..settings.info.clone() };
        let moved = Node::start(NodeSettings { info, ..settings }, |_, _, _| Ok(())).await.expect("starts");
        nodes.insert(n, Arc::clone(&moved));
        serving(&nodes).await;
        known(&nodes, &moved).await;
    }
    // Of two voters each is needed for every commit, also for the one that tells where it is.
    let last = nodes.remove(2);
    let first = nodes.iter().find(|node| node.me() != last.me()).expect("two are left");
    first.remove_node("c").await.expect("removed");
    stop(last).await;
    stop(nodes.remove(1)).await;
    let addr = free_addrs(1).remove(0);
    let moved = start(dir.path(), "b", &addr, &addrs).await;
    nodes.push(Arc::clone(&moved));
    serving(&nodes).await;
    known(&nodes, &moved).await;
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_all_move_at_once_find_each_other_by_the_new_list() {
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = three(dir.path(), &free_addrs(3)).await;
    for node in nodes {
        node.shutdown().await;
    }
    let nodes = three(dir.path(), &free_addrs(3)).await;
    for node in &nodes {
        known(&nodes, node).await;
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_a_live_member_has_is_refused_with_that_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(2);
    let member = start(dir.path(), "a", &addrs[0], &[]).await;
    serving(std::slice::from_ref(&member)).await;
    let other = dir.path().join("other");
    let twin = start(&other, "a", &addrs[1], &addrs).await;
    let told = || {
        twin.not_ready().is_some_and(|reason| {
            reason.contains("a node called a is a member and answers") && !reason.contains("lost the data")
        })
    };
    until("the reason", told).await;
    twin.shutdown().await;
    member.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_members_directory_is_refused_while_the_member_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(2);
    let member = start(dir.path(), "a", &addrs[0], &[]).await;
    serving(std::slice::from_ref(&member)).await;
    stop(member).await;
    let copied = dir.path().join("copy");
    std::fs::create_dir_all(&copied).expect("creates");
    let cp = std::process::Command::new("cp").arg("-r").arg(dir.path().join("a")).arg(&copied).status();
    assert!(cp.expect("runs").success());
    let member = start(dir.path(), "a", &addrs[0], &[]).await;
    serving(std::slice::from_ref(&member)).await;
    let copy = start(&copied, "a", &addrs[1], &[]).await;
    until("the reason", || copy.failure().is_some_and(|reason| reason.contains("is a copy of its"))).await;
    copy.shutdown().await;
    assert_eq!(member.not_ready(), None);
    member.shutdown().await;
}

/// As behind a listener on all addresses, or a forwarded port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_old_address_leads_to_it_still_is_no_copy() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(2);
    let member = start(dir.path(), "a", &addrs[0], &[]).await;
    serving(std::slice::from_ref(&member)).await;
    stop(member).await;
    let old = tokio::net::TcpListener::bind(&addrs[0]).await.expect("binds");
    let now = addrs[1].clone();
    let forward = tokio::spawn(async move {
        while let Ok((mut from, _)) = old.accept().await {
            if let Ok(mut to) = tokio::net::TcpStream::connect(&now).await {
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
            }
        }
    });
    let member = start(dir.path(), "a", &addrs[1], &[]).await;
    serving(std::slice::from_ref(&member)).await;
    known(std::slice::from_ref(&member), &member).await;
    assert_eq!(member.failure(), None);
    forward.abort();
    member.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_cluster_says_so_when_it_is_to_join() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(2);
    let a = start(dir.path(), "a", &addrs[0], &[]).await;
    let b = start(dir.path(), "b", &addrs[1], &[]).await;
    serving(&[Arc::clone(&a), Arc::clone(&b)]).await;
    stop(b).await;
    let b = start(dir.path(), "b", &addrs[1], &addrs).await;
    let told = || {
        b.not_ready().is_some_and(|reason| {
            reason.contains("belongs to a cluster of b (") && reason.contains("start with an empty --data-dir")
        })
    };
    until("the reason", told).await;
    stop(b).await;
    let b = start(dir.path(), "b", &addrs[1], &[]).await;
    serving(std::slice::from_ref(&b)).await;
    b.shutdown().await;
    a.shutdown().await;
}
