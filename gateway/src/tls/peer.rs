//! Mutual TLS between nodes: one certificate for both directions.

use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};
use store::PeerTls;

use super::{Certificate, Error, MutualFiles, client::client_config, listener::server_config, pem};

/// The name of this place in messages and metrics.
pub(super) const PLACE: &str = "peer";

/// What the store's connections use, from files.
///
/// # Errors
/// A file cannot be used.
pub fn peer_tls(files: &MutualFiles) -> Result<(Arc<PeerTls>, Certificate), Error> {
    let (accept, connect, certificate) = configure(files)?;
    Ok((Arc::new(PeerTls::new(accept, connect)), certificate))
}

/// Both directions.
pub(super) fn configure(files: &MutualFiles) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>, Certificate), Error> {
    let chain = pem::certified(&files.cert, &files.key)?.cert;
    let certificate = Certificate::read(PLACE, &chain).ok_or_else(|| Error::Content {
        path: files.cert.clone(),
        problem: "its first certificate cannot be read: the chain begins with the node's own".into(),
    })?;
    let roots = pem::authorities(&files.ca)?;
    let accept = server_config(Some(roots.clone()), false)?.with_single_cert(chain.clone(), pem::key(&files.key)?)?;
    let connect = client_config(roots)?.with_client_auth_cert(chain, pem::key(&files.key)?)?;
    Ok((Arc::new(accept), Arc::new(connect), certificate))
}
