//! What people want to know of a certificate: its names, and until when it is valid.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, prelude::*};

/// A certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// For what: `data`, `admin`, `peer` or `upstream`.
    pub place: &'static str,
    /// DNS names and addresses that it was issued for; its subject where there are none.
    pub names: Vec<String>,
    /// Seconds of Unix time.
    pub not_before: i64,
    /// Seconds of Unix time; afterwards it is refused.
    pub not_after: i64,
}

impl Certificate {
    /// Reads what is in the first certificate of a chain.
    pub(super) fn read(place: &'static str, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(chain.first()?).ok()?;
        let validity = parsed.validity();
        let mut names = names(&parsed);
        if names.is_empty() {
            names.push(parsed.subject().to_string());
        }
        Some(Self {
            place,
            names,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// The first name.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// What is wrong with its time, if anything.
    pub(super) fn trouble(&self, now: SystemTime) -> Option<String> {
        let now = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()).unwrap_or(i64::MAX);
        if now > self.not_after {
            return Some(format!("it expired {} h ago: others refuse it", (now - self.not_after) / 3_600));
        }
        if now < self.not_before {
            return Some(format!("it is valid only in {} h: others refuse it", (self.not_before - now) / 3_600 + 1));
        }
        None
    }
}

/// DNS names (also wildcards) in lower case, and addresses.
fn names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = parsed.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    };
    alternatives.value.general_names.iter().filter_map(name).collect()
}
