//! One round: clients, a fault, a revoked key, and then the laws.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};

use super::{Fault, Kind, Random, World, laws, world::NODES};
use crate::{Load, Received, Report, rfc3339};

/// A second, and at once, of the account `fast`.
const FAST: (u64, u64) = (60, 20);
/// A minute, and at once, of the account `slow`: a bucket whose debt is in the replicated state.
const SLOW: (u64, u64) = (120, 40);
/// Requests at once of the account `narrow` …
const AT_ONCE: usize = 3;
/// … and how long the upstream takes for each.
const TAKES: Duration = Duration::from_millis(150);
/// Clients' pause after an answer: the cores are for the nodes.
const PAUSE: Duration = Duration::from_millis(15);
/// Requests of `slow` that are looked back at.
const REMEMBERED: usize = 3_000;
/// Rows are asked for from so long before the round: far more than clocks of one machine differ.
const BEFORE: Duration = Duration::from_secs(2);

/// What a round came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Answers whose rows are promised.
    pub answered: usize,
    /// Of them, those without a row.
    pub lost: usize,
    /// Ids with several rows.
    pub doubled: usize,
    /// Units admitted above a limit.
    pub over: u64,
    /// The longest time in which a node that was not befallen gave no 200; none where all were befallen.
    pub gap: Option<Duration>,
    /// From the revocation's call to its answer, where it was made.
    pub revoked_in: Option<Duration>,
    /// Laws that were broken, in words.
    pub broken: Vec<String>,
}

/// The clients' accounts, over all rounds.
#[derive(Debug)]
pub struct Clients {
    /// Keys by account: `acme` (no limits), `fast`, `slow`, `narrow`.
    keys: BTreeMap<&'static str, String>,
    /// How long a fault lasts; chosen each time when not given. Then the others must answer within three quarters of it.
    pub hold: Option<Duration>,
    /// Sends and answers of what was admitted, by account.
    admitted: BTreeMap<&'static str, Vec<(Instant, Instant)>>,
    rounds: usize,
}

impl Clients {
    /// Makes their accounts.
    pub fn new(world: &World, open: String) -> Self {
        let limit = |rate: String, burst: u64| json!({ "limits": [{ "name": "all", "per": ["account"], "rate": rate, "burst": burst }] });
        let keys = [
            ("acme", open),
            ("fast", world.account("fast", &limit(format!("{}/s", FAST.0), FAST.1))),
            ("slow", world.account("slow", &limit(format!("{}/m", SLOW.0), SLOW.1))),
            ("narrow", world.account("narrow", &json!({ "concurrency": AT_ONCE }))),
        ];
        Self { keys: keys.into(), hold: None, admitted: BTreeMap::new(), rounds: 0 }
    }

    /// Plays a round.
    pub fn play(&mut self, world: &mut World, kind: Kind, random: &mut Random) -> Outcome {
        self.rounds += 1;
        let mut outcome = Outcome::default();
        let since = rfc3339(SystemTime::now() - BEFORE);
        let (quota, limit) = (format!("quota-{}", self.rounds), 100 + random.below(1_200));
        let daily = json!({ "name": "daily", "unit": "requests", "limit": limit, "period": "day" });
        let quota_key = world.account(&quota, &json!({ "quotas": [daily] }));
        let (doomed_id, doomed) = world.key("acme");
        let start = |world: &World, path: &str, key: &str, clients| Load::paced(&world.urls(path), key, clients, PAUSE);
        let loads: Vec<(&str, Load)> = vec![
            ("acme", start(world, "/", &self.keys["acme"], 2)),
            ("fast", start(world, "/", &self.keys["fast"], 1)),
            ("slow", start(world, "/", &self.keys["slow"], 1)),
            ("narrow", start(world, &format!("/delay/{}", TAKES.as_millis()), &self.keys["narrow"], 2)),
            ("quota", start(world, "/", &quota_key, 1)),
            ("doomed", start(world, "/", &doomed, 1)),
        ];
        std::thread::sleep(random.millis(200..1_000));

        let mut fault = Fault::begin(kind, world, random);
        // Through a node that can; where none can, through one that will.
        let through = fault.others().first().copied().unwrap_or(0);
        let admin = world.cluster.nodes[through].admin();
        let wait = random.millis(0..2_000);
        let revoking = std::thread::spawn(move || {
            std::thread::sleep(wait);
            let asked = Instant::now();
            while asked.elapsed() < crate::PATIENCE {
                let answer = admin.try_call("DELETE", &format!("/v1/keys/{doomed_id}"), None);
                if answer.is_some_and(|answer| answer.status == 204) {
                    return Some((asked, Instant::now()));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            None
        });
        let chosen = random.millis(800..4_500);
        fault.last(world, self.hold.unwrap_or(chosen), random);
        let (others, began) = (fault.others(), fault.began);
        if let Err(broken) = fault.end(world) {
            outcome.broken.push(broken);
        }
        let healed = Instant::now();
        // Each node serves, and what it does then is looked at too.
        for target in 0..NODES {
            loads[0].1.wait_more(target, 10);
        }
        let revoked = revoking.join().expect("it does not panic");
        outcome.revoked_in = revoked.map(|(asked, answered)| answered - asked);
        if revoked.is_none() {
            outcome.broken.push("a key could not be revoked".to_owned());
        }
        let reports: BTreeMap<&str, Report> = loads.into_iter().map(|(name, load)| (name, load.stop())).collect();
        outcome.gap = others.iter().map(|node| reports["acme"].longest_gap(*node, began, healed)).max();

        if let (Some(hold), Some(gap)) = (self.hold, outcome.gap)
            && gap > hold * 3 / 4
        {
            outcome.broken.push(format!("the others gave no 200 for {gap:.1?} of {hold:?}"));
        }
        self.rates(&reports, &mut outcome);
        answers(&reports, revoked, &mut outcome);
        let asked = &world.cluster.nodes[random.below(NODES)];
        for (name, report) in &reports {
            let account = match *name {
                "quota" => quota.as_str(),
                "doomed" => "acme",
                name => name,
            };
            let rows = asked.admin().rows(&format!("account={account}&since={since}"));
            kept(name, report, &rows, &mut outcome);
            if *name == "quota" {
                within(&rows, report, limit, &mut outcome);
            }
        }
        outcome
    }

    /// P2 for what is counted over all rounds.
    fn rates(&mut self, reports: &BTreeMap<&str, Report>, outcome: &mut Outcome) {
        let limits = [("fast", FAST.0 as f64, FAST.1), ("slow", SLOW.0 as f64 / 60.0, SLOW.1)];
        for (account, per_second, burst) in limits {
            let admitted = self.admitted.entry(account).or_default();
            admitted.extend(times(&reports[account]));
            admitted.sort_unstable();
            admitted.drain(..admitted.len().saturating_sub(REMEMBERED));
            if let Some((over, what)) = laws::rate(admitted, per_second, burst as f64) {
                outcome.over += over;
                outcome.broken.push(format!("{account}: {over} admitted above the limit: {what}"));
                // Told once.
                admitted.clear();
            }
        }
        let most = laws::at_once(&times(&reports["narrow"]), TAKES);
        if most > AT_ONCE {
            outcome.over += (most - AT_ONCE) as u64;
            outcome.broken.push(format!("narrow: {most} requests at once, {AT_ONCE} are allowed"));
        }
    }
}

fn times(report: &Report) -> Vec<(Instant, Instant)> {
    let admitted = report.received.iter().filter(|answer| answer.status == 200);
    admitted.map(|answer| (answer.sent(), answer.at)).collect()
}

/// P3 and P5: what a client may be told.
fn answers(reports: &BTreeMap<&str, Report>, revoked: Option<(Instant, Instant)>, outcome: &mut Outcome) {
    for (name, report) in reports {
        let may = |answer: &Received| match (answer.status, answer.code.as_str()) {
            (200, _) => *name != "doomed" || revoked.is_none_or(|(_, answered)| answer.sent() <= answered),
            (503, "temporary-reduced-capacity") => true,
            (429, "rate-limited") => matches!(*name, "fast" | "slow"),
            (429, "quota-exceeded") => *name == "quota",
            (429, "concurrency-exceeded") => *name == "narrow",
            (401, "revoked-key") => *name == "doomed" && revoked.is_some_and(|(asked, _)| answer.at >= asked),
            _ => false,
        };
        let wrong: Vec<&Received> = report.received.iter().filter(|answer| !may(answer)).collect();
        if let Some(first) = wrong.first() {
            let what = format!(
                "{name}: {} answers that may not be, first {} {} of node {}: {}",
                wrong.len(),
                first.status,
                first.code,
                first.target + 1,
                first.detail
            );
            outcome.broken.push(what);
        }
    }
}

/// P1: refusals are coalesced past ten a second, so their ids are promised nothing.
fn kept(name: &str, report: &Report, rows: &[Value], outcome: &mut Outcome) {
    let promised: Vec<&Received> =
        report.received.iter().filter(|answer| !matches!(answer.status, 401 | 429 | 503)).collect();
    let (lost, twice) = laws::rows(promised.iter().copied(), rows);
    outcome.answered += promised.len();
    outcome.lost += lost.len();
    outcome.doubled += twice.len();
    if !lost.is_empty() {
        outcome.broken.push(format!("{name}: {} of {} rows lost: {:.300?}", lost.len(), promised.len(), lost));
    }
    if !twice.is_empty() {
        outcome.broken.push(format!("{name}: {} ids twice: {:.300?}", twice.len(), twice));
    }
}

/// P2 for quotas: the rows are the bill.
fn within(rows: &[Value], report: &Report, limit: usize, outcome: &mut Outcome) {
    let admitted = rows.iter().filter(|row| row["outcome"] == "admitted").count();
    let answered = report.received.iter().filter(|answer| answer.status == 200).count();
    let most = admitted.max(answered);
    if most > limit {
        outcome.over += (most - limit) as u64;
        outcome.broken.push(format!("quota: {admitted} rows admitted, {answered} answered, {limit} are allowed"));
    }
}
