//! `trace`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    admin::Admin,
    exit::{Exit, Usage},
    trace::{self, ConvertSettings, Format, Recording},
};

/// `trace …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Writes a trace from Tollgate's request log; keys and accounts become pseudonyms
    Record(Record),
    /// Converts from and to traces, combined logs, nginx JSON logs, vegeta targets, HAR, GoReplay and CSV
    Convert(Convert),
}

#[derive(Debug, Args)]
pub(super) struct Record {
    /// The trace to write; .gz and .zst are compressed
    output: PathBuf,
    /// Tollgate's admin API; its token is TOLLGATE_ADMIN_TOKEN
    #[arg(long, value_name = "URL,…", value_delimiter = ',', required = true)]
    admin: Vec<String>,
    /// Authorities of an https admin API, PEM; the system's without
    #[arg(long, env = "TOLLGATE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The admin token. From the environment only
    #[arg(long, env = "TOLLGATE_ADMIN_TOKEN", hide = true, hide_env_values = true)]
    admin_token: Option<String>,
    /// From then: RFC 3339, or a time before now like 1h
    #[arg(long, value_name = "TIME", default_value = "1h")]
    since: String,
    /// Until then; now when not given
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// One account only
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Salt of the pseudonyms, so that two traces have the same names; without it one of chance
    #[arg(long, env = "TOLLGATE_TRACE_SALT", hide = true, hide_env_values = true)]
    salt: Option<String>,
    /// Seed of the spread of coalesced rejections
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
pub(super) struct Convert {
    /// What to read; - is stdin
    input: PathBuf,
    /// What to write; - is stdout; .gz and .zst are compressed
    output: PathBuf,
    /// What the input is, when its name does not say
    #[arg(long, value_enum)]
    from: Option<Format>,
    /// What the output is, when its name does not say; on stdout a trace
    #[arg(long, value_enum)]
    to: Option<Format>,
    /// Lines held back to be put into order
    #[arg(long, value_name = "LINES", default_value_t = trace::WINDOW)]
    sort_window: usize,
    /// Bad lines that are left out and reported; one more ends it
    #[arg(long, value_name = "LINES", default_value_t = 0)]
    skip_bad: u64,
    /// Seed of the spread of logs that know seconds only
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Targets a second, for vegeta targets, which have no times
    #[arg(long, default_value = "100/s", value_parser = crate::shape::rate)]
    rate: f64,
    /// Host of the URLs that are written
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    host: String,
    /// Salt of the pseudonyms; without it one of chance
    #[arg(long, env = "TOLLGATE_TRACE_SALT", hide = true, hide_env_values = true)]
    salt: Option<String>,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit> {
        let count = match self {
            Self::Record(record) => record.run()?,
            Self::Convert(convert) => convert.run()?,
        };
        eprintln!("{count} requests");
        Ok(Exit::Pass)
    }
}

impl Record {
    fn run(self) -> Result<u64> {
        let token =
            self.admin_token.as_deref().ok_or_else(|| Usage::error("the token is missing: TOLLGATE_ADMIN_TOKEN"))?;
        let admin = Admin::new(&self.admin, token, self.ca.as_deref())?;
        let now = jiff::Timestamp::now().as_nanosecond();
        let time = |text: &str| -> Result<i128> {
            if let Ok(ago) = crate::shape::duration(text) {
                return Ok(now - (ago * 1e9) as i128);
            }
            let time: jiff::Timestamp = text
                .parse()
                .map_err(|_| Usage::error(format!("{text:?}: expected a time like 2026-01-31T12:00:00Z or 1h")))?;
            Ok(time.as_nanosecond())
        };
        let recording = Recording {
            since_ns: time(&self.since)?,
            until_ns: self.until.as_deref().map(time).transpose()?.unwrap_or(now),
            account: self.account,
            salt: self.salt,
            seed: self.seed,
        };
        trace::record(&recording, &admin, &self.output)
    }
}

impl Convert {
    fn run(self) -> Result<u64> {
        let format = |given: Option<Format>, path: &PathBuf, flag: &str| {
            // What is written to a pipe is a trace, unless it is said.
            let piped = (flag == "--to" && path.as_os_str() == "-").then_some(Format::Trace);
            given.or_else(|| Format::of(path)).or(piped).ok_or_else(|| {
                Usage::error(format!("{}: its name does not say what it is; give {flag}", path.display()))
            })
        };
        let settings = ConvertSettings {
            from: format(self.from, &self.input, "--from")?,
            to: format(self.to, &self.output, "--to")?,
            sort_window: self.sort_window,
            skip_bad: self.skip_bad,
            seed: self.seed,
            rate: self.rate,
            host: self.host,
            salt: self.salt,
        };
        trace::convert(&settings, &self.input, &self.output)
    }
}
