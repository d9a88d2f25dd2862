//! The thinnest path: a key, a request, its row.

use tests::{Cluster, Upstream, client, get};

#[test]
fn a_request_with_a_key_reaches_the_upstream_and_has_its_row() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    let key = admin.open_account(&upstream.url);
    let answer = get(&client(), &cluster.nodes[0].url("/echo?secret=1"), &key).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text);
    let row = admin.row(answer.header("x-request-id"));
    assert_eq!((row["status"].as_u64(), row["path"].as_str()), (Some(200), Some("/echo")));
}

#[test]
fn three_nodes_share_keys_and_rows() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(3);
    let key = cluster.nodes[0].admin().open_account(&upstream.url);
    for node in &cluster.nodes {
        let answer = get(&client(), &node.url("/"), &key).expect("an answer");
        assert_eq!(answer.status, 200, "{}: {}", node.name, answer.text);
        for other in &cluster.nodes {
            other.admin().row(answer.header("x-request-id"));
        }
    }
}
