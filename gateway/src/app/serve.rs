//! `tollgate serve`: a node from its start to its signal.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Node;
use crate::{admin::LogLevel, config::Settings, operator::Bootstrap};

/// Runs a node until SIGTERM or SIGINT; a second signal ends it at once.
///
/// # Errors
/// What kept it from starting, with what to do.
pub fn serve(settings: &Settings, admin_token: Option<String>) -> anyhow::Result<()> {
    store::end_process_on_panic();
    // Keys and tokens pass through this memory: no core dump of it, and no debugger but root's. Where the kernel refuses,
    // there still is the unit's LimitCORE.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let log_level = super::log_to_stderr(&settings.log_level, settings.log_format).context("set up the log")?;
    let bootstrap = Bootstrap::find(&settings.admin_token_file, admin_token).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("tollgate-store")
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(run(settings, bootstrap, log_level))
}

async fn run(settings: &Settings, bootstrap: Bootstrap, log_level: LogLevel) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    // From now on: without a listener a SIGHUP would end the process.
    let mut hang_up = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let metrics = super::metrics().context("set up the metrics")?;
    let node = tokio::select! {
        node = Box::pin(Node::start(settings, bootstrap, metrics, log_level)) => node?,
        // The data directory is as after a crash, which a start recovers from.
        name = signals.next() => {
            tracing::info!(signal = name, "asked to stop while starting");
            return Ok(());
        }
    };
    tokio::select! {
        () = async {
            node.ready().await;
            tracing::info!("ready");
            loop {
                hang_up.recv().await;
                tracing::info!("SIGHUP: reading certificates anew");
                node.reload();
            }
        } => {}
        name = signals.next() => tracing::info!(signal = name, "asked to stop"),
        reason = node.store.failed() => {
            node.abandon(Duration::from_millis(settings.commit_deadline_ms)).await;
            anyhow::bail!(
                "the node has failed and stopped: {reason}. Nothing that was answered is lost; see to the disk of data_dir {} \
                 (space, errors in the kernel's log), then start the node again with the same command",
                settings.data_dir.display()
            );
        }
    }
    let drained = async {
        node.step_back(Duration::from_secs(settings.drain_delay_seconds)).await;
        node.drain(Duration::from_secs(settings.drain_seconds)).await;
    };
    tokio::select! {
        () = drained => Ok(()),
        name = signals.next() => anyhow::bail!("{name} a second time: stopped without waiting for what was in flight"),
    }
}

/// Waits for SIGTERM or SIGINT, from now on.
///
/// # Errors
/// The process cannot listen for signals.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut signals = Signals::new()?;
    Ok(async move {
        signals.next().await;
    })
}

/// The signals that end a node.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
