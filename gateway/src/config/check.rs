//! What must hold of settings together, and what is filled in from the host.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::Path,
};

use ipnet::IpNet;
use store::model::{MAX_LEDGER_GROUPS, canonical_network};

use super::{Error, List, Settings, peers};

/// Headers that no key may be in: HTTP itself, or what upstreams are told, needs them.
const NOT_FOR_KEYS: [&str; 9] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "te",
    "upgrade",
    "expect",
    "x-request-id",
];
/// Longest node or region name.
const MAX_NAME_CHARS: usize = 63;

/// Fills in what the host decides and checks everything; all reasons are told together.
pub(super) fn complete(settings: &mut Settings) -> Result<(), Error> {
    if settings.node_name.is_empty() {
        settings.node_name = host_name();
    }
    let mut reasons = Vec::new();
    listeners(settings, &mut reasons);
    certificates(settings, &mut reasons);
    names(settings, &mut reasons);
    numbers(settings, &mut reasons);
    lists(settings, &mut reasons);
    if settings.data_dir.as_os_str().is_empty() {
        reasons.push("data_dir is not set: give --data-dir DIR, TOLLGATE_DATA_DIR or data_dir in tollgate.toml".into());
    }
    if !settings.log_level.split(',').all(is_log_level) {
        reasons.push(format!(
            "log_level {:?}: expected error, warn, info, debug or trace, also by module like info,store=debug",
            settings.log_level
        ));
    }
    super::oidc::check(settings, &mut reasons);
    let collector = settings.otlp_endpoint.parse::<http::Uri>().ok();
    let scheme = collector.as_ref().filter(|uri| uri.host().is_some()).and_then(http::Uri::scheme_str);
    if !settings.otlp_endpoint.is_empty() && !matches!(scheme, Some("http" | "https")) {
        reasons.push(format!(
            "otlp_endpoint {:?}: expected the collector's base URL, like http://127.0.0.1:4318",
            settings.otlp_endpoint
        ));
    }
    match peers::advertised(settings) {
        Ok(address) => settings.peer_advertise = address,
        Err(reason) => reasons.push(reason),
    }
    if reasons.is_empty() { Ok(()) } else { Err(Error(reasons)) }
}

fn listeners(settings: &Settings, reasons: &mut Vec<String>) {
    let all =
        [("data_addr", settings.data_addr), ("admin_addr", settings.admin_addr), ("peer_addr", settings.peer_addr)];
    for (i, (key, addr)) in all.iter().enumerate() {
        for (other_key, other) in &all[i + 1..] {
            if addr == other && addr.port() != 0 {
                reasons.push(format!("{key} and {other_key} are both {addr}: give each listener its own port"));
            }
        }
    }
    let protected = [
        ("admin_addr", settings.admin_addr, has_some(&settings.admin_tls_cert), "--admin-tls-cert and --admin-tls-key"),
        (
            "peer_addr",
            settings.peer_addr,
            is_given(&settings.peer_tls_cert),
            "--peer-tls-cert, --peer-tls-key and --peer-tls-ca",
        ),
    ];
    for (key, addr, has_tls, flags) in protected {
        if !is_loopback(addr) && !has_tls && !settings.insecure {
            reasons.push(format!(
                "{key} {addr} is reachable from other hosts, and there is no TLS to protect it: give {flags}, listen on \
                 127.0.0.1, or say --insecure where the network itself is trusted"
            ));
        }
    }
}

fn has_some(list: &List) -> bool {
    !list.0.is_empty()
}

fn is_given(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// Which files of TLS belong together; that they can be read is found out when they are.
fn certificates(settings: &Settings, reasons: &mut Vec<String>) {
    for (place, certs, keys, client_ca) in [
        ("data", &settings.data_tls_cert, &settings.data_tls_key, &settings.data_tls_client_ca),
        ("admin", &settings.admin_tls_cert, &settings.admin_tls_key, &settings.admin_tls_client_ca),
    ] {
        let (certs, keys) = (certs.0.len(), keys.0.len());
        if certs != keys {
            reasons.push(format!(
                "{place}_tls_cert names {certs} files and {place}_tls_key {keys}: give each certificate its key, in the same order"
            ));
        }
        if is_given(client_ca) && certs == 0 {
            reasons.push(format!(
                "{place}_tls_client_ca is given and {place}_tls_cert is not: clients show certificates only over TLS"
            ));
        }
    }
    let peer = [&settings.peer_tls_cert, &settings.peer_tls_key, &settings.peer_tls_ca].map(|path| is_given(path));
    if peer.contains(&true) && peer.contains(&false) {
        reasons.push("peer_tls_cert, peer_tls_key and peer_tls_ca belong together: give all three, or none".into());
    }
    if is_given(&settings.upstream_tls_cert) != is_given(&settings.upstream_tls_key) {
        reasons.push("upstream_tls_cert and upstream_tls_key belong together: give both, or none".into());
    }
}

fn names(settings: &Settings, reasons: &mut Vec<String>) {
    for (key, name, required) in [("node_name", &settings.node_name, true), ("region", &settings.region, false)] {
        let fits = name.len() <= MAX_NAME_CHARS
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !(fits || name.is_empty() && !required) {
            reasons.push(format!(
                "{key} {name:?}: expected up to {MAX_NAME_CHARS} letters, digits, '.', '_' and '-', beginning with a letter \
                 or digit"
            ));
        }
    }
}

fn numbers(settings: &Settings, reasons: &mut Vec<String>) {
    if ![1, 3, 5].contains(&settings.voters) {
        reasons.push(format!("voters {}: expected 1, 3 or 5", settings.voters));
    }
    within(reasons, "ledger_groups", settings.ledger_groups, 1..=u8::try_from(MAX_LEDGER_GROUPS).unwrap_or(u8::MAX));
    const HOUR_MS: u64 = 3_600_000;
    within(reasons, "commit_deadline_ms", settings.commit_deadline_ms, 10..=60_000);
    within(reasons, "max_waiting_rows", settings.max_waiting_rows, 1..=4_194_304);
    within(reasons, "log_retention_days", settings.log_retention_days, 1..=3_650);
    within(reasons, "workers", settings.workers, 0..=1_024);
    within(reasons, "max_connections", settings.max_connections, 1..=10_000_000);
    within(reasons, "max_connections_per_address", settings.max_connections_per_address, 0..=10_000_000);
    within(reasons, "max_body_bytes", settings.max_body_bytes, 1..=1 << 50);
    within(reasons, "admin_body_bytes", settings.admin_body_bytes, 1_024..=64 << 20);
    within(reasons, "header_timeout_ms", settings.header_timeout_ms, 1..=HOUR_MS);
    within(reasons, "body_timeout_ms", settings.body_timeout_ms, 1..=HOUR_MS);
    within(reasons, "write_timeout_ms", settings.write_timeout_ms, 1..=HOUR_MS);
    within(reasons, "keep_alive_ms", settings.keep_alive_ms, 1..=24 * HOUR_MS);
    within(reasons, "upstream_timeout_ms", settings.upstream_timeout_ms, 1..=HOUR_MS);
    within(reasons, "drain_delay_seconds", settings.drain_delay_seconds, 0..=3_600);
    within(reasons, "tls_reload_ms", settings.tls_reload_ms, 100..=HOUR_MS);
    within(reasons, "oidc_session_minutes", settings.oidc_session_minutes, 1..=10_080);
    within(reasons, "oidc_visits_per_minute", u64::from(settings.oidc_visits_per_minute), 1..=1_000_000);
    within(reasons, "otlp_sample_ratio", settings.otlp_sample_ratio, 0.0..=1.0);
    within(reasons, "otlp_metrics_seconds", settings.otlp_metrics_seconds, 0..=86_400);
    within(reasons, "drain_seconds", settings.drain_seconds, 0..=86_400);
}

fn within<T: PartialOrd + Display + Copy>(reasons: &mut Vec<String>, key: &str, value: T, range: RangeInclusive<T>) {
    if !range.contains(&value) {
        reasons.push(format!("{key} {value}: expected {} to {}", range.start(), range.end()));
    }
}

fn lists(settings: &Settings, reasons: &mut Vec<String>) {
    for peer in settings.join.0.iter().chain((!settings.peer_advertise.is_empty()).then_some(&settings.peer_advertise))
    {
        if !peers::is_host_port(peer) {
            reasons.push(format!("join: {peer:?} is not a peer's address: expected host:port, like 10.0.0.7:8082"));
        }
    }
    for (i, peer) in settings.join.0.iter().enumerate() {
        if settings.join.0[..i].contains(peer) {
            reasons.push(format!("join: {peer} stands twice in the list: name each peer once"));
        }
    }
    if settings.key_headers.0.is_empty() {
        reasons.push("key_headers is empty: name at least one header, like x-api-key".into());
    }
    for header in &settings.key_headers.0 {
        if header.parse::<http::HeaderName>().is_err() {
            reasons.push(format!("key_headers: {header:?} is not a header's name: expected one like x-api-key"));
        }
        if NOT_FOR_KEYS.iter().any(|other| header.eq_ignore_ascii_case(other)) {
            reasons.push(format!(
                "key_headers: {header} has a meaning of its own and would be taken out of every request: choose another"
            ));
        }
    }
    for text in &settings.trusted_proxies.0 {
        if network(text).is_none() {
            reasons.push(format!(
                "trusted_proxies: {text:?} is no network: expected one like 10.0.0.0/8 or 2001:db8::/32, or an address"
            ));
        }
    }
    for set in &settings.compat_headers.0 {
        if !["x-rate-limit", "x-quota"].contains(&set.as_str()) {
            reasons.push(format!("compat_headers: {set:?} is not known: expected x-rate-limit or x-quota"));
        }
    }
}

/// A network, or an address alone.
pub fn network(text: &str) -> Option<IpNet> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().map(|net| net.trunc()).or_else(alone).map(canonical_network)
}

/// Whether a text is a level, or a module with its level.
pub fn is_log_level(text: &str) -> bool {
    let (module, level) = text.split_once('=').unwrap_or(("tollgate", text));
    !module.is_empty()
        && module.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
        && ["off", "error", "warn", "info", "debug", "trace"].contains(&level)
}

/// Whether only this host can connect.
fn is_loopback(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}

/// The host's name, in the letters that node names have.
fn host_name() -> String {
    let raw = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let clean: String = raw
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(MAX_NAME_CHARS)
        .collect();
    if clean.is_empty() { "node".into() } else { clean }
}
