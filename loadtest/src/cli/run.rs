//! `run` and `coordinator`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::{arguments::RunArguments, scenario::Scenario};
use crate::{
    admin::Admin,
    chaos,
    client::Retry,
    cluster,
    exit::{Exit, Usage},
    plan::{Amplitude, KeyLine},
    report::{self, About, RunResult, Threshold},
    run::{Ends, Engine, LEAD, Order, RequestLine, RetryName, conduct, dry_run},
    secure,
    shape::{self, PRESETS, Preset, Process, Unit},
};

/// How long a rate is held when nothing is said.
const SECONDS: f64 = 10.0;

/// Runs, here or with workers.
pub(super) fn run(arguments: &RunArguments, workers: &[String]) -> Result<Exit> {
    let scenario = arguments.scenario.as_deref().map(Scenario::read).transpose()?.unwrap_or_default();
    let order = order(arguments, &scenario)?;
    order.check()?;
    if workers.is_empty() && !arguments.dry_run {
        // A dry run and workers find it out by themselves.
        order.check_clones()?;
    }
    if arguments.dry_run {
        print!("{}", dry_run(&order)?);
        return Ok(Exit::Pass);
    }
    let mut ends = ends(arguments, &scenario, &order)?;
    let old = arguments.baseline.as_deref().map(read_result).transpose()?;
    if arguments.out.is_some() && arguments.out == arguments.report {
        return Err(Usage::error("--out and --report are one file: the second would take the first one's place"));
    }
    [&arguments.out, &arguments.report].into_iter().flatten().try_for_each(|path| check_writable(path))?;
    ends.prepare(&order)?;
    let result = if workers.is_empty() {
        let mut engine = Engine::start(&order, 0, 1, Instant::now() + LEAD)?;
        conduct(&mut engine, &order, &ends)?
    } else {
        let mut fleet = cluster::Remote::start(workers, &order)?;
        conduct(&mut fleet, &order, &ends)?
    };
    let comparison = old.map(|old| report::compare(&old, &result));
    // Nobody reads it any more, perhaps: the reports and the exit code still say what it was.
    let mut told = report::summary(&result);
    if let Some(comparison) = &comparison {
        let _ = write!(told, "\n\n{comparison}");
    }
    if let Err(error) = writeln!(std::io::stdout(), "{told}") {
        eprintln!("the summary could not be written: {error}");
    }
    // One that cannot be written does not take the other with it.
    let out = arguments.out.as_deref().map(|path| {
        let json = serde_json::to_vec_pretty(&result).context("write the result")?;
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))
    });
    let report = arguments.report.as_deref().map(|path| {
        let html = report::html(&result, comparison.as_deref());
        std::fs::write(path, html).with_context(|| format!("write {}", path.display()))
    });
    out.transpose().and(report.transpose())?;
    Ok(result.exit())
}

/// A report that cannot be written is told before the run, which may be a long one; what is there stays until its end.
fn check_writable(path: &Path) -> Result<()> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|error| Usage::error(format!("{} cannot be written: {error}", path.display())))
}

fn read_result(path: &Path) -> Result<RunResult> {
    let name = path.display();
    let text = std::fs::read(path).map_err(|error| Usage::error(format!("read {name}: {error}")))?;
    serde_json::from_slice(&text).map_err(|error| Usage::error(format!("{name} is no result of a run: {error}")))
}

fn usage<T>(what: &str, read: Result<T, String>) -> Result<T> {
    read.map_err(|error| Usage::error(format!("{what}: {error}")))
}

/// A time of the scenario, if the flag did not say it.
fn time(flag: Option<f64>, file: Option<&String>, what: &str, default_ms: u64) -> Result<u64> {
    let seconds = match (flag, file) {
        (Some(seconds), _) => seconds,
        (None, Some(text)) => usage(what, shape::duration(text))?,
        (None, None) => return Ok(default_ms),
    };
    Ok((seconds * 1_000.0).round() as u64)
}

fn choice<T: ValueEnum + Copy>(flag: Option<T>, file: Option<&String>, what: &str) -> Result<Option<T>> {
    match (flag, file) {
        (Some(value), _) => Ok(Some(value)),
        (None, Some(text)) => usage(what, T::from_str(text, false)).map(Some),
        (None, None) => Ok(None),
    }
}

fn order(arguments: &RunArguments, scenario: &Scenario) -> Result<Order> {
    let base = Order::default();
    let urls = if arguments.urls.is_empty() { &scenario.targets } else { &arguments.urls };
    let requests = requests(arguments, scenario, urls)?;
    let preset = preset(arguments, scenario)?;
    let rate = match (arguments.rate, &scenario.rate) {
        (Some(rate), _) => Some(rate),
        (None, Some(text)) => Some(usage("rate", shape::rate(text))?),
        (None, None) => None,
    };
    let trace = arguments.trace.clone().or_else(|| scenario.trace.clone());
    refuse_ignored(arguments, scenario, urls, trace.is_some())?;
    let seconds = arguments.seconds.or(scenario.seconds);
    let named = preset.map(|preset| preset.shape.to_owned());
    let given = arguments.shape.clone().or(named).or_else(|| scenario.shape.clone());
    let given = match (given, rate, &trace) {
        (None, Some(rate), None) => Some(format!("hold {rate}/s {}s", seconds.unwrap_or(SECONDS))),
        (given, _, trace) if seconds.is_some() && (given.is_some() || trace.is_some()) => {
            let what = if given.is_some() { "the shape" } else { "the trace" };
            return Err(Usage::error(format!(
                "--seconds is how long --rate is held, and {what} has a length of its own"
            )));
        }
        (_, Some(_), Some(_)) => {
            return Err(Usage::error(
                "--rate has no meaning on a trace: give --speed, --amplitude or a --shape of factors",
            ));
        }
        (Some(given), Some(rate), None) => {
            let curve = |rate: f64| shape::parse(&given, Unit::Requests(Some(rate))).ok();
            let is_ignored = curve(rate).is_some_and(|one| curve(rate * 2.0 + 1.0) == Some(one));
            ensure!(!is_ignored, Usage(format!("--rate is the base of factors like 10x, and {given:?} has none")));
            Some(given)
        }
        (given, ..) => given,
    };
    if let (Some(preset), None, None) = (preset, rate, &trace) {
        return Err(Usage::error(format!(
            "--preset {} needs --rate: its levels are factors of it, up to {}x",
            preset.name,
            shape::parse(preset.shape, Unit::Factor).map_or(0.0, |curve| curve.peak().round())
        )));
    }
    let behaviour = arguments.behaviour.clone().or_else(|| scenario.behaviour.clone());
    let retry = choice(arguments.retry, scenario.retry.as_ref(), "retry")?;
    let preset_retry = preset.and_then(|preset| Retry::from_str(preset.retry, false).ok());
    let keys = arguments.keys.clone().or_else(|| scenario.keys.clone());
    let keys = match (&keys, &arguments.key) {
        (Some(path), _) => read_keys(path)?,
        (None, Some(key)) => vec![KeyLine { k: None, key: key.clone(), account: None, tier: None }],
        (None, None) => Vec::new(),
    };
    let amplitude_by = choice(arguments.amplitude_by, scenario.amplitude_by.as_ref(), "amplitude_by")?;
    // Two runs within a microsecond have the same name; their requests are told apart by their times as well.
    let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u32;
    Ok(Order {
        ca: arguments.ca.as_deref().or(scenario.ca.as_deref()).map(secure::read).transpose()?,
        targets: urls.iter().map(|url| without_path(url)).collect(),
        shape: given,
        rate,
        poisson: choice(arguments.arrivals, scenario.arrivals.as_ref(), "arrivals")? == Some(Process::Poisson),
        trace,
        speed: arguments.speed.or(scenario.speed).unwrap_or(base.speed),
        amplitude: arguments.amplitude.or(scenario.amplitude).unwrap_or(base.amplitude),
        // Without keys there are no accounts that more of could be made.
        intensify: amplitude_by.map_or(keys.is_empty(), |by| by == Amplitude::Intensify),
        mix: arguments.mix.clone().or_else(|| scenario.mix.clone()).unwrap_or_default(),
        sort_window: arguments.sort_window.or(scenario.sort_window).unwrap_or(base.sort_window),
        skip_bad: arguments.skip_bad.or(scenario.skip_bad).unwrap_or(base.skip_bad),
        requests,
        keys,
        behaviour: behaviour.or_else(|| preset.map(|preset| preset.behaviour.to_owned())).unwrap_or_default(),
        retry: match retry.or(preset_retry).unwrap_or_default() {
            Retry::None => RetryName::None,
            Retry::HonourRetryAfter => RetryName::HonourRetryAfter,
            Retry::Sdk => RetryName::Sdk,
        },
        timeout_ms: time(arguments.timeout, scenario.timeout.as_ref(), "timeout", base.timeout_ms)?,
        send_within_ms: time(arguments.send_within, scenario.send_within.as_ref(), "send_within", base.send_within_ms)?,
        max_in_flight: arguments.max_in_flight.or(scenario.max_in_flight).unwrap_or(base.max_in_flight),
        connections: arguments.connections.or(scenario.connections),
        http2: arguments.http2 || scenario.http2,
        eject_ms: time(arguments.eject, scenario.eject.as_ref(), "eject", base.eject_ms)?,
        threads: arguments.threads.or(scenario.threads).unwrap_or(base.threads),
        seed: arguments.seed.or(scenario.seed).unwrap_or(base.seed),
        run,
        audit: arguments.audit || scenario.audit,
        handicap_ms: 0,
    })
}

/// What was given and would have no effect is a mistake that the run would hide.
fn refuse_ignored(arguments: &RunArguments, scenario: &Scenario, urls: &[String], has_trace: bool) -> Result<()> {
    let refuse = |given: &[(&str, bool)], why: &str| {
        let given: Vec<&str> = given.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name).collect();
        ensure!(given.is_empty(), Usage(format!("{} would have no effect: {why}", given.join(", "))));
        Ok(())
    };
    let of_requests = [
        ("--method", arguments.method.is_some()),
        ("--body", arguments.body.is_some()),
        ("--header", !arguments.header.is_empty()),
    ];
    if has_trace {
        refuse(&of_requests, "the trace has the requests")?;
        let has_arrivals = arguments.arrivals.is_some() || scenario.arrivals.is_some();
        refuse(&[("--arrivals", has_arrivals)], "the trace has the times")?;
        refuse(&[("[[requests]]", !scenario.requests.is_empty())], "the trace has the requests")?;
    } else {
        let of_traces = [
            ("--speed", arguments.speed.or(scenario.speed).is_some()),
            ("--amplitude", arguments.amplitude.or(scenario.amplitude).is_some()),
            ("--amplitude-by", arguments.amplitude_by.is_some() || scenario.amplitude_by.is_some()),
            ("--sort-window", arguments.sort_window.or(scenario.sort_window).is_some()),
            ("--skip-bad", arguments.skip_bad.or(scenario.skip_bad).is_some()),
        ];
        refuse(&of_traces, "there is no --trace")?;
        if !scenario.requests.is_empty() {
            refuse(&of_requests, "the scenario has [[requests]] of its own")?;
        }
    }
    let path = |url: &String| url[without_path(url).len()..].to_owned();
    let first = urls.first().map(path).unwrap_or_default();
    if let Some(why) = has_trace.then_some("trace").or((!scenario.requests.is_empty()).then_some("scenario")) {
        let is_bare = |url: &&String| matches!(path(url).as_str(), "" | "/");
        if let Some(url) = urls.iter().find(|url| !is_bare(url)) {
            eprintln!("{url}: its path is not used: the {why} has the paths");
        }
    }
    for url in urls.iter().skip(1) {
        let other = path(url);
        let is_same = other == first || matches!(other.as_str(), "" | "/");
        ensure!(
            is_same,
            Usage(format!(
                "{url}: all requests have the first URL's path {first:?}; several paths go into a scenario's [[requests]]"
            ))
        );
    }
    Ok(())
}

fn without_path(url: &str) -> String {
    let after = url.find("://").map_or(0, |at| at + 3);
    url[after..].find('/').map_or(url, |slash| &url[..after + slash]).to_owned()
}

fn requests(arguments: &RunArguments, scenario: &Scenario, urls: &[String]) -> Result<Vec<RequestLine>> {
    if !scenario.requests.is_empty() {
        return Ok(scenario.requests.clone());
    }
    let path = urls.first().map(|url| url[without_path(url).len()..].to_owned()).unwrap_or_default();
    let body = match arguments.body.as_deref().map(|body| (body, body.strip_prefix('@'))) {
        Some((_, Some(file))) => {
            Some(std::fs::read_to_string(file).map_err(|error| Usage::error(format!("read {file}: {error}")))?)
        }
        Some((text, None)) => Some(text.to_owned()),
        None => None,
    };
    let headers = arguments.header.iter().map(|header| {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| Usage::error(format!("--header {header:?}: expected \"Name: value\"")))?;
        Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    });
    Ok(vec![RequestLine {
        method: arguments.method.clone(),
        path: if path.is_empty() { "/".to_owned() } else { path },
        body,
        headers: headers.collect::<Result<_>>()?,
        weight: 1.0,
    }])
}

fn preset(arguments: &RunArguments, scenario: &Scenario) -> Result<Option<&'static Preset>> {
    let file = scenario.preset.as_ref().filter(|_| arguments.shape.is_none());
    let Some(name) = arguments.preset.as_ref().or(file) else { return Ok(None) };
    let known = PRESETS.iter().map(|preset| format!("{} ({})", preset.name, preset.what)).collect::<Vec<_>>();
    let preset = Preset::of(name);
    ensure!(preset.is_some(), Usage(format!("--preset {name:?} is not known; there are {}", known.join(", "))));
    Ok(preset)
}

fn read_keys(path: &Path) -> Result<Vec<KeyLine>> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| Usage::error(format!("open {name}: {error}")))?;
    KeyLine::read_all(std::io::BufReader::new(file), &name).map_err(|error| Usage::error(format!("{error:#}")))
}

fn ends(arguments: &RunArguments, scenario: &Scenario, order: &Order) -> Result<Ends> {
    let mut thresholds = arguments.threshold.clone();
    for text in &scenario.thresholds {
        thresholds.push(usage("thresholds", text.parse::<Threshold>())?);
    }
    if let Some(of_audit) = thresholds.iter().find(|threshold| threshold.needs_audit())
        && !order.audit
    {
        return Err(Usage::error(format!("the threshold {:?} needs --audit", of_audit.text())));
    }
    let chaos = arguments.chaos.as_ref().or(scenario.chaos.as_ref());
    let chaos = chaos.map(|text| usage("--chaos", chaos::parse(text))).transpose()?.unwrap_or_default();
    let admins = if arguments.admin.is_empty() { &scenario.admin } else { &arguments.admin };
    let ca = arguments.ca.as_deref().or(scenario.ca.as_deref());
    let admin = match (&arguments.admin_token, admins.is_empty()) {
        (_, true) => None,
        (Some(token), false) => Some(Arc::new(Admin::new(admins, token, ca)?)),
        (None, false) => return Err(Usage::error("--admin needs the token in TOLLGATE_ADMIN_TOKEN")),
    };
    let clock_slack_ms = time(arguments.clock_slack, scenario.clock_slack.as_ref(), "clock_slack", 0)?;
    let mut settings = BTreeMap::new();
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
    set("keys", order.keys.len().to_string());
    set("threads", order.threads.to_string());
    set("seed", order.seed.to_string());
    set("timeout", format!("{} ms", order.timeout_ms));
    set("retry", format!("{:?}", order.retry));
    set("behaviour", if order.behaviour.is_empty() { "keep-alive".into() } else { order.behaviour.clone() });
    if order.trace.is_some() {
        set("speed", order.speed.to_string());
        set("amplitude", format!("{} by {}", order.amplitude, if order.intensify { "intensify" } else { "clone" }));
    }
    if !order.mix.is_empty() {
        set("mix", order.mix.clone());
    }
    if let Some(rate) = order.rate {
        set("rate", format!("{rate}/s"));
    }
    if let Some(shape) = &order.shape {
        set("shape", shape.clone());
    }
    let trace = order.trace.as_ref().map(|path| path.display().to_string());
    let title = arguments.title.clone().or_else(|| scenario.title.clone());
    let what = trace.clone().or_else(|| order.shape.clone()).unwrap_or_default();
    Ok(Ends {
        about: About {
            title: title.unwrap_or_else(|| format!("load test: {what}")),
            targets: order.targets.clone(),
            shape: order.shape.clone(),
            trace,
            settings,
        },
        thresholds,
        admin,
        chaos,
        chaos_control: arguments.chaos_control.clone().or_else(|| scenario.chaos_control.clone()),
        before: Default::default(),
        clock_slack_us: i64::try_from(clock_slack_ms * 1_000).unwrap_or(i64::MAX),
        quiet: arguments.quiet,
    })
}
