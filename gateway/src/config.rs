//! A node's settings: `tollgate.toml` < `TOLLGATE_*` environment < flags.
//!
//! The list of them is one table; from it come the flags, the file's keys, the environment's names, the defaults
//! and `tollgate serve --help`. An entry that is unknown or ill-typed is refused at start, naming where it stands, its key
//! and what was expected; nothing is ever guessed or ignored.

mod check;
mod entry;
mod environment;
mod file;
mod oidc;
mod peers;
mod table;

use std::path::{Path, PathBuf};

pub use check::{is_log_level, network};
pub use entry::{ClientAuth, List, LogFormat};
pub use oidc::roles as oidc_roles;
pub use table::{Entries, Settings};

/// The file that is read from the working directory when neither `--config` nor `TOLLGATE_CONFIG` names one.
const DEFAULT_FILE: &str = "tollgate.toml";

/// Settings that cannot be used: every reason that was found, each a sentence with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Error(pub Vec<String>);

impl Error {
    /// The same, each reason with the place of the setting that it begins with: where in the file, or which variable.
    fn placed(self, place: impl Fn(&str) -> Option<String>) -> Self {
        let with_place = |reason: String| {
            let end = reason.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(reason.len());
            match place(&reason[..end]) {
                Some(place) => format!("{place}: {reason}"),
                None => reason,
            }
        };
        Self(self.0.into_iter().map(with_place).collect())
    }
}

impl From<String> for Error {
    fn from(reason: String) -> Self {
        Self(vec![reason])
    }
}

/// Reads the file (if there is one) and the environment, lays the flags over them, and checks the whole.
///
/// # Errors
/// [`Error`]: nothing of the node has been touched yet.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: Entries,
) -> Result<Settings, Error> {
    let environment = environment::read(environment)?;
    let named = file.map(Path::to_owned).or(environment.file);
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let file = if named.is_some() || path.exists() { Some(file::read(&path)?) } else { None };
    let said = flags.clone();
    let place = |key: &str| {
        if said.has(key) {
            return None;
        }
        if environment.entries.has(key) {
            return Some(format!("environment: TOLLGATE_{}", key.to_ascii_uppercase()));
        }
        file.as_ref()?.place(key)
    };
    let from_file = file.as_ref().map(|file| file.entries.clone()).unwrap_or_default();
    let all = flags.over(environment.entries.clone()).over(from_file);
    assemble(all).map_err(|error| error.placed(place))
}

/// Fills in the defaults and checks the whole.
///
/// # Errors
/// As [`load`].
pub fn assemble(entries: Entries) -> Result<Settings, Error> {
    let mut settings = entries.with_defaults();
    check::complete(&mut settings)?;
    Ok(settings)
}

/// Reads a text as the file, for fuzzing.
#[doc(hidden)]
pub fn parse_for_fuzz(text: &str) {
    let _ = file::parse(text).map(assemble);
}

/// The variables of this process that are text; [`load`] looks at those that begin with `TOLLGATE_`.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

#[cfg(test)]
mod tests;
