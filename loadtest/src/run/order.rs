//! Everything that decides what is sent: what a scenario, a command line or a coordinator asks for. It can be sent to
//! workers, so that all of them have the same schedule.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    client::{Settings, Target},
    exit::Usage,
    measure::Labels,
    plan::{Amplitude, KeyLine, Keys, Mix, Principal, Replay, ReplaySettings, Schedule, Spec, Synthetic},
    secure::Tls,
    shape::{self, Arrivals, Curve, Process, Unit},
    trace,
};

/// A request of synthetic traffic.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestLine {
    /// GET when not given, POST with a body.
    #[serde(default)]
    pub(crate) method: Option<String>,
    /// Path and query.
    pub(crate) path: String,
    /// The body.
    #[serde(default)]
    pub(crate) body: Option<String>,
    /// Headers.
    #[serde(default)]
    pub(crate) headers: std::collections::BTreeMap<String, String>,
    /// Its share.
    #[serde(default = "one")]
    pub(crate) weight: f64,
}

fn one() -> f64 {
    1.0
}

/// An order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    /// `http://host:port` or `https://host:port`, in turn.
    pub(crate) targets: Vec<String>,
    /// Authorities of https targets, PEM; the system's without.
    #[serde(default)]
    pub(crate) ca: Option<String>,
    /// The shape's text; on a trace its levels are factors.
    pub(crate) shape: Option<String>,
    /// The base rate of a shape's factors.
    pub(crate) rate: Option<f64>,
    /// How arrivals are spread.
    pub(crate) poisson: bool,
    /// A trace; without one the traffic is synthetic.
    pub(crate) trace: Option<PathBuf>,
    /// Time runs so many times faster.
    pub(crate) speed: f64,
    /// So many times the arrivals.
    pub(crate) amplitude: f64,
    /// The added ones are of the same accounts.
    pub(crate) intensify: bool,
    /// Other shares.
    pub(crate) mix: String,
    /// Lines of a trace held back to be ordered.
    pub(crate) sort_window: usize,
    /// Bad lines of a trace that are left out.
    pub(crate) skip_bad: u64,
    /// Synthetic requests.
    pub(crate) requests: Vec<RequestLine>,
    /// Keys.
    pub(crate) keys: Vec<KeyLine>,
    /// How clients behave.
    pub(crate) behaviour: String,
    /// What they do with a refusal.
    pub(crate) retry: RetryName,
    /// Longest time for an answer.
    pub(crate) timeout_ms: u64,
    /// Later than this a request counts as unsent.
    pub(crate) send_within_ms: u64,
    /// Requests waiting for their answers.
    pub(crate) max_in_flight: usize,
    /// Connections; a request that finds all of them busy waits for one.
    pub(crate) connections: Option<usize>,
    /// HTTP/2.
    #[serde(default)]
    pub(crate) http2: bool,
    /// A target that refuses is left out for so long.
    pub(crate) eject_ms: u64,
    /// Threads of clients.
    pub(crate) threads: u16,
    /// Seed of all chance.
    pub(crate) seed: u64,
    /// Names this run in the requests' ids.
    pub(crate) run: u32,
    /// Keep every request for an audit.
    pub(crate) audit: bool,
    /// Makes the generator late, for the self-test.
    pub(crate) handicap_ms: u64,
}

/// A retry profile, by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RetryName {
    /// Every refusal is final.
    #[default]
    None,
    /// Waits as `Retry-After` says.
    HonourRetryAfter,
    /// On 429 sleeps a second.
    Sdk,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            ca: None,
            shape: None,
            rate: None,
            poisson: false,
            trace: None,
            speed: 1.0,
            amplitude: 1.0,
            intensify: false,
            mix: String::new(),
            sort_window: trace::WINDOW,
            skip_bad: 0,
            requests: Vec::new(),
            keys: Vec::new(),
            behaviour: String::new(),
            retry: RetryName::None,
            timeout_ms: 30_000,
            send_within_ms: 1_000,
            max_in_flight: 10_000,
            connections: None,
            http2: false,
            eject_ms: 1_000,
            threads: 1,
            seed: 1,
            run: 0,
            audit: false,
            handicap_ms: 0,
        }
    }
}

/// Different paths of a trace that are remembered to tell a mistyped one.
const MAX_PATHS: usize = 100_000;

fn refuse_unmet(mix: &Mix, paths: &BTreeSet<String>, tiers: &BTreeSet<String>) -> Result<()> {
    let unmet = mix.unmet(paths, tiers);
    ensure!(unmet.is_empty(), Usage(format!("--mix: no request and no key has {}", unmet.join(", "))));
    Ok(())
}

impl Order {
    /// The shape; nothing for a trace as it is.
    pub(crate) fn curve(&self) -> Result<Option<Curve>> {
        let unit = if self.trace.is_some() { Unit::Factor } else { Unit::Requests(self.rate) };
        let Some(text) = &self.shape else { return Ok(None) };
        shape::parse(text, unit).map(Some).map_err(|error| Usage::error(error.to_string()))
    }

    /// Whether it can be run; everything that is wrong with it is told before anything is sent.
    pub(crate) fn check(&self) -> Result<()> {
        let within = |name: &str, value: f64, most: f64| {
            ensure!(value > 0.0 && value <= most, Usage(format!("{name} must be above 0 and at most {most}")));
            Ok(())
        };
        within("--speed", self.speed, 1e6)?;
        within("--amplitude", self.amplitude, 1e6)?;
        within("--connections", self.connections.map_or(1.0, |connections| connections as f64), 1e6)?;
        within("--threads", f64::from(self.threads), 64.0)?;
        ensure!(
            self.trace.is_some() || self.shape.is_some(),
            Usage("nothing to send: give --trace, --shape, --preset or --rate".into())
        );
        self.curve()?;
        self.mix()?;
        self.settings()?.check().map_err(|error| Usage::error(error.to_string()))?;
        self.specs().map_err(|error| Usage::error(format!("{error:#}")))?;
        Ok(())
    }

    fn mix(&self) -> Result<Mix> {
        self.mix.parse().map_err(|error: String| Usage::error(format!("--mix {error}")))
    }

    fn specs(&self) -> Result<Vec<(f64, Arc<Spec>)>> {
        let requests = self.requests.iter().map(|line| {
            let method = line.method.as_deref().unwrap_or(if line.body.is_some() { "POST" } else { "GET" });
            let headers = line.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let body = line.body.clone().unwrap_or_default().into();
            ensure!(line.weight >= 0.0, "{}: a weight below 0", line.path);
            Ok((line.weight, Arc::new(Spec::new(method, &line.path, headers, body)?)))
        });
        requests.collect()
    }

    /// The clients' settings.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let behaviours = match self.behaviour.as_str() {
            "" => Default::default(),
            text => text.parse().map_err(|error: String| Usage::error(format!("--behaviour {error}")))?,
        };
        let targets = self.targets.iter().map(|target| {
            let uri = target.parse().with_context(|| format!("{target:?}: expected http://host:port"));
            uri.and_then(|uri| Target::new(&uri)).map_err(|error| Usage::error(format!("{error:#}")))
        });
        let targets: Vec<Target> = targets.collect::<Result<_>>()?;
        let is_secure = targets.iter().any(|target| target.secure.is_some());
        let tls = || Tls::new(self.ca.as_deref(), self.http2).map_err(|error| Usage::error(format!("{error:#}")));
        Ok(Settings {
            tls: is_secure.then(tls).transpose()?,
            targets,
            http2: self.http2,
            timeout: Duration::from_millis(self.timeout_ms),
            send_within: Duration::from_millis(self.send_within_ms),
            max_in_flight: self.max_in_flight,
            connections: self.connections,
            threads: usize::from(self.threads),
            eject: if self.targets.len() > 1 { Duration::from_millis(self.eject_ms) } else { Duration::ZERO },
            behaviours,
            retry: match self.retry {
                RetryName::None => crate::client::Retry::None,
                RetryName::HonourRetryAfter => crate::client::Retry::HonourRetryAfter,
                RetryName::Sdk => crate::client::Retry::Sdk,
            },
            seed: self.seed,
            run: self.run,
            handicap: Duration::from_millis(self.handicap_ms),
        })
    }

    fn keys(&self, labels: &Labels) -> Result<Keys> {
        Keys::new(self.keys.clone(), labels).map_err(|error| Usage::error(format!("{error:#}")))
    }

    /// The schedule, and all who send in it.
    pub(crate) fn schedule(&self, labels: &Labels) -> Result<(Schedule, Vec<Arc<Principal>>)> {
        let keys = self.keys(labels)?;
        let principals = keys.all().to_vec();
        let Some(path) = &self.trace else {
            let curve = self.curve()?.context("a shape, for traffic without a trace")?;
            let process = if self.poisson { Process::Poisson } else { Process::Uniform };
            let arrivals = Arrivals::new(curve, process, self.seed);
            let (specs, mix) = (self.specs()?, self.mix()?);
            let tiers: BTreeSet<String> = keys.all().iter().map(|principal| labels.name(principal.tier)).collect();
            let paths = specs.iter().map(|(_, spec)| spec.uri.path().to_owned()).collect();
            refuse_unmet(&mix, &paths, &tiers)?;
            let schedule = Synthetic::schedule(arrivals, &specs, &keys, &mix, labels, self.seed);
            return Ok((schedule.map_err(|error| Usage::error(error.to_string()))?, principals));
        };
        let open = || trace::records(path, self.sort_window, self.skip_bad);
        let mut mix = self.mix()?;
        if !mix.is_empty() {
            // The shares that the trace has, so that the total stays: one more walk through it.
            let (mut sum, mut count, mut keys) = (0.0, 0u64, self.keys(labels)?);
            let (mut paths, mut tiers) = (BTreeSet::new(), BTreeSet::new());
            for record in open()? {
                let record = record?;
                let key = keys.stand_in(record.k.as_deref().or(record.a.as_deref()).unwrap_or(""));
                let path = record.p.split('?').next().unwrap_or_default();
                let tier = labels.name(key.tier);
                sum += mix.weight(path, &tier);
                count += 1;
                // Paths with ids are without end; what is beyond the bound is not looked for.
                if paths.len() < MAX_PATHS && !paths.contains(path) {
                    paths.insert(path.to_owned());
                }
                tiers.insert(tier);
            }
            if paths.len() < MAX_PATHS {
                refuse_unmet(&mix, &paths, &tiers)?;
            }
            mix = mix.normalised(sum / count.max(1) as f64);
        }
        Ok((Replay::schedule(open()?, self.replay(mix)?, keys, labels.clone()), principals))
    }

    fn replay(&self, mix: Mix) -> Result<ReplaySettings> {
        Ok(ReplaySettings {
            speed: self.speed,
            amplitude: self.amplitude,
            mode: if self.intensify { Amplitude::Intensify } else { Amplitude::Clone },
            shape: self.curve()?,
            mix,
            seed: self.seed,
        })
    }

    /// Looks through the trace where it needs keys for clones, so that a run does not end where they do.
    ///
    /// # Errors
    /// There are too few keys, or the trace cannot be read.
    pub(crate) fn check_clones(&self) -> Result<()> {
        let settings = self.replay(Mix::default())?;
        match &self.trace {
            // A pipe cannot be read twice.
            Some(path) if settings.clones() && path.as_os_str() != "-" => {
                let records = trace::records(path, self.sort_window, self.skip_bad)?;
                Replay::check(records, &settings, self.keys(&Labels::default())?)
            }
            _ => Ok(()),
        }
    }
}
