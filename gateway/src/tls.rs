//! TLS: certificates from files, read anew when the files change, for listeners, peers and upstreams.
//!
//! A connection keeps the certificates it began with; a change counts for the next handshake, so nothing is dropped. What
//! cannot be read is told and changes nothing: the certificates that were good stay.
//!
//! Never here: who is let in. A client's certificate is a lock before the door; keys and tokens decide as without it.

mod agent;
mod certificate;
mod client;
mod listener;
mod peer;
mod pem;
mod resolver;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::crypto::CryptoProvider;

pub use agent::for_agents;
pub use certificate::Certificate;
pub use client::{Connector, Roots};
pub use listener::Listener;
pub use peer::peer_tls;
pub use stream::Stream;
pub use watch::{Certificates, Watch};

/// Reads bytes as a file of certificates, and as a certificate, for fuzzing.
pub(crate) fn parse_for_fuzz(bytes: &[u8]) {
    if let Ok(chain) = pem::chain_of(bytes, std::path::Path::new("fuzz")) {
        let _ = Certificate::read("fuzz", &chain);
    }
    let _ = Certificate::read("fuzz", &[rustls::pki_types::CertificateDer::from(bytes)]);
}

/// Protocols that a client may choose (ALPN).
pub const HTTP1: &[u8] = b"http/1.1";
/// HTTP/2.
pub const HTTP2: &[u8] = b"h2";

/// A listener's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerFiles {
    /// Certificate chains; the first is shown to clients that name no host, or none of those known.
    pub certs: Vec<PathBuf>,
    /// Their private keys, in the same order.
    pub keys: Vec<PathBuf>,
    /// Authorities of client certificates; none are asked for without.
    pub client_ca: Option<PathBuf>,
    /// Whether a client may come without a certificate all the same.
    pub client_optional: bool,
}

/// A node's one certificate for both directions, and whom it trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MutualFiles {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of the other side.
    pub ca: PathBuf,
}

/// What a client shows and whom it trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Authorities of servers; the system's when not said.
    pub ca: Option<PathBuf>,
    /// Certificate chain and private key to show.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why certificates are of no use. Each says which file, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("read {path}: {error}: give a file that this user can read")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's words.
        error: String,
    },
    /// It is not what it should be.
    #[error("{path}: {problem}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No authorities of the system.
    #[error("the system has no certificates of authorities ({0}): name a file with upstream_ca or --ca")]
    NoSystemRoots(String),
    /// The parts do not make a configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Self::Setup(error.to_string())
    }
}

/// Time in which a handshake must be done where nothing else bounds it.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// ring's algorithms.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
