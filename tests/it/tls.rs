//! TLS between nodes, towards operators and towards API clients.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tests::{Authority, Cluster, Load, Node, Options, PATIENCE, Upstream, binary, client, get, until};

fn peer_flags(ca: &Authority) -> Vec<String> {
    let (cert, key) = ca.issue("peer", &["127.0.0.1"]);
    ["--peer-tls-cert", "--peer-tls-key", "--peer-tls-ca"]
        .into_iter()
        .zip([cert, key, ca.ca()])
        .flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()])
        .collect()
}

fn log(node: &Node) -> String {
    std::fs::read_to_string(&node.log).expect("read the node's log")
}

/// What an address says to a stranger that begins to speak; nothing when it hangs up.
fn said_to(mut stream: impl Read + Write) -> Vec<u8> {
    let mut said = Vec::new();
    // The beginning of a greeting between peers, whole enough to be answered.
    if stream.write_all(b"tollgate\x01\x00\x00\x10").and_then(|()| stream.flush()).is_ok() {
        let _ = stream.read_to_end(&mut said);
    }
    said
}

fn connected(addr: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn tls_client(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(builder.expect("versions").with_root_certificates(roots).with_no_client_auth())
}

#[test]
fn peers_show_each_other_certificates_strangers_are_refused_and_new_ones_need_no_restart() {
    let upstream = Upstream::start();
    let dir = tempfile::tempdir().expect("a directory");
    let ca = Authority::new(&dir.path().join("ours"));
    let options = Options { args: peer_flags(&ca), ..Options::default() };
    let mut cluster = Cluster::new(3, &options);
    cluster.start_all();
    let key = cluster.nodes[0].admin().open_account(&upstream.url);
    let answer = get(&client(), &cluster.nodes[1].url("/"), &key).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text);
    for node in &cluster.nodes {
        node.admin().row(answer.header("x-request-id"));
    }

    // Neither who speaks no TLS nor who has no certificate is heard.
    let peer = &cluster.nodes[0].peer_addr;
    let mut plain = connected(peer);
    plain.write_all(b"tollgate\x01\x00\x00\x10").expect("write");
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"tollgate"), "{said:?}");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let session = ClientConnection::new(tls_client(&ca.ca()), name).expect("a session");
    assert_eq!(said_to(StreamOwned::new(session, connected(peer))), b"");
    until("the refusal in the log", || {
        log(&cluster.nodes[0]).contains("refused a peer: its TLS handshake failed").then_some(())
    });

    // New certificates of the same authority: nothing is lost, and connections made afterwards use them.
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    let load = Load::start(&urls[..1], &key, 2);
    peer_flags(&ca);
    for node in &cluster.nodes {
        node.signal(libc::SIGHUP);
        until("certificates read anew", || log(node).contains("SIGHUP: reading certificates anew").then_some(()));
    }
    cluster.nodes[2].stop();
    cluster.nodes[2].start();
    cluster.nodes[2].wait_ready();
    let report = load.stop();
    assert!(!report.received.is_empty());
    report.check(&cluster.nodes[0].admin().rows("account=acme")).expect("every answered row is there once");

    // One whose certificate is of another authority is refused by the others, and says what is wrong.
    let strangers = Authority::new(&dir.path().join("theirs"));
    cluster.nodes[2].stop();
    cluster.nodes[2].set_options(Options { args: peer_flags(&strangers), ..Options::default() });
    let before = log(&cluster.nodes[2]).len();
    cluster.nodes[2].start();
    until("the others refuse it", || {
        // Whoever calls says so first: the one that dials it, or the one that it dials.
        let told = |node: &Node| {
            let log = log(node);
            log.contains("invalid peer certificate: UnknownIssuer") || log.contains("received fatal alert: UnknownCA")
        };
        cluster.nodes[..2].iter().any(told).then_some(())
    });
    assert!(!cluster.nodes[2].is_ready());
    let answer = get(&client(), &cluster.nodes[0].url("/"), &key).expect("an answer");
    assert_eq!(answer.status, 200, "two of three serve on: {}", answer.text);
    cluster.nodes[2].stop();
    let text = log(&cluster.nodes[2]).split_off(before);
    assert!(!text.contains(" ready"), "{text}");
    cluster.nodes[2].set_options(options);
    cluster.nodes[2].start();
    cluster.nodes[2].wait_ready();
}

/// Runs a command of the CLI against an address: its output as JSON, when it exits with 0 or 1.
fn tollgate(args: &[&str], node: &Node, token: &str) -> Option<Value> {
    let mut command = tests::command(binary());
    command.args(args).args(["-o", "json", "--admin-url", &format!("https://{}", node.admin_addr)]);
    let output = command.env("TOLLGATE_ADMIN_TOKEN", token).stdin(Stdio::null()).output().expect("run tollgate");
    serde_json::from_slice(&output.stdout).ok()
}

#[test]
fn operators_and_clients_use_tls_and_the_doctor_tells_how_long_certificates_last() {
    let upstream = Upstream::start();
    let dir = tempfile::tempdir().expect("a directory");
    let ca = Authority::new(dir.path());
    let (cert, key) = ca.issue("node", &["127.0.0.1", "api.test"]);
    let (mine, my_key) = ca.issue("me", &["operator"]);
    let text = |path: &Path| path.display().to_string();
    let mut args = Vec::new();
    for place in ["data", "admin"] {
        args.extend([format!("--{place}-tls-cert"), text(&cert), format!("--{place}-tls-key"), text(&key)]);
    }
    args.extend(["--admin-tls-client-ca".to_owned(), text(&ca.ca())]);
    let mut cluster = Cluster::new(1, &Options { args, ..Options::default() });
    cluster.nodes[0].start();
    let node = &cluster.nodes[0];
    let token = node.admin().token().to_owned();
    let (ca_file, mine, my_key) = (text(&ca.ca()), text(&mine), text(&my_key));
    let tls = ["--ca", ca_file.as_str(), "--client-cert", &mine, "--client-key", &my_key];
    let ask = |args: &[&str]| tollgate(&[args, &tls].concat(), node, &token);
    until("the node is ready", || (ask(&["cluster", "status"])?["ready"] == true).then_some(()));

    // Without a certificate, or without trust, there is no answer.
    assert_eq!(tollgate(&["cluster", "status", "--ca", &ca_file], node, &token), None);
    assert_eq!(tollgate(&["cluster", "status", tls[2], tls[3], tls[4], tls[5]], node, &token), None);
    assert_eq!(get(&client(), &format!("http://{}/livez", node.admin_addr), "").ok().map(|answer| answer.status), None);

    let checks = ask(&["doctor"]).expect("findings")["checks"].clone();
    for place in ["data", "admin"] {
        let check = format!("certificate {} {place}", node.name);
        let found = checks.as_array().expect("a list").iter().find(|finding| finding["check"] == check.as_str());
        let found = found.unwrap_or_else(|| panic!("{check} in {checks}"));
        assert!(found["detail"].as_str().is_some_and(|text| text.starts_with("127.0.0.1: ")), "{found}");
    }

    let made = |args: &[&str]| ask(args).unwrap_or_else(|| panic!("{args:?} failed"));
    made(&["upstream", "create", "scan", "--target", &upstream.url]);
    made(&["route", "create", "scan", "--path-prefix", "/", "--upstream", "scan"]);
    made(&["tier", "create", "open"]);
    made(&["account", "create", "acme", "--name", "acme", "--tier", "open"]);
    let key = made(&["key", "create", "acme", "--name", "test"])["secret"].as_str().expect("a secret").to_owned();
    let name = ServerName::try_from("api.test").expect("a name");
    let session = ClientConnection::new(tls_client(&ca.ca()), name).expect("a session");
    let mut stream = StreamOwned::new(session, connected(&node.data_addr));
    stream.sock.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let request = format!("GET /echo HTTP/1.1\r\nhost: api.test\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("a whole answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"x-forwarded-proto\":\"https\""), "{answer}");
}
