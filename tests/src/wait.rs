//! Waiting on a condition, never on a time.

use std::time::{Duration, Instant};

/// How long a condition may take on a busy machine with two cores.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `holds` gives a value.
///
/// # Panics
/// When it has not after [`PATIENCE`]; the message names `what`.
pub fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = holds() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
