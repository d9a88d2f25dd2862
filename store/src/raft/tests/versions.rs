//! Nodes of several builds in one cluster.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_of_neighbouring_wire_versions_make_a_cluster_and_a_stranger_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(3);
    let mut nodes = Vec::new();
    for ((name, addr), newest) in ["a", "b", "c"].iter().zip(&addrs).zip([1, 2, 2]) {
        let mut settings = settings(dir.path(), name, addr, &addrs);
        settings.spoken = Spoken { oldest: 1, newest };
        nodes.push(Node::start(settings, |_, _, _| Ok(())).await.expect("starts"));
    }
    for node in &nodes {
        until("readiness", || node.not_ready().is_none()).await;
        node.ledger().propose(&command(1), Wait::Applied, true, PATIENCE).await.expect("commits");
        // What `a` does not know is not said, whoever is asked; nor is it before `a` was heard.
        assert_eq!((node.all_speak(1).await, node.all_speak(2).await), (true, false));
    }
    let addr = free_addrs(1).remove(0);
    let mut settings = settings(dir.path(), "far", &addr, &[addrs[0].clone(), addr.clone()]);
    settings.spoken = Spoken { oldest: 3, newest: 4 };
    let far = Node::start(settings, |_, _, _| Ok(())).await.expect("starts");
    until("the refusal", || far.not_ready().is_some_and(|why| why.contains("upgrade a first"))).await;
    let why = far.not_ready().unwrap_or_default();
    assert!(why.contains("far (version") && why.contains("wire versions 3 to 4"), "{why}");
    assert_eq!(nodes[0].meta().members().len(), 3);
    // Upgraded, `a` says so when it is asked again; silent, it speaks what it spoke before.
    nodes.remove(0).shutdown().await;
    let mut settings = super::settings(dir.path(), "a", &addrs[0], &addrs);
    settings.spoken = Spoken { oldest: 1, newest: 2 };
    let upgraded = Node::start(settings, |_, _, _| Ok(())).await.expect("starts");
    let until_heard = async {
        while !nodes[0].all_speak(2).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_heard).await.expect("it is heard");
    upgraded.shutdown().await;
    assert!(nodes[0].all_speak(2).await, "it has not forgotten");
    for node in nodes.into_iter().chain([far]) {
        node.shutdown().await;
    }
}
