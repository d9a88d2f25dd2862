//! Looks after the files: a change of any is read within a period, or at once when asked.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use metrics::{counter, gauge};
use store::PeerTls;
use tokio::sync::Notify;

use super::{Certificate, Connector, Error, Listener, MutualFiles, client, peer};
use crate::telemetry::{TLS_HANDSHAKE_FAILURES, TLS_NOT_AFTER, TLS_RELOAD_FAILURES, TLS_RELOADS};

/// The certificates that a node uses now, for whoever shows them.
#[derive(Debug, Default)]
pub struct Certificates(ArcSwap<Vec<Certificate>>);

impl Certificates {
    /// All of them.
    pub fn all(&self) -> Arc<Vec<Certificate>> {
        self.0.load_full()
    }
}

/// What is watched.
#[derive(Debug)]
enum Kind {
    Listener(Arc<Listener>),
    Peer(MutualFiles, Arc<PeerTls>),
    Upstream(Arc<Connector>),
}

#[derive(Debug)]
struct Item {
    kind: Kind,
    /// The files as they were when they were read last, with or without success.
    seen: Vec<Option<Stamp>>,
    certificates: Vec<Certificate>,
}

/// A version of a file. Symbolic links are followed, so that the swap of a directory is seen.
type Stamp = (SystemTime, u64, u64);

/// See the module's head.
#[derive(Debug, Default)]
pub struct Watch {
    items: Vec<Item>,
    shown: Arc<Certificates>,
    now: Arc<Notify>,
}

impl Watch {
    /// Watches a listener's files.
    pub fn listener(&mut self, listener: Arc<Listener>, certificates: Vec<Certificate>) {
        self.add(Kind::Listener(listener), certificates);
    }

    /// Watches the peers' files.
    pub fn peer(&mut self, files: MutualFiles, tls: Arc<PeerTls>, certificate: Certificate) {
        self.add(Kind::Peer(files, tls), vec![certificate]);
    }

    /// Watches the files that upstreams are called with.
    pub fn upstream(&mut self, connector: Arc<Connector>, certificates: Vec<Certificate>) {
        self.add(Kind::Upstream(connector), certificates);
    }

    /// The certificates, kept up to date.
    pub fn certificates(&self) -> Arc<Certificates> {
        self.shown.clone()
    }

    /// Looks at once when it is notified.
    pub fn asked(&self) -> Arc<Notify> {
        self.now.clone()
    }

    fn add(&mut self, kind: Kind, certificates: Vec<Certificate>) {
        for certificate in &certificates {
            tell(certificate);
        }
        // There from the start: what a rule watches must not begin with its first failure.
        counter!(TLS_RELOADS, "listener" => kind.place()).increment(0);
        counter!(TLS_RELOAD_FAILURES, "listener" => kind.place()).increment(0);
        let seen = kind.stamps();
        self.items.push(Item { kind, seen, certificates });
        self.show();
    }

    /// Looks every so often, for ever; ends at once when there is nothing to watch.
    pub async fn run(mut self, every: Duration) {
        while !self.items.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(every) => self.look(false),
                () = self.now.clone().notified_owned() => self.look(true),
            }
        }
    }

    /// Reads what has changed; everything when it was asked for.
    pub(crate) fn look(&mut self, all: bool) {
        let mut changed = false;
        for item in &mut self.items {
            if let Kind::Peer(_, tls) = &item.kind {
                counter!(TLS_HANDSHAKE_FAILURES, "listener" => peer::PLACE).absolute(tls.refused());
            }
            let stamps = item.kind.stamps();
            if stamps == item.seen && !all {
                continue;
            }
            item.seen = stamps;
            let place = item.kind.place();
            match item.kind.reload() {
                Ok(certificates) => {
                    counter!(TLS_RELOADS, "listener" => place).increment(1);
                    for certificate in &certificates {
                        tell(certificate);
                    }
                    changed = true;
                    item.certificates = certificates;
                }
                Err(error) => {
                    counter!(TLS_RELOAD_FAILURES, "listener" => place).increment(1);
                    tracing::error!(listener = place, %error, "certificates changed and cannot be used: the old ones stay");
                }
            }
        }
        if changed {
            self.show();
        }
    }

    fn show(&self) {
        let all: Vec<Certificate> = self.items.iter().flat_map(|item| item.certificates.iter().cloned()).collect();
        for old in self.shown.all().iter().filter(|old| !all.iter().any(|new| same_series(old, new))) {
            // A gauge cannot be taken back: one that is nobody's any more says "no time", which no alert matches.
            gauge!(TLS_NOT_AFTER, "listener" => old.place, "name" => old.name().to_owned()).set(f64::INFINITY);
        }
        for certificate in &all {
            gauge!(TLS_NOT_AFTER, "listener" => certificate.place, "name" => certificate.name().to_owned())
                .set(certificate.not_after as f64);
        }
        self.shown.0.store(Arc::new(all));
    }
}

fn same_series(a: &Certificate, b: &Certificate) -> bool {
    a.place == b.place && a.name() == b.name()
}

fn tell(certificate: &Certificate) {
    let Certificate { place, not_after, .. } = certificate;
    match certificate.trouble(SystemTime::now()) {
        None => {
            tracing::info!(listener = place, name = certificate.name(), not_after, "certificate in use");
        }
        Some(trouble) => {
            tracing::error!(listener = place, name = certificate.name(), not_after, %trouble, "certificate is of no use");
        }
    }
}

impl Kind {
    fn place(&self) -> &'static str {
        match self {
            Self::Listener(listener) => listener.place(),
            Self::Peer(..) => peer::PLACE,
            Self::Upstream(_) => client::PLACE,
        }
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        match self {
            Self::Listener(listener) => listener.paths().map(stamp).collect(),
            Self::Peer(files, _) => [&files.cert, &files.key, &files.ca].map(|path| stamp(path)).into(),
            Self::Upstream(connector) => connector.paths().map(stamp).collect(),
        }
    }

    fn reload(&self) -> Result<Vec<Certificate>, Error> {
        match self {
            Self::Listener(listener) => listener.reload(),
            Self::Peer(files, tls) => {
                let (accept, connect, certificate) = peer::configure(files)?;
                tls.replace(accept, connect);
                Ok(vec![certificate])
            }
            Self::Upstream(connector) => connector.reload(),
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
