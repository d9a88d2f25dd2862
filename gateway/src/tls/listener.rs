//! The server's side of TLS.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use metrics::{Counter, counter};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Certificate, Error, ListenerFiles, pem, provider, resolver::Resolver};
use crate::telemetry::TLS_HANDSHAKE_FAILURES;

/// A listener's TLS, as it is configured now.
#[derive(Debug)]
pub struct Listener {
    place: &'static str,
    files: ListenerFiles,
    protocols: Vec<Vec<u8>>,
    config: ArcSwap<ServerConfig>,
    failures: Counter,
}

impl Listener {
    /// From files. `place` names the listener in messages and metrics; `protocols` are offered in this order.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn new(
        place: &'static str,
        files: ListenerFiles,
        protocols: &[&[u8]],
    ) -> Result<(Arc<Self>, Vec<Certificate>), Error> {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.to_vec()).collect();
        let (config, certificates) = configure(place, &files, &protocols)?;
        let failures = counter!(TLS_HANDSHAKE_FAILURES, "listener" => place);
        let listener = Self { place, files, protocols, config: ArcSwap::new(config), failures };
        Ok((Arc::new(listener), certificates))
    }

    /// Reads the files anew; connections from now on use what they say.
    ///
    /// # Errors
    /// A file cannot be used: nothing has changed then.
    pub(super) fn reload(&self) -> Result<Vec<Certificate>, Error> {
        let (config, certificates) = configure(self.place, &self.files, &self.protocols)?;
        self.config.store(config);
        Ok(certificates)
    }

    pub(super) fn place(&self) -> &'static str {
        self.place
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &std::path::Path> {
        let files = &self.files;
        files.certs.iter().chain(&files.keys).chain(&files.client_ca).map(std::path::PathBuf::as_path)
    }

    /// The handshake; whoever calls bounds its time.
    ///
    /// # Errors
    /// The client spoke no TLS, refused the certificate, or showed none where one is asked for.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let accepted = TlsAcceptor::from(self.config.load_full()).accept(stream).await;
        if let Err(error) = &accepted {
            self.failures.increment(1);
            tracing::debug!(listener = self.place, %error, "TLS handshake failed");
        }
        accepted
    }
}

fn configure(
    place: &'static str,
    files: &ListenerFiles,
    protocols: &[Vec<u8>],
) -> Result<(Arc<ServerConfig>, Vec<Certificate>), Error> {
    let (mut keys, mut certificates) = (Vec::new(), Vec::new());
    for (cert, key) in files.certs.iter().zip(&files.keys) {
        let certified = pem::certified(cert, key)?;
        let certificate = Certificate::read(place, &certified.cert).ok_or_else(|| Error::Content {
            path: cert.clone(),
            problem: "its first certificate cannot be read: the chain begins with the server's own".into(),
        })?;
        keys.push((Arc::new(certified), certificate.names.clone()));
        certificates.push(certificate);
    }
    let resolver = Resolver::new(keys).ok_or_else(|| Error::Setup(format!("no certificate for {place}")))?;
    let client_roots = files.client_ca.as_deref().map(pem::authorities).transpose()?;
    let mut config = server_config(client_roots, files.client_optional)?.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = protocols.to_vec();
    Ok((Arc::new(config), certificates))
}

/// A server's configuration that lacks its certificate only.
pub(super) fn server_config(
    client_roots: Option<RootCertStore>,
    client_optional: bool,
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>, Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let Some(roots) = client_roots else { return Ok(builder.with_no_client_auth()) };
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = if client_optional { verifier.allow_unauthenticated() } else { verifier };
    let verifier = verifier.build().map_err(|error| Error::Setup(error.to_string()))?;
    Ok(builder.with_client_cert_verifier(verifier))
}
