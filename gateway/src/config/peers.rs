//! Which address peers are told.

use super::Settings;

/// The address that peers are told, or why it cannot be known.
///
/// In order: `peer_advertise`; the entry of `join` that is `peer_addr`; the entry whose host is the node's name or begins
/// with it and a dot (as a StatefulSet's pods are called); `peer_addr` itself when it is not a wildcard.
pub(super) fn advertised(settings: &Settings) -> Result<String, String> {
    if !settings.peer_advertise.is_empty() {
        return Ok(settings.peer_advertise.clone());
    }
    let own = settings.peer_addr.to_string();
    let join = &settings.join.0;
    if join.is_empty() || join.contains(&own) {
        return Ok(own);
    }
    let by_name = join.iter().find(|peer| {
        peer.rsplit_once(':').is_some_and(|(host, _)| {
            host == settings.node_name || host.split_once('.').is_some_and(|(first, _)| first == settings.node_name)
        })
    });
    if let Some(peer) = by_name {
        return Ok(peer.clone());
    }
    Err(format!(
        "join: the list ({}) must have this node's own address among them: neither peer_addr {own} nor the name {} is in \
         it; add it, or say which one it is with --peer-advertise",
        settings.join, settings.node_name
    ))
}

/// Whether a text is `host:port`.
pub(super) fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')))
            && !host.contains(|c: char| c.is_whitespace() || c == '/')
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}
