//! Where log lines and metrics of the process go.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::{
    admin::{LogLevel, Prometheus},
    config::LogFormat,
};

/// openraft's "info" is a line for each of its steps, its "warn" one for each message to a peer that is down (the store
/// says that once), and an access event is one for each request: all are for those who ask for them by name.
const QUIET: &str = "openraft=error,access=off";
/// Bounds of the latency histograms in seconds: from 100 us to 10 s, finer where requests are.
const SECONDS: [f64; 17] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.006, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How often histograms are drained of what was recorded, so that a node that nobody scrapes keeps little.
const UPKEEP: Duration = Duration::from_secs(5);

/// Writes log lines to stderr: nothing but answers goes to stdout.
///
/// # Errors
/// The level cannot be read, or the process logs already.
pub fn log_to_stderr(level: &str, format: LogFormat) -> anyhow::Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(targets(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let control = LogLevel::new(level, move |level| {
        let targets = targets(level).map_err(|error| error.to_string())?;
        handle.reload(targets).map_err(|error| error.to_string())
    });
    let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(colours)).try_init()?,
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(control)
}

fn targets(level: &str) -> anyhow::Result<Targets> {
    // What the level says of a module comes last and wins.
    Ok(format!("{QUIET},{level}").parse()?)
}

/// Installs the process's metrics recorder, on a runtime. All nodes of a process share it.
///
/// # Errors
/// Another recorder is installed.
pub fn metrics() -> anyhow::Result<Prometheus> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?;
    let handle = builder.install_recorder()?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    Ok(Prometheus(handle))
}
