//! The command line.

mod arguments;
mod keys;
mod run;
mod scenario;
mod traces;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{cluster, exit::Exit, report, run::is_usage, selftest, trace};

/// Open-loop load for Tollgate or any HTTP service: replays traces, shapes spikes, audits the ledger.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    tollgate-loadtest run http://127.0.0.1:8080/v3/scan --shape \"hold 100/s 30s; spike 10x 45s; hold 100/s 30s\" --report report.html\n  \
    tollgate-loadtest run http://127.0.0.1:8080 --trace monday.ndjson.zst --speed 2 --amplitude 3 --keys keys.ndjson\n  \
    tollgate-loadtest trace convert access.log monday.ndjson.zst\n\n\
    Exit codes: 0 pass, 1 internal, 2 usage, 10 threshold, 11 audit, 12 invalid run, 130 interrupted"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends traffic on a schedule and reports what became of it
    Run(Box<arguments::RunArguments>),
    /// Records and converts traces
    #[command(subcommand)]
    Trace(traces::Command),
    /// Makes accounts and keys to send with, through Tollgate's admin API
    #[command(subcommand)]
    Keys(keys::Command),
    /// Waits for a coordinator's orders
    Worker {
        /// Where it listens
        #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8090")]
        listen: std::net::SocketAddr,
        /// Listens beyond loopback although orders carry keys and there is no TLS
        #[arg(long)]
        insecure: bool,
    },
    /// As run, with workers as the generators; judges them as one
    Coordinator {
        /// The workers
        #[arg(long, value_name = "ADDR:PORT,…", value_delimiter = ',', required = true)]
        workers: Vec<String>,
        #[command(flatten)]
        run: Box<arguments::RunArguments>,
    },
    /// Shows that its verdicts mean something: a server that stalls, a generator that is slowed, gateways that lose and over-admit
    Selftest,
    /// Prints a published JSON Schema
    Schema {
        /// Which one
        #[arg(value_enum)]
        of: Schema,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Schema {
    /// A line of a trace
    Trace,
    /// result.json
    Result,
}

/// Parses, runs, and says how it ended.
pub(crate) fn main() -> ExitCode {
    let mut words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    // `tollgate-loadtest URL …` is short for `tollgate-loadtest run URL …`.
    if words.get(1).is_some_and(|word| is_url(&word.to_string_lossy())) {
        words.insert(1, "run".into());
    }
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Pass }.into();
        }
    };
    match execute(arguments.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("tollgate-loadtest: {error:#}");
            if is_usage(&error) { Exit::Usage } else { Exit::Internal }.into()
        }
    }
}

fn is_url(word: &str) -> bool {
    word.starts_with("http://") || word.starts_with("https://")
}

fn execute(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Run(arguments) => run::run(&arguments, &[]),
        Command::Coordinator { workers, run } => run::run(&run, &workers),
        Command::Trace(command) => command.run(),
        Command::Keys(command) => command.run(),
        Command::Worker { listen, insecure } => cluster::worker(listen, insecure).map(|()| Exit::Pass),
        Command::Selftest => selftest::run(),
        Command::Schema { of } => {
            print!(
                "{}",
                match of {
                    Schema::Trace => trace::SCHEMA,
                    Schema::Result => report::SCHEMA,
                }
            );
            Ok(Exit::Pass)
        }
    }
}
