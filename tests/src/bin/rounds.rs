//! Plays rounds of faults on three real processes, each in a network namespace of its own, and reports what they came to.
//!
//! `cargo run -p tests --bin rounds -- --rounds 200`
//!
//! Needs the permission to make namespaces (root, or user namespaces), iproute2 and util-linux; for failed flushes strace.
//! Ends with 1 when a law was broken; then the nodes' directory is kept.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use tests::{
    Net,
    rounds::{Clients, Kind, Outcome, Random, World},
};

/// Rounds of faults on a cluster of real processes.
#[derive(Debug, Parser)]
struct Args {
    /// How many.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Chooses faults, victims and moments; the time of day when not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Only the fault of this name.
    #[arg(long)]
    only: Option<String>,
    /// Seconds that a fault lasts; then nodes that it has not befallen must answer within three quarters of it.
    #[arg(long)]
    hold: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match Net::enter() {
        Ok(Some(code)) => return code,
        Ok(None) => {}
        Err(why) => {
            eprintln!("cannot run: {why}");
            return ExitCode::FAILURE;
        }
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let seed = args.seed.unwrap_or(now);
    println!("seed {seed}");
    let kinds: Vec<Kind> =
        Kind::all().into_iter().filter(|kind| args.only.as_ref().is_none_or(|only| only == kind.name())).collect();
    if kinds.is_empty() {
        let names: Vec<_> = Kind::all().into_iter().map(Kind::name).collect();
        eprintln!("no such fault; there are {names:?}");
        return ExitCode::FAILURE;
    }
    let mut random = Random::new(seed);
    let (mut world, open) = World::start();
    let mut clients = Clients::new(&world, open);
    clients.hold = args.hold.map(Duration::from_secs);
    let mut all: BTreeMap<Kind, Vec<Outcome>> = BTreeMap::new();
    let (started, mut left) = (Instant::now(), Vec::new());
    for number in 1..=args.rounds {
        // Each once before one comes again.
        if left.is_empty() {
            left.clone_from(&kinds);
        }
        let kind = left.swap_remove(random.below(left.len()));
        let outcome = clients.play(&mut world, kind, &mut random);
        println!(
            "round {number} at {:.0?}: {}: {} answered, gap {:.2?}, revoked in {:.2?}{}",
            started.elapsed(),
            kind.name(),
            outcome.answered,
            outcome.gap.unwrap_or_default(),
            outcome.revoked_in.unwrap_or_default(),
            if outcome.broken.is_empty() { "" } else { " BROKEN" },
        );
        for broken in &outcome.broken {
            println!("  broken: {broken}");
        }
        all.entry(kind).or_default().push(outcome);
    }
    summary(&all);
    if all.values().flatten().all(|outcome| outcome.broken.is_empty()) {
        println!("no law was broken");
        return ExitCode::SUCCESS;
    }
    println!("the nodes' logs and data are in {}", world.cluster.keep().display());
    ExitCode::FAILURE
}

fn summary(all: &BTreeMap<Kind, Vec<Outcome>>) {
    println!(
        "{:28} {:>6} {:>9} {:>5} {:>7} {:>5}  longest without a 200 elsewhere",
        "", "rounds", "answered", "lost", "doubled", "over"
    );
    let mut sum = Outcome::default();
    for (kind, outcomes) in all {
        let total = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
        let (answered, lost, doubled) = (total(|one| one.answered), total(|one| one.lost), total(|one| one.doubled));
        let over: u64 = outcomes.iter().map(|one| one.over).sum();
        let gap = outcomes.iter().filter_map(|one| one.gap).max().unwrap_or(Duration::ZERO);
        println!("{:28} {:>6} {answered:>9} {lost:>5} {doubled:>7} {over:>5}  {gap:.2?}", kind.name(), outcomes.len());
        (sum.answered, sum.lost, sum.doubled) = (sum.answered + answered, sum.lost + lost, sum.doubled + doubled);
        sum.over += over;
    }
    let rounds: usize = all.values().map(Vec::len).sum();
    println!("{:28} {rounds:>6} {:>9} {:>5} {:>7} {:>5}", "all", sum.answered, sum.lost, sum.doubled, sum.over);
}
