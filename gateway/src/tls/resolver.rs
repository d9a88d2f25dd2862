//! Which certificate a client is shown: by the host it names (SNI), else the first.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Certificates by the names they were issued for.
#[derive(Debug)]
pub(super) struct Resolver {
    first: Arc<CertifiedKey>,
    /// Exact names, and wildcards as `*.rest`.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Resolver {
    /// Of at least one certificate, each with its names; a name that several have belongs to the earliest.
    pub(super) fn new(certificates: Vec<(Arc<CertifiedKey>, Vec<String>)>) -> Option<Self> {
        let first = certificates.first()?.0.clone();
        let mut by_name = HashMap::new();
        for (certificate, names) in certificates {
            for name in names {
                by_name.entry(name).or_insert_with(|| certificate.clone());
            }
        }
        Some(Self { first, by_name })
    }

    fn find(&self, host: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(host) = host else { return &self.first };
        let host = host.to_ascii_lowercase();
        // A wildcard stands for one label (RFC 9525 §6.3).
        let wildcard = || self.by_name.get(&format!("*.{}", host.split_once('.')?.1));
        self.by_name.get(&host).or_else(wildcard).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.find(hello.server_name()).clone())
    }
}
