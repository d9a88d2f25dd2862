//! A scenario file: the settings of a run in TOML, so that a load test can be kept and repeated.
//!
//! ```toml
//! targets = ["http://127.0.0.1:8080"]
//! shape = "hold 100/s 30s; spike 10x 45s; hold 100/s 30s"
//! thresholds = ["p99<50ms", "unsent==0"]
//!
//! [[requests]]
//! method = "POST"
//! path = "/v3/scan"
//! body = '{"payload":"card 4111 1111 1111 1111"}'
//! weight = 9
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{exit::Usage, run::RequestLine};

/// What a file may say. An unknown entry is refused, with its line.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Scenario {
    pub(super) title: Option<String>,
    pub(super) targets: Vec<String>,
    pub(super) shape: Option<String>,
    pub(super) preset: Option<String>,
    pub(super) rate: Option<String>,
    pub(super) seconds: Option<f64>,
    pub(super) arrivals: Option<String>,
    pub(super) trace: Option<PathBuf>,
    pub(super) speed: Option<f64>,
    pub(super) amplitude: Option<f64>,
    pub(super) amplitude_by: Option<String>,
    pub(super) mix: Option<String>,
    pub(super) sort_window: Option<usize>,
    pub(super) skip_bad: Option<u64>,
    pub(super) seed: Option<u64>,
    pub(super) requests: Vec<RequestLine>,
    pub(super) keys: Option<PathBuf>,
    pub(super) behaviour: Option<String>,
    pub(super) retry: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) send_within: Option<String>,
    pub(super) max_in_flight: Option<usize>,
    pub(super) connections: Option<usize>,
    pub(super) http2: bool,
    pub(super) eject: Option<String>,
    pub(super) threads: Option<u16>,
    pub(super) thresholds: Vec<String>,
    pub(super) audit: bool,
    pub(super) admin: Vec<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) clock_slack: Option<String>,
    pub(super) chaos: Option<String>,
    pub(super) chaos_control: Option<String>,
}

impl Scenario {
    /// Reads it.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| Usage::error(format!("read {name}: {error}")))?;
        let mut scenario: Self =
            toml::from_str(&text).map_err(|error| Usage::error(format!("{name}: {}", error.to_string().trim_end())))?;
        // Files are named from where the scenario is.
        let base = path.parent().unwrap_or(Path::new(""));
        for file in [&mut scenario.trace, &mut scenario.keys, &mut scenario.ca].into_iter().flatten() {
            *file = base.join(&*file);
        }
        Ok(scenario)
    }
}
