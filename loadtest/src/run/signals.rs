//! Ctrl-C, SIGTERM and the end of the terminal (SIGHUP), counted.

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
                use tokio::signal::unix::{Signal, SignalKind, signal};
                let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
                let mut hang_up = if is_hang_up_ignored() { None } else { signal(SignalKind::hangup()).ok() };
                let hung_up = async |hang_up: &mut Option<Signal>| match hang_up {
                    Some(hang_up) => hang_up.recv().await,
                    None => std::future::pending().await,
                };
                loop {
                    tokio::select! {
                        _ = tokio::signal::ctrl_c() => {}
                        _ = terminate.recv() => {}
                        _ = hung_up(&mut hang_up) => {}
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

/// Whether whoever started it wants it to outlive its terminal (`nohup`): bit 0 of the mask of ignored signals.
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
