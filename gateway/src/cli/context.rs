//! `tollgate context`: clusters by name. A context has an address and a token's file, never a token.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    failure::{Failure, Result},
    output::Format,
};

/// `context`
#[derive(Debug, Args)]
#[command(
    after_help = "Flags and environment come before the context in use. The file is $XDG_CONFIG_HOME/tollgate/contexts.toml.
Examples:
  tollgate context set staging --admin-url http://10.0.0.5:8081 \\
    --admin-token-file ~/.tollgate-staging
  tollgate context use staging
  tollgate context list"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// Form of the answer
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists contexts
    List,
    /// Makes or replaces one
    Set {
        /// Its name
        name: String,
        /// Address of a node's admin API
        #[arg(long, value_name = "URL")]
        admin_url: String,
        /// File with the admin token
        #[arg(long, value_name = "FILE")]
        admin_token_file: Option<PathBuf>,
        /// Authorities of an https:// admin API's certificate
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// Certificate chain to show it
        #[arg(long, value_name = "FILE", requires = "client_key")]
        client_cert: Option<PathBuf>,
        /// Its private key
        #[arg(long, value_name = "FILE", requires = "client_cert")]
        client_key: Option<PathBuf>,
    },
    /// Uses one from now on
    Use {
        /// Its name
        name: String,
    },
    /// Deletes one
    Delete {
        /// Its name
        name: String,
    },
}

/// A cluster and who asks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// Address of a node's admin API.
    pub(crate) admin_url: String,
    /// File with the admin token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// Authorities of its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// Certificate chain to show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_cert: Option<PathBuf>,
    /// Its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_key: Option<PathBuf>,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// Those of this user.
    pub(crate) fn load() -> Result<Self> {
        file().map_or_else(|| Ok(Self::default()), |file| Self::read(&file))
    }

    fn read(file: &Path) -> Result<Self> {
        match std::fs::read_to_string(file) {
            Ok(text) => toml::from_str(&text).map_err(|error| Failure::Usage(format!("{}: {error}", file.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::Failed(format!("read {}: {error}", file.display()))),
        }
    }

    fn write(&self, file: &Path) -> Result<()> {
        let failed = |error: std::io::Error| Failure::Failed(format!("write {}: {error}", file.display()));
        let text =
            toml::to_string(self).map_err(|error| Failure::Failed(format!("write {}: {error}", file.display())))?;
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        // Whole or not at all.
        let new = file.with_extension("toml.new");
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, file)).map_err(failed)
    }

    /// The one of this name, else the one in use, if any.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<Option<&Context>> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        self.contexts.get(name).map(Some).ok_or_else(|| self.unknown(name))
    }

    /// Keeps a token for a context: the one of this name, else the one in use, else `default`, which is used from now on. The
    /// context is made, or asks from now on where the token was given.
    pub(crate) fn keep(name: Option<&str>, context: Context, token: &str) -> Result<(String, PathBuf)> {
        let file = file().ok_or_else(nowhere)?;
        let mut contexts = Self::read(&file)?;
        let name = name.or(contexts.current.as_deref()).unwrap_or("default").to_owned();
        let token_file = contexts.keep_in(&file, &name, context, token)?;
        Ok((name, token_file))
    }

    fn keep_in(&mut self, file: &Path, name: &str, context: Context, token: &str) -> Result<PathBuf> {
        // A name may hold what a file's may not.
        let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let token_file = file.with_file_name(format!("{plain}.token"));
        let failed = |error: std::io::Error| Failure::Failed(format!("write {}: {error}", token_file.display()));
        if let Some(dir) = token_file.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        // Nobody else's from its first byte on, and whole or not at all.
        let new = token_file.with_extension("token.new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
        writeln!(opened, "{token}").and_then(|()| std::fs::rename(&new, &token_file)).map_err(failed)?;
        let context = Context { admin_token_file: Some(token_file.clone()), ..context };
        self.contexts.insert(name.to_owned(), context);
        self.current.get_or_insert_with(|| name.to_owned());
        self.write(file)?;
        Ok(token_file)
    }

    fn unknown(&self, name: &str) -> Failure {
        let near = self.contexts.keys().map(|known| (strsim::jaro_winkler(name, known), known));
        let near = near.filter(|(like, _)| *like > 0.7).max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = near.map(|(_, known)| format!("; did you mean {known:?}?")).unwrap_or_default();
        Failure::Usage(format!("there is no context {name:?}{hint}"))
    }

    fn change(&mut self, verb: Verb) -> Result<()> {
        match verb {
            Verb::List => {}
            Verb::Set { name, admin_url, admin_token_file, ca, client_cert, client_key } => {
                // A relative path would mean another file in another directory.
                let absolute = |path: PathBuf| std::path::absolute(path).map_err(Failure::from);
                let context = Context {
                    admin_url,
                    admin_token_file: admin_token_file.map(absolute).transpose()?,
                    ca: ca.map(absolute).transpose()?,
                    client_cert: client_cert.map(absolute).transpose()?,
                    client_key: client_key.map(absolute).transpose()?,
                };
                self.contexts.insert(name, context);
            }
            Verb::Use { name } => {
                if !self.contexts.contains_key(&name) {
                    return Err(self.unknown(&name));
                }
                self.current = Some(name);
            }
            Verb::Delete { name } => {
                if self.contexts.remove(&name).is_none() {
                    return Err(self.unknown(&name));
                }
                self.current = self.current.take().filter(|current| *current != name);
            }
        }
        Ok(())
    }

    fn view(&self) -> Value {
        let all = self.contexts.iter().map(|(name, context)| {
            json!({
                "name": name,
                "in_use": self.current.as_ref() == Some(name),
                "admin_url": context.admin_url,
                "admin_token_file": context.admin_token_file,
                "ca": context.ca,
                "client_cert": context.client_cert,
            })
        });
        json!({ "data": all.collect::<Vec<Value>>() })
    }
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let file = file().ok_or_else(nowhere)?;
        let mut contexts = Contexts::read(&file)?;
        let shows = matches!(self.verb, Verb::List);
        contexts.change(self.verb)?;
        if !shows {
            return contexts.write(&file);
        }
        let columns = [
            ("name", "/name"),
            ("in use", "/in_use"),
            ("admin url", "/admin_url"),
            ("token file", "/admin_token_file"),
        ];
        self.output.list(&contexts.view(), &columns)
    }
}

fn nowhere() -> Failure {
    Failure::Failed("no place for contexts: neither XDG_CONFIG_HOME nor HOME is set".into())
}

fn file() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home =
        || std::env::var_os("HOME").filter(|dir| !dir.is_empty()).map(|home| PathBuf::from(home).join(".config"));
    config.or_else(home).map(|dir| dir.join("tollgate/contexts.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_in_a_file_of_its_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("tollgate/contexts.toml");
        let context = || Context {
            admin_url: "http://h:1".into(),
            admin_token_file: None,
            ca: None,
            client_cert: None,
            client_key: None,
        };
        let mut contexts = Contexts::default();
        let kept = contexts.keep_in(&file, "a/../b", context(), "tga_1").expect("kept");
        assert_eq!(kept, dir.path().join("tollgate/a____b.token"));
        std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o644)).expect("changed");
        assert_eq!(contexts.keep_in(&file, "a/../b", context(), "tga_2").expect("kept again"), kept);
        assert_eq!(std::fs::read_to_string(&kept).expect("read"), "tga_2\n");
        assert_eq!(std::fs::metadata(&kept).expect("there").permissions().mode() & 0o777, 0o600);
        let contexts = Contexts::read(&file).expect("read");
        let used = contexts.find(None).expect("it reads").expect("the first is used");
        assert_eq!(used.admin_token_file.as_ref(), Some(&kept));
        assert!(!std::fs::read_to_string(&file).expect("read").contains("tga_"));
    }

    #[test]
    fn contexts_are_kept_used_and_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("tollgate/contexts.toml");
        let mut contexts = Contexts::read(&file).expect("none yet");
        let set = |name: &str| Verb::Set {
            name: name.into(),
            admin_url: "http://h:1".into(),
            admin_token_file: Some("/t".into()),
            ca: None,
            client_cert: None,
            client_key: None,
        };
        contexts.change(set("staging")).expect("set");
        contexts.change(set("production")).expect("set");
        assert_eq!(contexts.find(None), Ok(None), "none is in use");
        contexts.change(Verb::Use { name: "staging".into() }).expect("used");
        contexts.write(&file).expect("written");
        let mut contexts = Contexts::read(&file).expect("read");
        assert_eq!(contexts.find(None).expect("one").map(|context| context.admin_url.as_str()), Some("http://h:1"));
        let unknown = contexts.find(Some("stagin")).expect_err("unknown");
        assert!(unknown.code() == 2 && unknown.to_string().contains("did you mean \"staging\"?"), "{unknown}");
        contexts.change(Verb::Delete { name: "staging".into() }).expect("deleted");
        assert_eq!(contexts.find(None), Ok(None));
        std::fs::write(&file, "token = \"tga_x\"").expect("written");
        assert!(Contexts::read(&file).expect_err("refused").to_string().contains("contexts.toml"));
    }
}
