//! The data plane's settings from the node's.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use store::Store;

use crate::{
    config::{Settings, network},
    otlp::Tracer,
    stack::{self, CompatHeaders, Timeouts},
    tls::{Connector, Listener},
};

/// Starts the data plane.
pub(super) fn start(
    settings: &Settings,
    listen: SocketAddr,
    tls: Option<Arc<Listener>>,
    upstream_tls: Arc<Connector>,
    tracer: Option<Arc<Tracer>>,
    store: Store,
) -> anyhow::Result<stack::Handle> {
    let stack = stack::Settings { tls, upstream_tls: Some(upstream_tls), tracer, ..stack_settings(settings, listen)? };
    stack::Server::start(stack, &Arc::new(store)).context("start the data plane")
}

fn stack_settings(settings: &Settings, listen: SocketAddr) -> anyhow::Result<stack::Settings> {
    let key_headers = settings.key_headers.0.iter().map(|name| name.parse().context("read key_headers"));
    let compat_headers = CompatHeaders::parse(settings.compat_headers.0.iter().map(String::as_str));
    Ok(stack::Settings {
        listen,
        cores: match settings.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        },
        node: settings.node_name.as_str().into(),
        region: settings.region.as_str().into(),
        max_connections: settings.max_connections,
        max_connections_per_address: settings.max_connections_per_address,
        key_headers: key_headers.collect::<anyhow::Result<_>>()?,
        compat_headers: compat_headers.map_err(anyhow::Error::msg).context("read compat_headers")?,
        trusted_proxies: settings.trusted_proxies.0.iter().filter_map(|text| network(text)).collect(),
        max_body_bytes: settings.max_body_bytes,
        timeouts: Timeouts {
            header_read: Duration::from_millis(settings.header_timeout_ms),
            keep_alive: Duration::from_millis(settings.keep_alive_ms),
            body_read: Duration::from_millis(settings.body_timeout_ms),
            write_stall: Duration::from_millis(settings.write_timeout_ms),
            upstream_first_byte: Duration::from_millis(settings.upstream_timeout_ms),
            ..Timeouts::default()
        },
        ..stack::Settings::default()
    })
}
