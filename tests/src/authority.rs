//! A certificate authority for tests: everything it issues is new each time.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// An authority that issues into a directory.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
}

impl Authority {
    /// A new one; its certificate is `ca.crt` in the directory, which is made.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn new(dir: &Path) -> Self {
        let mut params = CertificateParams::default();
        // Two authorities of one name would be told apart by their signatures only.
        params.distinguished_name.push(DnType::CommonName, dir.display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        fs::create_dir_all(dir).expect("make the authority's directory");
        fs::write(dir.join("ca.crt"), issuer.pem()).expect("write the authority's certificate");
        Self { issuer, dir: dir.to_owned() }
    }

    /// The file of its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Issues `<file>.crt` and `<file>.key`, for servers and clients, in the place of what was there.
    ///
    /// # Panics
    /// When a name is none, or the files cannot be written.
    pub fn issue(&self, file: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        let (cert_path, key_path) = (self.dir.join(format!("{file}.crt")), self.dir.join(format!("{file}.key")));
        fs::write(&cert_path, cert.pem()).expect("write a certificate");
        fs::write(&key_path, key.serialize_pem()).expect("write a key");
        (cert_path, key_path)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.dir.display())
    }
}
