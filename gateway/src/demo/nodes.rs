//! The demo's nodes and their addresses.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
};

use anyhow::Context;
use store::model::Secret;

use super::Options;
use crate::{
    admin::LogLevel,
    app::{self, Node},
    config::{self, Entries, List, Settings},
    operator::Bootstrap,
};

/// The default ports of the first node; each further node's are ten higher.
const FIRST_PORTS: [u16; 3] = [8080, 8081, 8082];

/// Where the control of nodes listens, when the port is free.
const CONTROL_PORT: u16 = 8079;

/// Starts all nodes and waits until they are ready.
pub(super) async fn start(
    options: &Options,
    directory: &Path,
    token: &Secret,
    log_level: &LogLevel,
) -> anyhow::Result<Vec<Node>> {
    let prometheus = app::metrics()?;
    let starts = settings(options, directory)?.into_iter().map(|settings| {
        let prometheus = prometheus.clone();
        async move {
            let bootstrap = Bootstrap::find(Path::new(""), Some(token.expose().to_owned()));
            let bootstrap = bootstrap.map_err(anyhow::Error::msg)?;
            Box::pin(Node::start(&settings, bootstrap, prometheus, log_level.clone()))
                .await
                .with_context(|| format!("start {}", settings.node_name))
        }
    });
    let nodes = futures_util::future::try_join_all(starts).await?;
    for node in &nodes {
        node.ready().await;
    }
    Ok(nodes)
}

/// The nodes' settings, and a listener for the control of their processes.
pub(super) fn settings_and_control(
    options: &Options,
    directory: &Path,
) -> anyhow::Result<(Vec<Settings>, TcpListener)> {
    let settings = settings(options, directory)?;
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, CONTROL_PORT)).or_else(|_| free());
    Ok((settings, control.context("listen for the control of nodes")?))
}

fn settings(options: &Options, directory: &Path) -> anyhow::Result<Vec<Settings>> {
    let mut taken = Vec::new();
    let addresses: Vec<[SocketAddr; 3]> = (0..options.nodes)
        .map(|node| {
            let asked = if node == 0 { [options.data_addr, options.admin_addr, None] } else { [None; 3] };
            let mut listeners = FIRST_PORTS.into_iter().zip(asked);
            std::array::from_fn(|_| {
                let (port, asked) = listeners.next().expect("three listeners");
                asked.unwrap_or_else(|| free(port + 10 * u16::from(node), &mut taken))
            })
        })
        .collect();
    let join = if options.nodes > 1 { addresses.iter().map(|[_, _, peer]| peer.to_string()).collect() } else { vec![] };
    addresses
        .iter()
        .enumerate()
        .map(|(i, [data_addr, admin_addr, peer_addr])| {
            let name = format!("node-{}", i + 1);
            let entries = Entries {
                data_dir: Some(directory.join(&name)),
                node_name: Some(name),
                data_addr: Some(*data_addr),
                admin_addr: Some(*admin_addr),
                peer_addr: Some(*peer_addr),
                join: Some(List(join.clone())),
                voters: Some(if options.nodes >= 5 { 5 } else { options.nodes.min(3) | 1 }),
                workers: Some(if options.nodes > 1 { 1 } else { 0 }),
                compat_headers: Some(List(vec!["x-rate-limit".into(), "x-quota".into()])),
                ..Entries::default()
            };
            Ok(config::assemble(entries)?)
        })
        .collect()
}

/// The port, or a free one in its place when another process has it; that is said.
fn free(port: u16, taken: &mut Vec<TcpListener>) -> SocketAddr {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if TcpListener::bind(wanted).is_ok() {
        return wanted;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let Ok((addr, listener)) = listener.and_then(|listener| Ok((listener.local_addr()?, listener))) else {
        return wanted;
    };
    eprintln!("{wanted} is in use by another process: taking {addr}");
    // Held until all are chosen, so that no two listeners are given the same.
    taken.push(listener);
    addr
}
