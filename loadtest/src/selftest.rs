//! What the tool's verdicts are worth: servers whose faults are known, and runs that must find them.
//!
//! | what | must |
//! |---|---|
//! | a server that stalls for one second in ten, clients with few connections | show in the corrected p99, and not in the raw one |
//! | a generator that is slowed on purpose | call its own run INVALID; the same run unslowed is valid |
//! | a gateway that is honest | pass the audit |
//! | one that loses one row in 10,000 | fail it by exactly what it lost |
//! | one that writes one row twice | fail it |
//! | one that admits one too many | fail it |

mod faulty;
mod server;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    admin::Admin,
    exit::Exit,
    plan::KeyLine,
    report::{About, RunResult, Verdict},
    run::{Ends, Engine, LEAD, Order, RequestLine, conduct},
};
use faulty::{Fault, Gateway};
use server::Server;

/// Turns of the generator that nobody slows, to be on time once.
const PLAIN_TURNS: usize = 5;

/// One law and whether it held.
struct Law {
    name: &'static str,
    held: bool,
    seen: String,
}

/// Runs all of it; takes about a minute.
pub(crate) fn run() -> Result<Exit> {
    let mut laws = Vec::new();
    let mut told = |law: Law| {
        println!("{}  {}: {}", if law.held { "ok    " } else { "FAILED" }, law.name, law.seen);
        laws.push(law.held);
    };
    let (corrected, raw) = stalled()?;
    told(corrected);
    told(raw);
    let (slowed, unslowed) = slowed()?;
    told(slowed);
    told(unslowed);
    for fault in
        [Fault::None, Fault::Loses { every: 10_000 }, Fault::Doubles { number: 5_000 }, Fault::AdmitsOneTooMany]
    {
        told(audited(fault)?);
    }
    Ok(if laws.iter().all(|held| *held) { Exit::Pass } else { Exit::Internal })
}

fn go(order: &Order, admin: Option<Arc<Admin>>) -> Result<RunResult> {
    order.check()?;
    let mut ends = Ends {
        about: About::default(),
        thresholds: Vec::new(),
        admin,
        chaos: Vec::new(),
        chaos_control: None,
        before: Default::default(),
        clock_slack_us: 0,
        quiet: true,
    };
    ends.prepare(order)?;
    let mut engine = Engine::start(order, 0, 1, Instant::now() + LEAD)?;
    conduct(&mut engine, order, &ends)
}

fn order(target: &str, shape: &str) -> Order {
    Order {
        targets: vec![target.to_owned()],
        shape: Some(shape.to_owned()),
        requests: vec![RequestLine {
            method: None,
            path: "/".into(),
            body: None,
            headers: Default::default(),
            weight: 1.0,
        }],
        ..Order::default()
    }
}

/// Two connections: while the server stalls, two requests wait for it and all others for a connection.
fn stalled() -> Result<(Law, Law)> {
    let server = Server::start(|since: Duration| {
        let second = since.as_secs_f64() % 10.0;
        if (4.0..5.0).contains(&second) { Duration::from_secs_f64(5.0 - second) } else { Duration::ZERO }
    })?;
    let result = go(&Order { connections: Some(2), ..order(&server.url(), "hold 300/s 10s") }, None)?;
    let (corrected, raw) = (result.corrected.p99, result.service.p99);
    let seen = format!("corrected p99 {corrected:.1} ms, raw p99 {raw:.1} ms");
    Ok((
        Law { name: "a stall of 1 s in 10 is in the corrected p99", held: corrected > 500.0, seen: seen.clone() },
        Law { name: "and the raw p99 does not know of it", held: raw < 100.0, seen },
    ))
}

fn slowed() -> Result<(Law, Law)> {
    let server = Server::start(|_| Duration::ZERO)?;
    let slow = go(&Order { handicap_ms: 200, ..order(&server.url(), "hold 500/s 4s") }, None)?;
    // On a machine that others keep busy it may be late indeed, and is right to say so: it gets a few turns.
    let mut plain = go(&order(&server.url(), "hold 500/s 4s"), None)?;
    for _ in 1..PLAIN_TURNS {
        if plain.verdict == Verdict::Pass {
            break;
        }
        plain = go(&order(&server.url(), "hold 500/s 4s"), None)?;
    }
    let seen = |result: &RunResult| format!("verdict {:?}, lag p99 {:.2} ms", result.verdict, result.lag.p99);
    Ok((
        Law {
            name: "a slowed generator calls its run invalid",
            held: slow.verdict == Verdict::Invalid,
            seen: seen(&slow),
        },
        Law { name: "an unslowed one does not", held: plain.verdict == Verdict::Pass, seen: seen(&plain) },
    ))
}

fn audited(fault: Fault) -> Result<Law> {
    let gateway = Gateway::start(fault)?;
    let key = |(key, account, tier): (&str, &str, &str)| KeyLine {
        k: None,
        key: key.to_owned(),
        account: Some(account.to_owned()),
        tier: Some(tier.to_owned()),
    };
    let order = Order {
        keys: faulty::KEYS.map(key).to_vec(),
        mix: "tier:small=1,tier:large=9".into(),
        audit: true,
        run: 0x5e1f_7e57,
        ..order(&gateway.url(), "hold 1500/s 8s")
    };
    let admin = Admin::new(&[gateway.url()], "", None)?;
    let result = go(&order, Some(Arc::new(admin)))?;
    let Some(audit) = result.audit else { anyhow::bail!("the run was not audited") };
    let found = (audit.lost, audit.doubled, audit.over_admitted);
    let (name, held) = match fault {
        Fault::None => {
            ("an honest gateway passes the audit", audit.passes() && audit.coalesced > 0 && result.rejected_rate > 0.0)
        }
        Fault::Loses { .. } => ("one lost row in 10,000 fails the audit", found == (1, 0, 0) && !audit.passes()),
        Fault::Doubles { .. } => {
            ("one row written twice fails the audit", audit.doubled >= 1 && audit.lost == 0 && !audit.passes())
        }
        Fault::AdmitsOneTooMany => ("one admitted too many fails the audit", found == (0, 0, 1) && !audit.passes()),
    };
    let first = audit.findings.iter().find(|finding| finding.fails).map(|finding| format!("; {}", finding.what));
    let seen = format!(
        "lost {}, doubled {}, over-admitted {} of {} requests{}",
        audit.lost,
        audit.doubled,
        audit.over_admitted,
        audit.requests,
        first.unwrap_or_default()
    );
    Ok(Law { name, held, seen })
}
