//! What passes through a node's memory does not get out of it by a crash.

use std::{os::unix::process::ExitStatusExt, path::Path};

use tests::{Cluster, Options, command};

/// Allows core dumps, to a directory, to what comes next.
fn allowing_dumps(dir: &Path) -> Vec<String> {
    ["sh", "-c", "ulimit -c unlimited && cd \"$0\" && exec \"$@\"", &dir.display().to_string()]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn a_node_that_crashes_leaves_no_core_dump() {
    let dir = tempfile::tempdir().expect("a directory");
    let wrapper = allowing_dumps(dir.path());
    let ordinary =
        command(&wrapper[0]).args(&wrapper[1..]).args(["sh", "-c", "kill -ABRT $$"]).status().expect("run sh");
    if !ordinary.core_dumped() {
        println!("skipped: no process leaves a core dump here");
        return;
    }
    let mut cluster = Cluster::new(1, &Options { wrapper, ..Options::default() });
    cluster.start_all();
    let node = &mut cluster.nodes[0];
    node.signal(libc::SIGABRT);
    let status = node.wait();
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
    assert!(!status.core_dumped(), "its memory is in a file now, with every key that it has seen");
}
