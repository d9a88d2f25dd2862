//! The client's side of TLS: towards upstreams, and the command line's towards the admin API.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::WantsClientCert,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use zeroize::Zeroizing;

use super::{Certificate, ClientFiles, Error, HTTP1, HTTP2, pem, provider};

/// The name of this place in messages and metrics.
pub(super) const PLACE: &str = "upstream";

/// Makes connections over TLS, as it is configured now.
#[derive(Debug)]
pub struct Connector {
    files: ClientFiles,
    /// For HTTP/1.1 and for HTTP/2: a client offers what it will speak.
    config: ArcSwap<[Arc<ClientConfig>; 2]>,
}

impl Connector {
    /// From files.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn new(files: ClientFiles) -> Result<(Arc<Self>, Vec<Certificate>), Error> {
        let (config, certificates) = configure(&files)?;
        Ok((Arc::new(Self { files, config: ArcSwap::from_pointee(config) }), certificates))
    }

    /// Reads the files anew; connections from now on use what they say.
    ///
    /// # Errors
    /// A file cannot be used: nothing has changed then.
    pub(super) fn reload(&self) -> Result<Vec<Certificate>, Error> {
        let (config, certificates) = configure(&self.files)?;
        self.config.store(Arc::new(config));
        Ok(certificates)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &std::path::Path> {
        let identity = self.files.identity.iter().flat_map(|(cert, key)| [cert, key]);
        self.files.ca.iter().chain(identity).map(std::path::PathBuf::as_path)
    }

    /// The handshake with a server of this name.
    ///
    /// # Errors
    /// Its certificate is not of an authority that is trusted, or not of this name, or it wants one of us.
    pub async fn connect(
        &self,
        name: ServerName<'static>,
        stream: TcpStream,
        http2: bool,
    ) -> io::Result<TlsStream<TcpStream>> {
        let config = self.config.load()[usize::from(http2)].clone();
        TlsConnector::from(config).connect(name, stream).await
    }
}

fn configure(files: &ClientFiles) -> Result<([Arc<ClientConfig>; 2], Vec<Certificate>), Error> {
    let roots = match &files.ca {
        Some(path) => pem::authorities(path)?,
        // Without them a node can still have upstreams that speak no TLS; one that does is refused when it is called.
        None => system_roots().unwrap_or_else(|_| RootCertStore::empty()),
    };
    let builder = client_config(roots)?;
    let mut certificates = Vec::new();
    let mut config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = pem::certified(cert, key)?.cert;
            certificates.extend(Certificate::read(PLACE, &chain));
            builder.with_client_auth_cert(chain, pem::key(key)?)?
        }
    };
    config.alpn_protocols = vec![HTTP1.to_vec()];
    let http2 = Arc::new(with_protocol(config.clone(), HTTP2));
    Ok(([Arc::new(config), http2], certificates))
}

fn with_protocol(mut config: ClientConfig, protocol: &[u8]) -> ClientConfig {
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}

/// A client's configuration that lacks its own certificate only.
pub(super) fn client_config(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots))
}

fn system_roots() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system_certificates()?);
    Ok(roots)
}

fn system_certificates() -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or_else(|| "none were found".to_owned(), ToString::to_string);
        return Err(Error::NoSystemRoots(why));
    }
    Ok(found.certs)
}

/// Whom a blocking client trusts and what it shows, for clients that bring their own TLS.
#[derive(Debug)]
pub struct Roots {
    /// Authorities.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Chain, and the private key's PEM.
    pub identity: Option<(Vec<CertificateDer<'static>>, Zeroizing<Vec<u8>>)>,
}

impl Roots {
    /// From files; the system's authorities where none is named.
    ///
    /// # Errors
    /// A file cannot be used, or the system has no authorities.
    pub fn read(files: &ClientFiles) -> Result<Self, Error> {
        let authorities = match &files.ca {
            Some(path) => pem::chain(path)?,
            None => system_certificates()?,
        };
        let identity = files.identity.as_ref().map(|(cert, key)| Ok::<_, Error>((pem::chain(cert)?, pem::read(key)?)));
        Ok(Self { authorities, identity: identity.transpose()? })
    }
}
