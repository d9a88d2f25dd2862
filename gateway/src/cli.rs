//! The command line: one binary, one file a noun.
//!
//! Remote commands speak the admin API and know nothing else of a node. Data goes to stdout, all else to stderr. Exit
//! codes: 0 done, 1 failed, 2 used wrongly, 4 not allowed, 8 different.

mod account;
mod alerts;
mod apply;
mod audit;
mod client;
mod cluster;
mod completions;
mod context;
mod demo;
mod doctor;
mod document;
mod explain;
mod export;
mod failure;
mod key;
mod limits;
mod login;
mod named;
mod output;
mod progress;
mod remote;
mod requests;
mod route;
mod serve;
mod tail;
mod tier;
mod time;
mod token;
mod upstream;
mod usage;

use std::process::ExitCode;

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};

pub(crate) use client::{Client, OnlyIf};

/// Reads a text as a declarative file, for fuzzing.
pub(crate) fn parse_document_for_fuzz(text: &str) {
    let _ = document::parse(text);
}

use crate::config::Entries;

/// An API gateway whose request log is durable on a quorum before the answer is.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Tries it out: nodes, an upstream, tiers, accounts and keys in one process
    Demo(demo::Arguments),
    /// Runs a node
    Serve(Box<serve::Arguments>),
    /// The cluster's nodes and Raft groups
    Cluster(cluster::Arguments),
    /// Accounts
    Account(account::Arguments),
    /// API keys
    Key(key::Arguments),
    /// Usage tiers: rate limits, quotas, concurrency
    Tier(tier::Arguments),
    /// Routes: which requests go to which upstream
    Route(route::Arguments),
    /// Upstreams: the services behind the gateway
    Upstream(upstream::Arguments),
    /// The request log
    Requests(requests::Arguments),
    /// An account's usage over time
    Usage(usage::Arguments),
    /// An account's limits and quotas as they stand now
    Limits(limits::Arguments),
    /// Quotas whose use has passed a threshold
    Alerts(alerts::Alerts),
    /// What an account has used beyond its quotas, to be billed apart
    Overages(alerts::Overages),
    /// Makes the cluster as a file says, as one change
    Apply(apply::Apply),
    /// Tells where a file and the cluster differ (exit code 8)
    Diff(apply::Diff),
    /// Writes the cluster's configuration as a file
    Export(export::Arguments),
    /// What a request would meet now, step by step, and who set it
    Explain(explain::Arguments),
    /// Admin tokens
    Token(token::Arguments),
    /// Signs you in by the cluster's identity provider and keeps the token
    Login(login::Arguments),
    /// Every admin write: who, what, when
    Audit(audit::Arguments),
    /// Clusters by name: addresses and token files
    Context(context::Arguments),
    /// What a node needs of its machine, and how the cluster is
    Doctor(doctor::Arguments),
    /// Prints a shell's completion script
    Completions(completions::Arguments),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Parsing prints usage errors and help itself, and exits with 2 or 0.
    let matches = command().try_get_matches().unwrap_or_else(|error| best_first(error).exit());
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match cli.noun {
        Noun::Demo(arguments) => arguments.run(),
        Noun::Serve(arguments) => arguments.run(),
        Noun::Cluster(arguments) => arguments.run(),
        Noun::Account(arguments) => arguments.run(),
        Noun::Key(arguments) => arguments.run(),
        Noun::Tier(arguments) => arguments.run(),
        Noun::Route(arguments) => arguments.run(),
        Noun::Upstream(arguments) => arguments.run(),
        Noun::Requests(arguments) => arguments.run(),
        Noun::Usage(arguments) => arguments.run(),
        Noun::Limits(arguments) => arguments.run(),
        Noun::Alerts(arguments) => arguments.run(),
        Noun::Overages(arguments) => arguments.run(),
        Noun::Apply(arguments) => arguments.run(),
        Noun::Diff(arguments) => arguments.run(),
        Noun::Export(arguments) => arguments.run(),
        Noun::Explain(arguments) => arguments.run(),
        Noun::Token(arguments) => arguments.run(),
        Noun::Login(arguments) => arguments.run(),
        Noun::Audit(arguments) => arguments.run(),
        Noun::Context(arguments) => arguments.run(),
        Noun::Doctor(arguments) => arguments.run(),
        Noun::Completions(arguments) => arguments.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

/// The parser has what somebody may have meant with the likeliest last.
fn best_first(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue] {
        if let Some(ContextValue::Strings(some)) = error.get(kind) {
            let some = some.iter().rev().cloned().collect();
            error.insert(kind, ContextValue::Strings(some));
        }
    }
    error
}

/// The whole command line, with every setting of `serve` described.
fn command() -> clap::Command {
    Cli::command().mut_subcommand("serve", Entries::describe)
}

#[cfg(test)]
mod tests;
