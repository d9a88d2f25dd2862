//! `keys`.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    admin::{Admin, escaped},
    exit::{Exit, Usage},
    plan::KeyLine,
};

/// `keys …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Makes accounts with a key each and writes a file of keys, readable by its owner alone
    Make(Make),
}

#[derive(Debug, Args)]
pub(super) struct Make {
    /// The file to write
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
    /// The accounts' tier, which must be there
    #[arg(long)]
    tier: String,
    /// How many accounts
    #[arg(long, default_value_t = 10)]
    accounts: u32,
    /// Accounts are named so, with a number behind; one that is there is used again
    #[arg(long, default_value = "loadtest")]
    prefix: String,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit> {
        let Self::Make(make) = self;
        let token =
            make.admin_token.as_deref().ok_or_else(|| Usage::error("the token is missing: TOLLGATE_ADMIN_TOKEN"))?;
        let admin = Admin::new(&make.admin, token, make.ca.as_deref())?;
        ensure!(
            admin.find(&format!("/v1/tiers/{}", escaped(&make.tier)))?.is_some(),
            Usage(format!("there is no tier {:?}", make.tier))
        );
        let name = make.output.display();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&make.output);
        let mut file = file.with_context(|| format!("make {name} (an existing file is not written over)"))?;
        for number in 1..=make.accounts {
            let account = format!("{}-{}-{number}", make.prefix, make.tier);
            admin.post("/v1/accounts", &json!({ "id": account, "name": account, "tier": make.tier }))?;
            let key =
                admin.post(&format!("/v1/accounts/{}/keys", escaped(&account)), &json!({ "name": "loadtest" }))?;
            let secret = key.as_ref().and_then(|key| key["secret"].as_str()).context("read the new key's secret")?;
            let line =
                KeyLine { k: None, key: secret.to_owned(), account: Some(account), tier: Some(make.tier.clone()) };
            writeln!(file, "{}", serde_json::to_string(&line)?).with_context(|| format!("write {name}"))?;
        }
        eprintln!("{} keys in {name}", make.accounts);
        Ok(Exit::Pass)
    }
}
