//! A small HTTP server on a thread of its own.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::oneshot};

/// A server; it ends when it is dropped.
pub(super) struct Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
}

/// What answers.
pub(super) trait Answers: Send + Sync + 'static {
    /// The answer to a request.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// Answers at once but for a wait that depends on the time since the start.
struct Waits<W> {
    wait: W,
    start: Instant,
}

impl<W: Fn(Duration) -> Duration + Send + Sync + 'static> Answers for Waits<W> {
    async fn answer(&self, _: Request<Incoming>) -> Response<Full<Bytes>> {
        let wait = (self.wait)(self.start.elapsed());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Response::new(Full::from("{}"))
    }
}

impl Server {
    /// Starts one that waits as told.
    pub(super) fn start(wait: impl Fn(Duration) -> Duration + Send + Sync + 'static) -> Result<Self> {
        Self::serve(Waits { wait, start: Instant::now() })
    }

    /// Starts one.
    pub(super) fn serve(answers: impl Answers) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
        listener.set_nonblocking(true).context("listen on loopback")?;
        let addr = listener.local_addr().context("listen on loopback")?;
        let (stop, mut stopped) = oneshot::channel();
        let answers = Arc::new(answers);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a server")?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        _ = &mut stopped => return,
                    };
                    let Ok((stream, _)) = accepted else { continue };
                    let _ = stream.set_nodelay(true);
                    let answers = answers.clone();
                    tokio::spawn(async move {
                        let service = service_fn(move |request| {
                            let answers = answers.clone();
                            async move { Ok::<_, Infallible>(answers.answer(request).await) }
                        });
                        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            });
        });
        Ok(Self { addr, stop: Some(stop) })
    }

    /// Where it is.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}
