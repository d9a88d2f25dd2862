//! Leads a fleet through a run: shows it, does chaos, stops it, audits it, judges it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{Fleet, Order, signals::Signals};
use crate::{
    admin::Admin,
    audit::{self, Audit, Kill, Standings},
    chaos::{self, Done, Hands, Step},
    exit::{Failure, Usage},
    measure::Totals,
    report::{About, Event, RunResult, Threshold},
    screen::{Asked, Screen, View},
};

/// How often the numbers are taken.
const TICK: Duration = Duration::from_millis(200);
/// Seconds after which a second is compressed, above the timeout.
const LATE_SECONDS: u64 = 5;

/// What a run is judged by, and where it is shown.
pub(crate) struct Ends {
    /// What is run, in words.
    pub(crate) about: About,
    /// Thresholds.
    pub(crate) thresholds: Vec<Threshold>,
    /// The admin API, for audit and chaos.
    pub(crate) admin: Option<Arc<Admin>>,
    /// What is done to the service.
    pub(crate) chaos: Vec<Step>,
    /// What nodes are killed with.
    pub(crate) chaos_control: Option<String>,
    /// Where accounts stood with their quotas before anything was sent: [`Ends::prepare`].
    pub(crate) before: Standings,
    /// How far nodes' clocks may be apart, for the audit.
    pub(crate) clock_slack_us: i64,
    /// Nothing on the terminal until the end.
    pub(crate) quiet: bool,
}

impl Ends {
    /// What must be known before anything is sent: that the chaos can be done, that the admin API answers, and where the
    /// accounts stand with their quotas. To be called before the generators start.
    ///
    /// # Errors
    /// Something is missing, or the admin API does not answer.
    pub(crate) fn prepare(&mut self, order: &Order) -> Result<()> {
        let seconds = order.curve()?.map(|curve| curve.seconds());
        self.hands().check(&self.chaos, seconds).map_err(|what| Usage::error(format!("--chaos {what}")))?;
        self.hands().look(&self.chaos)?;
        if let Some(admin) = self.admin.as_ref().filter(|_| self.chaos.iter().any(Step::asks_for_roles)) {
            admin.check("/v1/cluster?consistency=stale")?;
        }
        if !order.audit {
            return Ok(());
        }
        ensure!(
            !order.keys.is_empty(),
            Usage("--audit judges what known keys were answered: give --keys, or one in TOLLGATE_KEY".into())
        );
        let admin = self.admin.as_ref().ok_or_else(|| Usage::error("--audit needs --admin"))?;
        admin.check("/v1/requests?limit=1")?;
        let accounts: BTreeSet<&String> = order.keys.iter().filter_map(|key| key.account.as_ref()).collect();
        self.before = audit::standings(admin, &accounts.into_iter().cloned().collect::<Vec<_>>())?;
        Ok(())
    }

    fn hands(&self) -> Hands {
        Hands { control: self.chaos_control.clone(), admin: self.admin.clone() }
    }
}

/// Runs to the end.
pub(crate) fn conduct(fleet: &mut dyn Fleet, order: &Order, ends: &Ends) -> Result<RunResult> {
    let signals = Signals::listen();
    let control = fleet.control();
    let chaos = chaos::start(ends.chaos.clone(), ends.hands(), control.clone());
    let mut screen = Screen::new(ends.quiet);
    let mut totals = Totals::default();
    let mut done: Vec<Done> = Vec::new();
    let mut most_in_flight: BTreeMap<u32, u64> = BTreeMap::new();
    let (mut stopped_at, mut signalled) = (None, 0);
    let planned_seconds = order.curve()?.map(|curve| curve.seconds());
    loop {
        let status = fleet.poll()?;
        totals.add(&status.delta)?;
        let second = status.elapsed.as_secs();
        let closed = second.saturating_sub(order.timeout_ms / 1_000 + LATE_SECONDS);
        totals.close_before(u32::try_from(closed).unwrap_or(u32::MAX));
        let most = most_in_flight.entry(u32::try_from(second).unwrap_or(u32::MAX)).or_default();
        *most = status.in_flight.max(*most);
        done.extend(chaos.done());
        if status.finished {
            break;
        }
        let view = View {
            about: &ends.about,
            elapsed: status.elapsed,
            seconds: planned_seconds,
            in_flight: status.in_flight,
            totals: &totals,
            labels: fleet.labels(),
            paused: control.is_paused(),
            draining: control.is_draining(),
            events: &done,
        };
        match screen.show(&view)? {
            Some(Asked::Pause) => fleet.pause(!control.is_paused())?,
            Some(Asked::Stop) => signals.add(),
            None => {}
        }
        if signals.count() > signalled {
            signalled = signals.count();
            stopped_at.get_or_insert(status.elapsed);
            if signalled == 1 { fleet.drain()? } else { fleet.abort()? }
        }
        screen.wait(TICK);
    }
    screen.close();
    let seconds = stopped_at.map(|at: Duration| at.as_secs_f64()).or(planned_seconds);
    let (sent, mut failures) = fleet.finish()?;
    // The schedule may have a quiet end, in which something is still to be done.
    let until = Duration::from_secs_f64(seconds.unwrap_or(0.0));
    let (last, not_done) = chaos.finish(control.at(until));
    done.extend(last);
    let failed = done.iter().filter(|done| done.failed).map(|done| format!("at {:.1} s: {}", done.at, done.what));
    failures.extend(failed.chain(not_done).map(Failure::new));
    let started_at = jiff::Timestamp::from_microsecond(control.unix_us(control.start()))?.to_string();
    let mut result = RunResult::new(&totals, fleet.labels(), ends.about.clone(), started_at, seconds);
    for second in &mut result.timeline {
        second.in_flight = most_in_flight.get(&second.second).copied();
    }
    result.events = done.iter().map(|done| Event { at: done.at, what: done.what.clone() }).collect();
    if order.audit && sent.is_none() {
        failures.push(Failure::new("no audit was made: not all that was sent is known"));
    }
    if let (Some(admin), Some(sent), true) = (&ends.admin, sent, order.audit) {
        let started = Instant::now();
        if !ends.quiet {
            eprintln!("auditing {} requests", sent.len());
        }
        let kills = done.iter().filter_map(|done| {
            done.killed.as_ref().map(|data_addr| Kill { at_us: done.at_us, data_addr: data_addr.clone() })
        });
        let audit = Audit {
            run: order.run,
            sent,
            kills: kills.collect(),
            before: ends.before.clone(),
            clock_slack_us: ends.clock_slack_us,
        };
        match audit.judge(admin) {
            Ok(verdict) => result.audit = Some(verdict),
            // What was measured stays, without a judgement of it.
            Err(error) => failures.push(Failure::new(format!("the audit could not be made: {error:#}"))),
        }
        if !ends.quiet {
            eprintln!("audited in {:.1} s", started.elapsed().as_secs_f64());
        }
    }
    result.thresholds = ends.thresholds.iter().map(|threshold| threshold.judge(&result)).collect();
    result.decide(signalled > 0, failures);
    Ok(result)
}
