//! Certificates, keys and authorities from PEM files. Bytes of files never panic.

use std::path::Path;

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use super::{Error, provider};

/// Largest file that is read: a bundle of all public authorities has about 250 KB.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A file's bytes, wiped when dropped: it may be a key.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |error: String| Error::Read { path: path.to_owned(), error };
    let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > MAX_FILE_BYTES {
        return Err(failed(format!("it has {length} bytes, at most {MAX_FILE_BYTES} are read")));
    }
    std::fs::read(path).map(Zeroizing::new).map_err(|error| failed(error.to_string()))
}

fn content(path: &Path, problem: impl Into<String>) -> Error {
    Error::Content { path: path.to_owned(), problem: problem.into() }
}

/// All certificates of a file, at least one.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    chain_of(&read(path)?, path)
}

/// All certificates of a file's bytes.
pub(super) fn chain_of(bytes: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let certs = certs.map_err(|error| content(path, format!("not PEM: {error}")))?;
    if certs.is_empty() {
        return Err(content(path, "no certificate in it: expected PEM with -----BEGIN CERTIFICATE-----"));
    }
    Ok(certs)
}

/// A file's first private key.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        content(path, format!("no private key in it ({error}): expected PEM with -----BEGIN PRIVATE KEY-----"))
    })
}

/// A chain with its key, which must belong to it.
pub(super) fn certified(cert: &Path, key_path: &Path) -> Result<CertifiedKey, Error> {
    CertifiedKey::from_der(chain(cert)?, key(key_path)?, &provider()).map_err(|error| {
        let problem = match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("it is not the private key of {}: give the two in the same order", cert.display())
            }
            error => format!("it cannot be used with {}: {error}", cert.display()),
        };
        content(key_path, problem)
    })
}

/// Authorities to trust.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for cert in chain(path)? {
        roots.add(cert).map_err(|error| content(path, format!("a certificate in it is no authority's: {error}")))?;
    }
    Ok(roots)
}
