//! What every remote command takes: whom to ask, as whom, and how to show the answer.

use std::path::PathBuf;

use clap::Args;
use zeroize::Zeroizing;

use super::{
    Client,
    failure::{Failure, Result},
    output::Format,
};

/// Whom to ask, as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct Remote {
    /// Address of a node's admin API
    #[arg(long, global = true, env = "TOLLGATE_ADMIN_URL", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    admin_url: String,
    /// File with the admin token; else TOLLGATE_ADMIN_TOKEN has the token itself
    #[arg(long, global = true, env = "TOLLGATE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Form of the answer
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
}

impl Remote {
    /// The API, with the token.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::new(&self.admin_url, Some(self.token()?))
    }

    fn token(&self) -> Result<Zeroizing<String>> {
        if let Some(file) = &self.admin_token_file {
            return match std::fs::read_to_string(file) {
                Ok(text) => Ok(Zeroizing::new(text.trim().to_owned())),
                Err(error) => Err(Failure::NotAllowed(format!("read the admin token of {}: {error}", file.display()))),
            };
        }
        match std::env::var("TOLLGATE_ADMIN_TOKEN") {
            Ok(token) if !token.trim().is_empty() => Ok(Zeroizing::new(token.trim().to_owned())),
            _ => Err(Failure::NotAllowed(
                "no admin token: set TOLLGATE_ADMIN_TOKEN, or name a file with --admin-token-file".into(),
            )),
        }
    }
}
