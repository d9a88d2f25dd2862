//! Plays the simulation for as long as asked, seed after seed, and reports simulated hours, faults by kind, and seeds.
//!
//! `cargo run -p tests --bin soak -- --minutes 5`
//!
//! Each seed has a process of its own. A broken law is printed with the command that repeats it, and ends the soak with 1:
//! `cargo run -p tests --bin soak -- --seed 17 --trace`. The time only decides how many seeds are played: what a seed comes
//! to does not depend on it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use tests::seeds::{self, Manner, Report};

/// A planted defect must be found by one of so many seeds, of so many simulated seconds.
const SEEDS_A_DEFECT: u64 = 12;
const SECONDS_A_DEFECT: u64 = 20;

/// Simulated clusters, seed after seed, until a law is broken or the time is over.
#[derive(Debug, Parser)]
struct Args {
    /// Minutes after which no further seed begins.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Seeds at most.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Seeds to play at once; 0 for one a core.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Plays this one seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints what happens (with --seed).
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Plants every defect, one at a time, and expects each to break a law of its own.
    #[arg(long)]
    planted: bool,
    #[command(flatten)]
    manner: Manner,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let program = seeds::program()?;
    match args.seed {
        Some(seed) => one(&program, &args, seed),
        None if args.planted => planted(&program, &args),
        None => many(&program, &args),
    }
}

fn one(program: &PathBuf, args: &Args, seed: u64) -> Result<ExitCode> {
    let mut command = Command::new(program);
    command.arg(seed.to_string()).args(args.manner.arguments());
    if args.trace {
        command.arg("--trace");
    }
    let status = command.status().context("run simulate")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Calls `work` with 0, 1, 2, … on as many threads as asked for, each until it says no.
fn on_threads(args: &Args, work: impl Fn(usize) -> Result<bool> + Sync) -> Result<()> {
    let jobs = match args.jobs {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let one = || -> Result<()> {
            while work(next.fetch_add(1, Ordering::Relaxed))? {}
            Ok(())
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(one)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })
}

fn many(program: &PathBuf, args: &Args) -> Result<ExitCode> {
    let until = Instant::now() + Duration::from_secs_f64(args.minutes * 60.0);
    let most = args.seeds.unwrap_or(u64::MAX);
    let (stop, reports) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    on_threads(args, |n| {
        if n as u64 >= most || Instant::now() >= until || stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let report = seeds::play(program, args.from + n as u64, &args.manner)?;
        if report.violation.is_some() {
            stop.store(true, Ordering::Relaxed);
        }
        reports.lock().expect("no holder of this lock panics").push(report);
        Ok(true)
    })?;
    Ok(summary(args, &reports.into_inner().expect("no holder of this lock panicked")))
}

fn summary(args: &Args, reports: &[Report]) -> ExitCode {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (what, count) in reports.iter().flat_map(|report| &report.counts) {
        *counts.entry(what).or_default() += count;
    }
    for (what, count) in &counts {
        println!("{count:>9} {what}");
    }
    let simulated: f64 = reports.iter().map(|report| report.simulated_ms as f64 / 1e3).sum();
    let of = |nodes| reports.iter().filter(|report| report.nodes == nodes).count();
    let last = reports.iter().map(|report| report.seed).max().unwrap_or(args.from);
    println!(
        "{} seeds ({} to {last}; {} with 3 nodes, {} with 5), {:.2} simulated hours",
        reports.len(),
        args.from,
        of(3),
        of(5),
        simulated / 3_600.0
    );
    let broken: Vec<_> = reports.iter().filter_map(|report| Some((report.seed, report.violation.as_ref()?))).collect();
    for (seed, (law, what)) in &broken {
        let manner: String = args.manner.arguments().iter().map(|argument| format!(" {argument}")).collect();
        println!("seed {seed}: {law}: {what}");
        println!("  repeat: cargo run -p tests --bin soak -- --seed {seed}{manner} --trace");
    }
    if broken.is_empty() {
        println!("no law was broken");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// Checks the checkers. By seeds, not by time: what is found does not depend on the machine.
fn planted(program: &PathBuf, args: &Args) -> Result<ExitCode> {
    let defects = seeds::defects(program)?;
    let missed = AtomicBool::new(false);
    on_threads(args, |n| {
        let Some(defect) = defects.get(n) else { return Ok(false) };
        let seconds = args.manner.seconds.or(Some(SECONDS_A_DEFECT));
        let manner = Manner { defect: Some(defect.clone()), seconds, ..args.manner.clone() };
        let mut simulated_ms = 0;
        for seed in args.from..args.from + args.seeds.unwrap_or(SEEDS_A_DEFECT) {
            let report = seeds::play(program, seed, &manner)?;
            simulated_ms += report.simulated_ms;
            // What else it breaks (openraft's own assertions, say) shows nothing of its law's checker.
            let (Some((law, what)), Some(true)) = (report.violation, report.expected) else { continue };
            let seconds = simulated_ms as f64 / 1e3;
            println!("{defect:22} found: seed {seed}, after {seconds:.1} simulated seconds: {law}: {what:.160}");
            return Ok(true);
        }
        println!("{defect:22} NOT FOUND");
        missed.store(true, Ordering::Relaxed);
        Ok(true)
    })?;
    Ok(if missed.into_inner() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
