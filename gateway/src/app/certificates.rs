//! TLS of the listeners, the peers and the upstreams, from the node's settings.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use store::PeerTls;

use crate::{
    config::{ClientAuth, List, Settings},
    tls::{ClientFiles, Connector, HTTP1, HTTP2, Listener, ListenerFiles, MutualFiles, Watch, peer_tls},
};

/// What each place uses.
pub(super) struct Tls {
    pub(super) data: Option<Arc<Listener>>,
    pub(super) admin: Option<Arc<Listener>>,
    pub(super) peer: Option<Arc<PeerTls>>,
    pub(super) upstream: Arc<Connector>,
    pub(super) watch: Watch,
}

/// Reads all files that the settings name.
///
/// # Errors
/// One of them cannot be used; nothing listens yet.
pub(super) fn read(settings: &Settings) -> anyhow::Result<Tls> {
    let mut watch = Watch::default();
    let mut listener = |place, files: ListenerFiles, protocols: &[&[u8]]| {
        if files.certs.is_empty() {
            return Ok(None);
        }
        let context = || format!("set up TLS of the {place} listener ({place}_tls_cert, {place}_tls_key)");
        let (listener, certificates) = Listener::new(place, files, protocols).with_context(context)?;
        watch.listener(listener.clone(), certificates);
        anyhow::Ok(Some(listener))
    };
    let data = files(
        &settings.data_tls_cert,
        &settings.data_tls_key,
        &settings.data_tls_client_ca,
        settings.data_tls_client_auth,
    );
    let data = listener("data", data, &[HTTP2, HTTP1])?;
    let admin = files(
        &settings.admin_tls_cert,
        &settings.admin_tls_key,
        &settings.admin_tls_client_ca,
        settings.admin_tls_client_auth,
    );
    let admin = listener("admin", admin, &[HTTP1])?;
    let peer = match given(&settings.peer_tls_cert) {
        None => None,
        Some(cert) => {
            let files = MutualFiles { cert, key: settings.peer_tls_key.clone(), ca: settings.peer_tls_ca.clone() };
            let (tls, certificate) = peer_tls(&files).context("set up TLS between peers (peer_tls_cert, _key, _ca)")?;
            watch.peer(files, tls.clone(), certificate);
            Some(tls)
        }
    };
    let identity = given(&settings.upstream_tls_cert).map(|cert| (cert, settings.upstream_tls_key.clone()));
    let files = ClientFiles { ca: given(&settings.upstream_ca), identity };
    let (upstream, certificates) =
        Connector::new(files).context("set up TLS to upstreams (upstream_ca, upstream_tls_cert, upstream_tls_key)")?;
    watch.upstream(upstream.clone(), certificates);
    Ok(Tls { data, admin, peer, upstream, watch })
}

fn files(certs: &List, keys: &List, client_ca: &Path, auth: ClientAuth) -> ListenerFiles {
    let paths = |list: &List| list.0.iter().map(PathBuf::from).collect();
    ListenerFiles {
        certs: paths(certs),
        keys: paths(keys),
        client_ca: given(client_ca),
        client_optional: auth == ClientAuth::Optional,
    }
}

fn given(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}
