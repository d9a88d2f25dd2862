//! Finds out before anything is opened whether the addresses can be listened on.

use std::net::{SocketAddr, TcpListener};

use anyhow::Context;

/// Listens.
pub(crate) fn bind(key: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).map_err(|error| anyhow::anyhow!(refusal(key, addr, &error)))
}

/// Whether an address can be listened on, and which port 0 would be. The data plane listens with `SO_REUSEPORT`, which a
/// second process of the same user could do too without an error: this is what tells them apart.
pub(crate) fn probe(key: &str, addr: SocketAddr) -> anyhow::Result<SocketAddr> {
    bind(key, addr)?.local_addr().with_context(|| format!("read the address of {key}"))
}

fn refusal(key: &str, addr: SocketAddr, error: &std::io::Error) -> String {
    let flag = key.replace('_', "-");
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{key} {addr} is in use by another process: end it, or choose another address with --{flag}")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!("{key} {addr} is not an address of this host: choose one with --{flag}")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("{key} {addr} may not be listened on by this user: choose a port from 1024 with --{flag}")
        }
        _ => format!("listen on {key} {addr}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_told_with_its_key_and_what_to_do() {
        let taken = bind("data_addr", "127.0.0.1:0".parse().expect("an address")).expect("free");
        let addr = taken.local_addr().expect("bound");
        let error = probe("data_addr", addr).expect_err("taken").to_string();
        assert_eq!(
            error,
            format!(
                "data_addr {addr} is in use by another process: end it, or choose another address with --data-addr"
            )
        );
        let error = probe("peer_addr", "192.0.2.1:1".parse().expect("an address")).expect_err("not ours").to_string();
        assert!(error.contains("--peer-addr"), "{error}");
    }
}
