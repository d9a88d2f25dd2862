//! Ctrl-C and SIGTERM, counted.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// Signals that came. The first ends the run in order, the second at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals(Arc<AtomicU32>);

impl Signals {
    /// Listens from now on, on a thread of its own.
    pub(crate) fn listen() -> Self {
        let signals = Self::default();
        let count = signals.0.clone();
        std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
                loop {
                    tokio::select! {
                        _ = tokio::signal::ctrl_c() => {}
                        _ = terminate.recv() => {}
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        signals
    }

    /// How many came.
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, from a key.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
