//! `tollgate serve`

use std::path::PathBuf;

use clap::Args;

use super::failure::{Failure, Result};
use crate::{
    app,
    config::{self, Entries},
};

/// `serve`. Settings come from tollgate.toml, over it TOLLGATE_* variables, over them flags.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate serve --data-dir /var/lib/tollgate
  tollgate serve --config /etc/tollgate.toml")]
pub(crate) struct Arguments {
    /// Settings file; tollgate.toml in the working directory when there is one [env: TOLLGATE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    entries: Entries,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let settings = config::load(self.config.as_deref(), config::environment(), self.entries)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let admin_token = std::env::var("TOLLGATE_ADMIN_TOKEN").ok();
        Ok(app::serve(&settings, admin_token)?)
    }
}
