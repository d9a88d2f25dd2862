//! Steady, modest traffic through sockets: so that the log, usage and metrics have something to show.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use super::setup::Made;

/// Requests a second of each tier's key. The free one is a little above its 5, so that some are refused.
const ENTERPRISE_PER_SECOND: u32 = 20;
const FREE_PER_SECOND: u32 = 7;
/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(10);

const PAYLOADS: [&str; 4] = [
    r#"{"payload":"nothing to see here"}"#,
    r#"{"payload":"card 4111 1111 1111 1111"}"#,
    r#"{"payload":["ssn 536-90-4399","and 378282246310005"]}"#,
    r#"{"payload":"order 1234567890123, call 555-0100"}"#,
];

/// Traffic that is being sent.
#[derive(Debug)]
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts a sender for each key.
    pub(super) fn start(data_addr: &str, made: &Made) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let url = format!("http://{data_addr}/v3/scan");
        let senders = [(&made.enterprise_key, ENTERPRISE_PER_SECOND), (&made.free_key, FREE_PER_SECOND)].map(
            |(key, per_second)| {
                let (stop, url, key) = (stop.clone(), url.clone(), key.clone());
                tokio::task::spawn_blocking(move || send(&url, &key, Duration::from_secs(1) / per_second, &stop))
            },
        );
        Self { stop, senders: senders.into() }
    }

    /// Ends it.
    pub(super) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for sender in self.senders {
            let _ = sender.await;
        }
    }
}

fn send(url: &str, key: &str, interval: Duration, stop: &AtomicBool) {
    let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).proxy(None);
    let agent = config.build().new_agent();
    let bearer = format!("Bearer {key}");
    let mut next = Instant::now();
    for payload in PAYLOADS.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let sent = agent.post(url).header("authorization", &bearer).content_type("application/json").send(*payload);
        // Refusals are what the tier is for, and a node that goes away has said why. Read, so that the connection is kept.
        if let Ok(mut response) = sent {
            let _ = response.body_mut().read_to_vec();
        }
        next += interval;
        match next.checked_duration_since(Instant::now()) {
            Some(wait) => std::thread::sleep(wait),
            // Late: go on from now, without a burst.
            None => next = Instant::now(),
        }
    }
}
