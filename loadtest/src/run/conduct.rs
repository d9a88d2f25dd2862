//! Leads a fleet through a run: shows it, does chaos, stops it, audits it, judges it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Fleet, Order, signals::Signals};
use crate::{
    admin::Admin,
    audit::{self, Audit, Kill},
    chaos::{self, Done, Hands, Step},
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
    /// How far nodes' clocks may be apart, for the audit.
    pub(crate) clock_slack_us: i64,
    /// Nothing on the terminal until the end.
    pub(crate) quiet: bool,
}

/// Runs to the end.
pub(crate) fn conduct(fleet: &mut dyn Fleet, order: &Order, ends: &Ends) -> Result<RunResult> {
    let signals = Signals::listen();
    let control = fleet.control();
    let before = match (&ends.admin, order.audit) {
        (Some(admin), true) => {
            let accounts: std::collections::BTreeSet<&String> =
                order.keys.iter().filter_map(|key| key.account.as_ref()).collect();
            audit::standings(admin, &accounts.into_iter().cloned().collect::<Vec<_>>())
        }
        _ => Default::default(),
    };
    let hands = Hands { control: ends.chaos_control.clone(), admin: ends.admin.clone() };
    let chaos = chaos::start(ends.chaos.clone(), hands, control.clone());
    let mut screen = Screen::new(ends.quiet);
    let mut totals = Totals::default();
    let mut done: Vec<Done> = Vec::new();
    let (mut stopped_at, mut signalled) = (None, 0);
    let planned_seconds = order.curve()?.map(|curve| curve.seconds());
    loop {
        let status = fleet.poll()?;
        totals.add(&status.delta)?;
        let second = status.elapsed.as_secs();
        let closed = second.saturating_sub(order.timeout_ms / 1_000 + LATE_SECONDS);
        totals.close_before(u32::try_from(closed).unwrap_or(u32::MAX));
        done.extend(chaos.try_iter());
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
    let seconds = stopped_at.unwrap_or_else(|| {
        let last = totals.points().last().map_or(0.0, |point| f64::from(point.second) + 1.0);
        Duration::from_secs_f64(planned_seconds.unwrap_or(last))
    });
    let (sent, failures) = fleet.finish()?;
    let started_at = jiff::Timestamp::from_microsecond(control.unix_us(control.start()))?.to_string();
    let mut result = RunResult::new(&totals, fleet.labels(), ends.about.clone(), started_at, seconds.as_secs_f64());
    result.events = done.iter().map(|done| Event { at: done.at, what: done.what.clone() }).collect();
    if let (Some(admin), true) = (&ends.admin, order.audit) {
        let started = Instant::now();
        if !ends.quiet {
            eprintln!("auditing {} requests", sent.len());
        }
        let kills = done.iter().filter_map(|done| {
            done.killed.as_ref().map(|data_addr| Kill { at_us: done.at_us, data_addr: data_addr.clone() })
        });
        let audit = Audit { run: order.run, sent, kills: kills.collect(), before, clock_slack_us: ends.clock_slack_us };
        result.audit = Some(audit.judge(admin)?);
        if !ends.quiet {
            eprintln!("audited in {:.1} s", started.elapsed().as_secs_f64());
        }
    }
    result.thresholds = ends.thresholds.iter().map(|threshold| threshold.judge(&result)).collect();
    result.decide(signalled > 0, failures);
    Ok(result)
}
