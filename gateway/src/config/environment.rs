//! Settings from `TOLLGATE_*` variables.

use std::path::PathBuf;

use super::{Entries, Error, table};

const PREFIX: &str = "TOLLGATE_";

/// Variables that are no settings of `serve`: the file's name, and what the client commands read.
const OTHERS: [&str; 7] = [
    "TOLLGATE_CONFIG",
    "TOLLGATE_ADMIN_TOKEN",
    "TOLLGATE_ADMIN_URL",
    "TOLLGATE_CONTEXT",
    "TOLLGATE_CA",
    "TOLLGATE_CLIENT_CERT",
    "TOLLGATE_CLIENT_KEY",
];

/// What the environment says.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) entries: Entries,
    pub(super) file: Option<PathBuf>,
}

/// Reads every `TOLLGATE_*` variable; all that are unknown or ill-typed are refused together.
pub(super) fn read(variables: impl IntoIterator<Item = (String, String)>) -> Result<Environment, Error> {
    let known = table::known();
    let mut found = Environment::default();
    let mut reasons = Vec::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if name == "TOLLGATE_CONFIG" {
            found.file = Some(PathBuf::from(&value));
        }
        if OTHERS.contains(&name.as_str()) || is_service_link(rest) {
            continue;
        }
        let key = rest.to_ascii_lowercase();
        match found.entries.set(&key, &value) {
            Some(Ok(())) => {}
            Some(Err(_)) => {
                let form = known.iter().find(|known| known.key == key).map_or("", |known| &known.form);
                reasons.push(format!("environment: {name}={value:?}: expected {form}"));
            }
            None => {
                let hint = table::nearest(&key)
                    .map_or(String::new(), |near| format!(", did you mean {PREFIX}{}?", near.to_ascii_uppercase()));
                reasons.push(format!(
                    "environment: {name} is not a setting{hint} (`tollgate serve --help` lists all of them)"
                ));
            }
        }
    }
    reasons.sort();
    if reasons.is_empty() { Ok(found) } else { Err(Error(reasons)) }
}

/// Kubernetes gives every pod the variables of a Service: for one called `tollgate`, `TOLLGATE_SERVICE_HOST`,
/// `TOLLGATE_PORT_8080_TCP_ADDR` and so on; for `tollgate-admin`, `TOLLGATE_ADMIN_SERVICE_HOST` and the like.
fn is_service_link(rest: &str) -> bool {
    let port = rest.strip_prefix("PORT").or_else(|| rest.split_once("_PORT").map(|(_, after)| after));
    rest.contains("SERVICE_HOST")
        || rest.contains("SERVICE_PORT")
        || port.is_some_and(|after| {
            after.is_empty() || after.strip_prefix('_').is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        })
}
