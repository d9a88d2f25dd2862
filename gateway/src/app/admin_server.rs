//! The admin listener.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::Context;
use axum::Router;
use tokio::{sync::oneshot, task::JoinHandle};

/// A running admin listener.
#[derive(Debug)]
pub(super) struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `router` on a bound listener.
    pub(super) fn start(listener: TcpListener, router: Router) -> anyhow::Result<Self> {
        listener.set_nonblocking(true).context("set up the admin listener")?;
        let listener = tokio::net::TcpListener::from_std(listener).context("set up the admin listener")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            let served = axum::serve(listener, service).with_graceful_shutdown(async move {
                // Also ends when the sender is dropped.
                let _ = stopped.await;
            });
            if let Err(error) = served.await {
                tracing::error!(%error, "serve the admin API");
            }
        });
        Ok(Self { stop, task })
    }

    /// Stops listening and waits for requests in flight, `grace` at most.
    pub(super) async fn stop(self, grace: Duration) {
        let _ = self.stop.send(());
        let task = self.task;
        let abort = task.abort_handle();
        if tokio::time::timeout(grace, task).await.is_err() {
            abort.abort();
        }
    }
}
