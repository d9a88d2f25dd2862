//! Members that are away for long.

use super::{PATIENCE, command, free_addrs, start, until};
use crate::raft::wait::Wait;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_learner_holds_back_neither_writes_nor_the_purge_of_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let addrs = free_addrs(2);
    let first = start(dir.path(), "a", &addrs[0], &[]).await;
    until("readiness", || first.not_ready().is_none()).await;
    let learner = start(dir.path(), "b", &addrs[1], &addrs).await;
    until("readiness", || learner.not_ready().is_none()).await;
    learner.shutdown().await;
    for n in 0..20 {
        first.ledger().propose(&command(n), Wait::Applied, true, PATIENCE).await.expect("commits");
    }
    for group in first.groups().iter() {
        assert!(group.members().get(&learner.me().0).is_some_and(|(_, votes)| !votes), "a learner");
        let last = group.progress().last;
        until("a checkpoint", || group.state().checkpointed().is_some_and(|(at, _)| at.index >= last)).await;
        until("a snapshot", || {
            let metrics = group.raft().metrics();
            let metrics = openraft::async_runtime::watch::WatchReceiver::borrow_watched(&metrics);
            metrics.snapshot.is_some_and(|at| at.index >= last)
        })
        .await;
        group.raft().trigger().purge_log(last).await.expect("purges");
        until("the purge", || first.wal().group(group.id()).purged.is_some_and(|(index, _)| index >= last)).await;
    }
    let away = || async {
        let now = first.members_now().await;
        now.iter().any(|member| member.id == learner.me() && member.status.is_none() && member.silent.is_some())
    };
    let waited = async {
        while !away().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("its silence is told");
    first.shutdown().await;
}
