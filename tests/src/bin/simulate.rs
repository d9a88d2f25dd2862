//! Plays one seed of the simulation and prints a line of JSON ([`tests::seeds::Report`]). `soak` runs it, seed after seed.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use store::simulation::Defect;
use tests::{
    seeds::{Manner, Report},
    sim::{Plan, laws_broken_by, run},
};

#[path = "simulate/random.rs"]
mod random;

/// One simulated cluster.
#[derive(Debug, Parser)]
struct Args {
    /// Decides everything that happens.
    #[arg(required_unless_present = "defects")]
    seed: Option<u64>,
    /// Prints what happens on stderr.
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    manner: Manner,
    /// Prints the names of the defects that can be planted.
    #[arg(long)]
    defects: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let Some(seed) = args.seed else {
        Defect::ALL.iter().for_each(|defect| println!("{defect:?}"));
        return Ok(ExitCode::SUCCESS);
    };
    // The same paths in each process: they are keys of maps.
    let dir = tempfile::tempdir().context("make a directory")?;
    std::env::set_current_dir(dir.path()).context("enter the directory")?;
    let mut plan = Plan::of(seed);
    plan.trace = args.trace;
    plan.faults = !args.manner.calm;
    plan.defect = args.manner.defect.as_deref().map(defect).transpose()?;
    // There is nothing to be found where nothing moves; and where members come and go, little does in so short a time.
    if plan.defect == Some(Defect::MovesWithoutCounters) {
        (plan.splits, plan.faults) = (true, false);
    }
    if let Some(seconds) = args.manner.seconds {
        plan.length = Duration::from_secs(seconds);
    }
    let (nodes, planted) = (plan.nodes, plan.defect);
    random::seed(seed);
    let outcome = run(plan);
    let law = outcome.violation.as_ref().map(|violation| violation.law);
    let report = Report {
        seed,
        nodes,
        expected: law.zip(planted).map(|(law, planted)| laws_broken_by(planted).contains(&law)),
        violation: outcome.violation.map(|violation| (violation.law.to_owned(), violation.what)),
        simulated_ms: u64::try_from(outcome.simulated.as_millis()).unwrap_or(u64::MAX),
        sum: outcome.sum,
        counts: outcome.counts,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn defect(name: &str) -> anyhow::Result<Defect> {
    let all = Defect::ALL;
    let found = all.iter().find(|defect| format!("{defect:?}").eq_ignore_ascii_case(name));
    found.copied().with_context(|| format!("{name} is not one of {all:?}"))
}
