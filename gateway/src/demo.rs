//! `tollgate demo`: nodes, an upstream, tiers, accounts and keys in one process, in a temporary directory.
//!
//! Everything is made as a user would make it: settings pass the checks of `serve`, objects are put through the admin API
//! with a token, traffic goes through sockets.

mod detect;
mod guide;
mod load;
mod nodes;
mod processes;
mod scan_api;
mod setup;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use store::model::{Secret, SecretKind};

use crate::{
    admin::LogLevel,
    app::{self, Node},
    config::LogFormat,
};
use guide::Addresses;
use load::Load;
use processes::Processes;

/// How long the end may take.
const GRACE: Duration = Duration::from_secs(5);

/// What to show.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes.
    pub nodes: u8,
    /// Keep the data directory.
    pub keep: bool,
    /// Send steady traffic.
    pub with_load: bool,
    /// Data plane of the first node.
    pub data_addr: Option<SocketAddr>,
    /// Admin API of the first node.
    pub admin_addr: Option<SocketAddr>,
    /// Log what the nodes do.
    pub verbose: bool,
    /// Each node is a process of its own, and a control listener kills and starts them.
    pub processes: bool,
}

/// Runs the demo until Ctrl-C.
///
/// # Errors
/// What kept it from starting.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let log_level = app::log_to_stderr(if options.verbose { "info" } else { "warn" }, LogFormat::Text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let directory = tempfile::Builder::new().prefix("tollgate-demo-").tempdir().context("make a data directory")?;
    let result = runtime.block_on(show(options, directory.path().to_owned(), &log_level));
    if options.keep {
        eprintln!("the data stays in {}", directory.keep().display());
    }
    result
}

async fn show(options: &Options, directory: PathBuf, log_level: &LogLevel) -> anyhow::Result<()> {
    let interrupted = app::stop_signal()?;
    tokio::pin!(interrupted);
    let (cluster, load) = tokio::select! {
        started = Box::pin(start(options, directory, log_level)) => started?,
        () = &mut interrupted => return Ok(()),
    };
    interrupted.await;
    eprintln!("\nstopping");
    if let Some(load) = load {
        load.stop().await;
    }
    match cluster {
        Cluster::Here(nodes) => {
            futures_util::future::join_all(nodes.into_iter().map(|node| node.drain(GRACE))).await;
        }
        Cluster::Processes(nodes) => tokio::task::spawn_blocking(move || nodes.stop()).await?,
    }
    Ok(())
}

/// The demo's nodes.
enum Cluster {
    /// In this process.
    Here(Vec<Node>),
    /// In processes of their own.
    Processes(Processes),
}

async fn start(options: &Options, directory: PathBuf, log_level: &LogLevel) -> anyhow::Result<(Cluster, Option<Load>)> {
    let upstream = scan_api::start().await?;
    let token = Secret::generate(SecretKind::Admin);
    let (cluster, addresses, control) = if options.processes {
        let (settings, control) = nodes::settings_and_control(options, &directory)?;
        let nodes = Processes::start(settings, &token, options.verbose).await?;
        let control = nodes.control(control)?;
        let addresses = nodes.addresses();
        (Cluster::Processes(nodes), addresses, Some(control))
    } else {
        let nodes = nodes::start(options, &directory, &token, log_level).await?;
        let addresses = nodes.iter().map(|node| Addresses::of(&node.info)).collect();
        (Cluster::Here(nodes), addresses, None)
    };
    let made = {
        let (url, token) = (format!("http://{}", addresses[0].admin), token.clone());
        tokio::task::spawn_blocking(move || setup::make(&url, &token, upstream)).await??
    };
    guide::print(&addresses, control, &token, &made)?;
    let load = options.with_load.then(|| Load::start(&addresses[0].data, &made));
    Ok((cluster, load))
}
