//! The arguments of a run.

use std::path::PathBuf;

use clap::Args;

use crate::{
    client::{Behaviours, Retry},
    plan::{Amplitude, Mix},
    report::Threshold,
    shape::{self, Process},
};

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Where to: http://host:port/path; several are used in turn. The first one's path is the request, where no scenario or trace has others
    #[arg(value_name = "URL")]
    pub(super) urls: Vec<String>,
    /// A TOML file with the same settings, and requests with weights; a flag counts instead of what the file says
    #[arg(long, value_name = "FILE")]
    pub(super) scenario: Option<PathBuf>,

    /// The rate over time: "hold 100/s 30s; spike 10x 45s; ramp 500/s 1m; step 100/s..500/s 5 1m; sine 50/s..150/s 20s 2m"; on a trace factors of it
    #[arg(long, value_name = "TEXT", help_heading = "What is sent when")]
    pub(super) shape: Option<String>,
    /// A shape with a name and the clients that belong to it: black-friday, thundering-herd, quota-reset-midnight, scan-burst
    #[arg(long, value_name = "NAME", conflicts_with = "shape", help_heading = "What is sent when")]
    pub(super) preset: Option<String>,
    /// The base of a shape's or preset's factors; alone, a rate that is held for --seconds
    #[arg(long, value_name = "RATE", value_parser = shape::rate, help_heading = "What is sent when")]
    pub(super) rate: Option<f64>,
    /// How long --rate is held, without a shape [default: 10]
    #[arg(long, value_name = "SECONDS", help_heading = "What is sent when")]
    pub(super) seconds: Option<f64>,
    /// How arrivals are spread under the shape [default: uniform]
    #[arg(long, value_enum, help_heading = "What is sent when")]
    pub(super) arrivals: Option<Process>,
    /// A trace to replay (NDJSON, .gz, .zst)
    #[arg(long, value_name = "FILE", help_heading = "What is sent when")]
    pub(super) trace: Option<PathBuf>,
    /// The trace's time runs so many times faster [default: 1]
    #[arg(long, value_name = "FACTOR", help_heading = "What is sent when")]
    pub(super) speed: Option<f64>,
    /// So many times the trace's arrivals, at the same clock [default: 1]
    #[arg(long, value_name = "FACTOR", help_heading = "What is sent when")]
    pub(super) amplitude: Option<f64>,
    /// Whose the added arrivals are [default: clone with keys, intensify without]
    #[arg(long, value_enum, help_heading = "What is sent when")]
    pub(super) amplitude_by: Option<Amplitude>,
    /// Other shares of routes and tiers at the same total: "/v3/scan=2,/v3/health=0.5,tier:free=3"
    #[arg(long, value_name = "TEXT", value_parser = mix, help_heading = "What is sent when")]
    pub(super) mix: Option<String>,
    /// Lines of a trace held back to be put into order [default: 10000]
    #[arg(long, value_name = "LINES", help_heading = "What is sent when")]
    pub(super) sort_window: Option<usize>,
    /// Bad lines of a trace that are left out and reported; one more ends the run [default: 0]
    #[arg(long, value_name = "LINES", help_heading = "What is sent when")]
    pub(super) skip_bad: Option<u64>,
    /// Draws the curve and the totals, sends nothing
    #[arg(long, help_heading = "What is sent when")]
    pub(super) dry_run: bool,
    /// Seed of all chance [default: 1]
    #[arg(long, value_name = "NUMBER", help_heading = "What is sent when")]
    pub(super) seed: Option<u64>,

    /// Method of synthetic requests; GET, or POST with a body
    #[arg(long, value_name = "METHOD", help_heading = "Requests and clients")]
    pub(super) method: Option<String>,
    /// Body of synthetic requests; @FILE reads it from a file
    #[arg(long, value_name = "TEXT", help_heading = "Requests and clients")]
    pub(super) body: Option<String>,
    /// A header of synthetic requests
    #[arg(long, value_name = "NAME: VALUE", help_heading = "Requests and clients")]
    pub(super) header: Vec<String>,
    /// Keys, NDJSON lines {"key", "k": pseudonym, "account", "tier"}; without it the key in TOLLGATE_KEY, or none
    #[arg(long, value_name = "FILE", help_heading = "Requests and clients")]
    pub(super) keys: Option<PathBuf>,
    /// One API key. From the environment only, so that it is in no process list
    #[arg(long, env = "TOLLGATE_KEY", hide = true, hide_env_values = true)]
    pub(super) key: Option<String>,
    /// Shares of clients: keep-alive, new-connection, slow-reader, hang-up [default: keep-alive=100]
    #[arg(long, value_name = "TEXT", value_parser = behaviour, help_heading = "Requests and clients")]
    pub(super) behaviour: Option<String>,
    /// What clients do with a refusal [default: none]
    #[arg(long, value_enum, help_heading = "Requests and clients")]
    pub(super) retry: Option<Retry>,
    /// Longest time from a send to the end of its answer [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = shape::duration, help_heading = "Requests and clients")]
    pub(super) timeout: Option<f64>,
    /// A request that the generator gets to later than this is counted as unsent [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = shape::duration, help_heading = "Requests and clients")]
    pub(super) send_within: Option<f64>,
    /// Requests waiting for their answers at once; one more is counted as unsent [default: 10000]
    #[arg(long, value_name = "COUNT", help_heading = "Requests and clients")]
    pub(super) max_in_flight: Option<usize>,
    /// Connections; a request that finds all of them busy waits for one, and the wait is part of its latency. Without it a send never waits
    #[arg(long, value_name = "COUNT", help_heading = "Requests and clients")]
    pub(super) connections: Option<usize>,
    /// HTTP/2: one connection a thread and target, which all requests share
    #[arg(long, help_heading = "Requests and clients")]
    pub(super) http2: bool,
    /// A target that refuses connections is left out for so long while there are others, which get what it refused [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = shape::duration, help_heading = "Requests and clients")]
    pub(super) eject: Option<f64>,
    /// Threads of clients [default: 1]
    #[arg(long, value_name = "COUNT", help_heading = "Requests and clients")]
    pub(super) threads: Option<u16>,

    /// What must hold: "p99<50ms", "error_rate<0.1%", "unsent==0", "audit.lost==0"; may be given several times
    #[arg(long, value_name = "TEXT", help_heading = "Judgement")]
    pub(super) threshold: Vec<Threshold>,
    /// Compares every answer with the ledger afterwards; needs --admin
    #[arg(long, help_heading = "Judgement")]
    pub(super) audit: bool,
    /// Authorities of https targets and an https admin API, PEM; the system's without
    #[arg(long, env = "TOLLGATE_CA", value_name = "FILE", help_heading = "Requests and clients")]
    pub(super) ca: Option<PathBuf>,
    /// Tollgate's admin API, one or more nodes; its token is TOLLGATE_ADMIN_TOKEN
    #[arg(long, value_name = "URL,…", value_delimiter = ',', help_heading = "Judgement")]
    pub(super) admin: Vec<String>,
    /// The admin token. From the environment only
    #[arg(long, env = "TOLLGATE_ADMIN_TOKEN", hide = true, hide_env_values = true)]
    pub(super) admin_token: Option<String>,
    /// How far the clocks of two nodes may be apart; windows of limits are judged that much wider [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = shape::duration, help_heading = "Judgement")]
    pub(super) clock_slack: Option<f64>,
    /// What is done to the service: "kill leader @20s; start node-2 @40s"
    #[arg(long, value_name = "TEXT", help_heading = "Judgement")]
    pub(super) chaos: Option<String>,
    /// What nodes are killed with: the control address of `tollgate demo --processes`
    #[arg(long, value_name = "URL", help_heading = "Judgement")]
    pub(super) chaos_control: Option<String>,

    /// Writes the result as JSON
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub(super) out: Option<PathBuf>,
    /// Writes the report, one HTML file
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub(super) report: Option<PathBuf>,
    /// Compares with an older result
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub(super) baseline: Option<PathBuf>,
    /// A title for the reports
    #[arg(long, value_name = "TEXT", help_heading = "Reports")]
    pub(super) title: Option<String>,
    /// Shows nothing until the end
    #[arg(long, short, help_heading = "Reports")]
    pub(super) quiet: bool,
}

fn mix(text: &str) -> Result<String, String> {
    text.parse::<Mix>().map(|_| text.to_owned())
}

fn behaviour(text: &str) -> Result<String, String> {
    text.parse::<Behaviours>().map(|_| text.to_owned())
}
