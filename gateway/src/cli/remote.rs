//! What every remote command takes: whom to ask, as whom, and how to show the answer.

use std::path::PathBuf;

use clap::Args;
use zeroize::Zeroizing;

use super::{
    Client,
    context::{Context, Contexts},
    failure::{Failure, Result},
    output::Format,
};
use crate::tls::ClientFiles;

const DEFAULT_URL: &str = "http://127.0.0.1:8081";

/// Whom to ask, as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct Remote {
    /// Address of a node's admin API; http://127.0.0.1:8081 when neither this nor a context says
    #[arg(long, global = true, env = "TOLLGATE_ADMIN_URL", value_name = "URL")]
    admin_url: Option<String>,
    /// Cluster to ask, by a name of `tollgate context`
    #[arg(long, global = true, env = "TOLLGATE_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    /// File with the admin token; else TOLLGATE_ADMIN_TOKEN has the token itself
    #[arg(long, global = true, env = "TOLLGATE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Authorities of an https:// admin API's certificate, PEM; the system's when neither this nor a context says
    #[arg(long, global = true, env = "TOLLGATE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Certificate chain to show an admin API that asks for one, PEM
    #[arg(long, global = true, env = "TOLLGATE_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, global = true, env = "TOLLGATE_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Form of the answer
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
}

impl Remote {
    /// The API, with the token.
    pub(crate) fn client(&self) -> Result<Client> {
        self.client_of(&self.url()?)
    }

    /// The API, asked by somebody who has no token yet.
    pub(crate) fn stranger(&self) -> Result<Client> {
        Client::new(&self.url()?, None, &self.files()?)
    }

    /// Keeps a token for the context that is asked, or for one called `default`; says which, and in which file.
    pub(crate) fn keep_token(&self, secret: &str) -> Result<(String, PathBuf)> {
        let context = Context {
            admin_url: self.url()?,
            admin_token_file: None,
            ca: self.files()?.ca,
            client_cert: self.files()?.identity.map(|(cert, _)| cert),
            client_key: self.files()?.identity.map(|(_, key)| key),
        };
        Contexts::keep(self.context.as_deref(), context, secret)
    }

    fn url(&self) -> Result<String> {
        let contexts = Contexts::load()?;
        let context = contexts.find(self.context.as_deref())?;
        let url = self.admin_url.as_deref().or(context.map(|context| context.admin_url.as_str()));
        Ok(url.unwrap_or(DEFAULT_URL).to_owned())
    }

    /// The API of a certain node, with the same token.
    pub(crate) fn client_of(&self, url: &str) -> Result<Client> {
        Client::new(url, Some(self.token()?), &self.files()?)
    }

    /// What https is spoken with: flags and environment, else the context.
    fn files(&self) -> Result<ClientFiles> {
        let contexts = Contexts::load()?;
        let context = contexts.find(self.context.as_deref())?;
        let said = self.client_cert.clone().zip(self.client_key.clone());
        let of_context = || context.and_then(|context| context.client_cert.clone().zip(context.client_key.clone()));
        let ca = self.ca.clone().or_else(|| context.and_then(|context| context.ca.clone()));
        Ok(ClientFiles { ca, identity: said.or_else(of_context) })
    }

    /// The file that a flag names, else the environment's token, else the context's file.
    fn token(&self) -> Result<Zeroizing<String>> {
        let contexts = Contexts::load()?;
        let context = contexts.find(self.context.as_deref())?;
        let from_environment = std::env::var("TOLLGATE_ADMIN_TOKEN").ok().filter(|token| !token.trim().is_empty());
        let of_context = context.and_then(|context| context.admin_token_file.as_ref());
        // A context that is named outweighs what lies in the environment; one that is merely in use does not.
        let of_context = of_context.filter(|_| self.context.is_some() || from_environment.is_none());
        if let Some(file) = self.admin_token_file.as_ref().or(of_context) {
            return match std::fs::read_to_string(file) {
                Ok(text) => Ok(Zeroizing::new(text.trim().to_owned())),
                Err(error) => Err(Failure::NotAllowed(format!("read the admin token of {}: {error}", file.display()))),
            };
        }
        match from_environment {
            Some(token) => Ok(Zeroizing::new(token.trim().to_owned())),
            None => Err(Failure::NotAllowed(
                "no admin token: set TOLLGATE_ADMIN_TOKEN, or name a file with --admin-token-file".into(),
            )),
        }
    }
}
