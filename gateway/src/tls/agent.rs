//! TLS for calls that wait: the command line's, and those to an identity provider.

use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::{ClientFiles, Error, Roots, provider};

/// The configuration of an agent that trusts and shows what the files say.
///
/// # Errors
/// A file cannot be used.
pub fn for_agents(files: &ClientFiles) -> Result<TlsConfig, Error> {
    let roots = Roots::read(files)?;
    let authorities: Vec<_> = roots.authorities.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let identity = roots.identity.map(|(chain, pem)| {
        let key = PrivateKey::from_pem(&pem).map_err(|error| Error::Setup(format!("the private key: {error}")))?;
        let chain: Vec<_> = chain.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        Ok::<_, Error>(ClientCert::new_with_certs(&chain, key))
    });
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider())
        .root_certs(RootCerts::new_with_certs(&authorities))
        .client_cert(identity.transpose()?)
        .build())
}
