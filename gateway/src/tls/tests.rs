//! Over real sockets, with certificates made here.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use x509_parser::prelude::FromDer as _;

use super::*;

/// Writes a file with a time of its own: two writes within one tick of the file system's clock would look the same.
fn put(path: &Path, text: &str) {
    static WRITES: AtomicU64 = AtomicU64::new(1_000_000_000);
    std::fs::write(path, text).expect("write");
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(WRITES.fetch_add(1, Ordering::Relaxed));
    std::fs::File::options().write(true).open(path).and_then(|file| file.set_modified(at)).expect("set its time");
}

fn copy(from: &Path, to: &Path) {
    put(to, &std::fs::read_to_string(from).expect("read"));
}

/// Issues certificates into a directory of its own.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let dir = tempfile::tempdir().expect("a directory");
        put(&dir.path().join("ca.crt"), &issuer.pem());
        Self { issuer, dir }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// Certificate and key of these names, in files called after `file`.
    pub(crate) fn issue(&self, file: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        self.issue_with(file, names, |_| {})
    }

    pub(crate) fn issue_with(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        let (cert_path, key_path) =
            (self.dir.path().join(format!("{file}.crt")), self.dir.path().join(format!("{file}.key")));
        put(&cert_path, &cert.pem());
        put(&key_path, &key.serialize_pem());
        (cert_path, key_path)
    }

    pub(crate) fn listener_files(&self, pairs: &[(PathBuf, PathBuf)]) -> ListenerFiles {
        let (certs, keys) = pairs.iter().cloned().unzip();
        ListenerFiles { certs, keys, ..ListenerFiles::default() }
    }

    /// A client that wants HTTP/2, after its handshake.
    pub(crate) async fn h2_client(&self, stream: TcpStream, host: &str) -> ClientStream {
        let mut config = client::client_config(pem::authorities(&self.ca()).expect("an authority"))
            .expect("a configuration")
            .with_no_client_auth();
        config.alpn_protocols = vec![HTTP2.to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(ServerName::try_from(host.to_owned()).expect("a name"), stream).await.expect("a handshake")
    }

    /// A client that trusts this authority and shows what it is told to.
    pub(crate) fn client(&self, identity: Option<(PathBuf, PathBuf)>) -> Arc<Connector> {
        Connector::new(ClientFiles { ca: Some(self.ca()), identity }).expect("files").0
    }
}

/// Serves echoes.
async fn serve(listener: Arc<Listener>) -> std::net::SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = tcp.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (stream, _) = tcp.accept().await.expect("accept");
            let listener = listener.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = listener.accept(stream).await else { return };
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() {
                    if stream.write_all(&byte).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

pub(crate) type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(client: &Connector, addr: std::net::SocketAddr, host: &str) -> std::io::Result<ClientStream> {
    let stream = TcpStream::connect(addr).await?;
    let mut stream = client.connect(ServerName::try_from(host.to_owned()).expect("a name"), stream, false).await?;
    // A server that refuses the client's certificate says so after the client's handshake.
    echo(&mut stream).await?;
    Ok(stream)
}

async fn echo(stream: &mut ClientStream) -> std::io::Result<()> {
    stream.write_all(b"x").await?;
    stream.flush().await?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await.map(drop)
}

/// The serial number of the certificate that was shown.
fn serial(stream: &ClientStream) -> Vec<u8> {
    let chain = stream.get_ref().1.peer_certificates().expect("a certificate was shown");
    serial_of(&chain[0])
}

fn serial_of(der: &[u8]) -> Vec<u8> {
    x509_parser::certificate::X509Certificate::from_der(der).expect("a certificate").1.raw_serial().to_vec()
}

fn serial_in(path: &Path) -> Vec<u8> {
    serial_of(&pem::chain(path).expect("a chain")[0])
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_of_the_host_it_names() {
    let ca = Authority::new();
    let pairs = [
        ca.issue("first", &["first.test", "other.test"]),
        ca.issue("api", &["api.test"]),
        ca.issue("wild", &["*.wild.test"]),
    ];
    let (listener, certificates) = Listener::new("data", ca.listener_files(&pairs), &[HTTP1]).expect("files");
    assert_eq!(
        certificates.iter().map(Certificate::name).collect::<Vec<_>>(),
        ["first.test", "api.test", "*.wild.test"]
    );
    let addr = serve(listener).await;
    let client = ca.client(None);
    for (host, expected) in [("API.test", 1), ("a.wild.test", 2), ("first.test", 0), ("other.test", 0)] {
        let stream = connect(&client, addr, host).await.expect("shaken");
        assert_eq!(serial(&stream), serial_in(&pairs[expected].0), "{host}");
    }
    // A host that nobody has is shown the first, which the client then refuses for its name; and so is a deeper name than
    // the wildcard stands for.
    for host in ["nobody.test", "a.b.wild.test"] {
        let error = connect(&client, addr, host).await.expect_err("another name").to_string();
        assert!(error.contains("not valid for"), "{error}");
    }
}

#[tokio::test]
async fn a_changed_file_counts_from_the_next_handshake_and_a_broken_one_changes_nothing() {
    let ca = Authority::new();
    let pair = ca.issue("one", &["api.test"]);
    let before = serial_in(&pair.0);
    let (listener, certificates) =
        Listener::new("data", ca.listener_files(std::slice::from_ref(&pair)), &[HTTP1]).expect("files");
    let addr = serve(listener.clone()).await;
    let mut watch = Watch::default();
    watch.listener(listener, certificates);
    let shown = watch.certificates();
    let client = ca.client(None);
    let mut open = connect(&client, addr, "api.test").await.expect("shaken");

    watch.look(false);
    assert_eq!(serial(&connect(&client, addr, "api.test").await.expect("shaken")), before);

    ca.issue_with("one", &["api.test", "new.test"], |_| {});
    let after = serial_in(&pair.0);
    watch.look(false);
    assert_eq!(serial(&connect(&client, addr, "api.test").await.expect("shaken")), after);
    assert_eq!(shown.all()[0].names, ["api.test", "new.test"]);
    echo(&mut open).await.expect("the connection from before goes on");

    put(&pair.1, "no key");
    watch.look(false);
    watch.look(true);
    assert_eq!(serial(&connect(&client, addr, "api.test").await.expect("shaken")), after);

    // The certificate alone: its key is another's.
    ca.issue("other", &["api.test"]);
    copy(&ca.dir.path().join("other.crt"), &pair.0);
    let (_, key) = ca.issue("again", &["api.test"]);
    copy(&key, &pair.1);
    watch.look(false);
    assert_eq!(serial(&connect(&client, addr, "api.test").await.expect("shaken")), after);
    copy(&ca.dir.path().join("other.key"), &pair.1);
    watch.look(false);
    assert_eq!(serial(&connect(&client, addr, "api.test").await.expect("shaken")), serial_in(&pair.0));
}

#[tokio::test]
async fn clients_show_certificates_where_they_are_asked_for_them() {
    let (ca, stranger) = (Authority::new(), Authority::new());
    let pair = ca.issue("one", &["api.test"]);
    let mine = ca.client(Some(ca.issue("client", &["me"])));
    let theirs = ca.client(Some(stranger.issue("client", &["me"])));
    let expired = ca.client(Some(ca.issue_with("old", &["me"], |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    })));
    let nobody = ca.client(None);
    for client_optional in [false, true] {
        let files = ListenerFiles {
            client_ca: Some(ca.ca()),
            client_optional,
            ..ca.listener_files(std::slice::from_ref(&pair))
        };
        let addr = serve(Listener::new("data", files, &[HTTP1]).expect("files").0).await;
        connect(&mine, addr, "api.test").await.expect("its certificate is good");
        connect(&theirs, addr, "api.test").await.expect_err("another authority's");
        connect(&expired, addr, "api.test").await.expect_err("expired");
        assert_eq!(connect(&nobody, addr, "api.test").await.is_ok(), client_optional);
    }
}

#[tokio::test]
async fn an_expired_certificate_is_told_and_refused() {
    let ca = Authority::new();
    let pair = ca.issue_with("old", &["api.test"], |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    });
    let (listener, certificates) = Listener::new("data", ca.listener_files(&[pair]), &[HTTP1]).expect("it can be read");
    let trouble = certificates[0].trouble(SystemTime::now()).expect("expired");
    assert!(trouble.starts_with("it expired "), "{trouble}");
    assert_eq!(certificates[0].trouble(SystemTime::UNIX_EPOCH + Duration::from_secs(1_590_000_000)), None);
    let addr = serve(listener).await;
    let error = connect(&ca.client(None), addr, "api.test").await.expect_err("expired").to_string();
    assert!(error.contains("xpired"), "{error}");
}

#[test]
fn what_is_wrong_with_files_is_told_with_their_names() {
    let ca = Authority::new();
    let (cert, key) = ca.issue("one", &["api.test"]);
    let (_, other_key) = ca.issue("two", &["api.test"]);
    let error = |certs: &Path, keys: &Path| {
        let files = ca.listener_files(&[(certs.to_owned(), keys.to_owned())]);
        Listener::new("data", files, &[HTTP1]).expect_err("refused").to_string()
    };
    let missing = ca.dir.path().join("missing.crt");
    assert!(error(&missing, &key).starts_with(&format!("read {}: ", missing.display())));
    assert!(error(&key, &key).contains("no certificate in it"));
    assert!(error(&cert, &cert).contains("no private key in it"));
    let mixed = error(&cert, &other_key);
    assert!(mixed.contains("two.key: it is not the private key of") && mixed.contains("one.crt"), "{mixed}");
}
