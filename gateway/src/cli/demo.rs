//! `tollgate demo`

use std::net::SocketAddr;

use clap::Args;

use super::failure::Result;
use crate::demo::{self, Options};

/// `demo`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate demo
  tollgate demo --nodes 3 --with-load")]
pub(crate) struct Arguments {
    /// Nodes, all in this process
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Keeps the data directory at the end
    #[arg(long)]
    keep: bool,
    /// Sends steady traffic
    #[arg(long)]
    with_load: bool,
    /// Data plane of the first node; 127.0.0.1:8080, or a free port when that is taken
    #[arg(long, value_name = "ADDR:PORT")]
    data_addr: Option<SocketAddr>,
    /// Admin API of the first node; 127.0.0.1:8081, or a free port when that is taken
    #[arg(long, value_name = "ADDR:PORT")]
    admin_addr: Option<SocketAddr>,
    /// Each node is a process of its own, and a control listener kills and starts them, as load tests with chaos want it
    #[arg(long)]
    processes: bool,
    /// Logs what the nodes do
    #[arg(long, short)]
    verbose: bool,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        Ok(demo::run(&Options {
            nodes: self.nodes,
            keep: self.keep,
            with_load: self.with_load,
            data_addr: self.data_addr,
            admin_addr: self.admin_addr,
            verbose: self.verbose,
            processes: self.processes,
        })?)
    }
}
