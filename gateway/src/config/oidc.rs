//! What must hold of the settings by which people sign in.

use store::model::{Name, Role};

use super::{List, Settings};

/// Account selectors of one group, as many as a token has.
const MAX_SELECTORS: usize = 100;
const ROLES_FORM: &str = "expected a group and its role, like platform=admin, and if it is limited to accounts their ids or \
                          beginnings of ids, like support-eu=operator:eu-*|acme";

/// Tells what is wrong.
pub(super) fn check(settings: &Settings, reasons: &mut Vec<String>) {
    if let Err(reason) = roles(&settings.oidc_roles) {
        reasons.push(reason);
    }
    if settings.oidc_issuer.is_empty() {
        for (key, is_said) in [
            ("oidc_client_id", !settings.oidc_client_id.is_empty()),
            ("oidc_client_secret_file", !settings.oidc_client_secret_file.as_os_str().is_empty()),
            ("oidc_redirect_url", !settings.oidc_redirect_url.is_empty()),
            ("oidc_roles", !settings.oidc_roles.0.is_empty()),
        ] {
            if is_said {
                reasons.push(format!("{key} is set and oidc_issuer is not: name the provider, or leave both out"));
            }
        }
        return;
    }
    if !is_safe(&settings.oidc_issuer) {
        reasons.push(format!(
            "oidc_issuer {:?}: expected an https:// URL (http:// only on this host, like http://127.0.0.1:9000)",
            settings.oidc_issuer
        ));
    }
    if settings.oidc_client_id.is_empty() {
        reasons.push("oidc_client_id is not set: it is this gateway's id at the provider".into());
    }
    if !is_safe(&settings.oidc_redirect_url) || !settings.oidc_redirect_url.ends_with("/sign-in/callback") {
        reasons.push(format!(
            "oidc_redirect_url {:?}: expected /sign-in/callback of the admin API as browsers reach it, like \
             https://tollgate.example.com/sign-in/callback",
            settings.oidc_redirect_url
        ));
    }
    if settings.oidc_roles.0.is_empty() {
        reasons.push(
            "oidc_roles is empty, so nobody could sign in: name groups with their roles, like platform=admin".into(),
        );
    }
}

/// Encrypted, or on this host alone.
fn is_safe(url: &str) -> bool {
    let plain = url.strip_prefix("http://").is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        ["127.0.0.1", "localhost", "[::1]"].contains(&host)
    });
    plain || url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty())
}

/// `platform=admin`, `support-eu=operator:eu-*|acme`.
///
/// # Errors
/// What does not fit.
pub fn roles(entries: &List) -> Result<Vec<(String, Role, Vec<Name>)>, String> {
    entries.0.iter().map(|entry| read(entry).ok_or_else(|| format!("oidc_roles: {entry:?}: {ROLES_FORM}"))).collect()
}

fn read(entry: &str) -> Option<(String, Role, Vec<Name>)> {
    let (group, given) = entry.rsplit_once('=').filter(|(group, _)| !group.is_empty())?;
    let (role, accounts) = given.split_once(':').map_or((given, None), |(role, accounts)| (role, Some(accounts)));
    let role = match role {
        "viewer" => Role::Viewer,
        "operator" => Role::Operator,
        "admin" => Role::Admin,
        _ => return None,
    };
    let accounts: Vec<_> = accounts.into_iter().flat_map(|accounts| accounts.split('|')).collect();
    // `*` alone would be no limit.
    let is_selector = |text: &&str| {
        let id = text.strip_suffix('*').unwrap_or(text);
        id.starts_with(|c: char| c.is_ascii_alphanumeric())
            && id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    (accounts.len() <= MAX_SELECTORS && accounts.iter().all(is_selector))
        .then(|| (group.to_owned(), role, accounts.into_iter().map(Name::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_roles_and_a_role_that_is_none_is_refused_by_name() {
        let read = |text: &str| roles(&text.parse().unwrap_or_default());
        let good = read("platform=admin,cn=support=operator:eu-*|acme").expect("reads");
        let limited = ("cn=support".to_owned(), Role::Operator, vec![Name::from("eu-*"), Name::from("acme")]);
        assert_eq!(good, [("platform".to_owned(), Role::Admin, Vec::new()), limited]);
        for bad in ["platform", "=admin", "platform=root", "a=viewer:", "a=viewer:*", "a=viewer:eu-*|", "a=viewer:e*u"]
        {
            let reason = read(bad).expect_err("refused");
            assert!(reason.contains("oidc_roles") && reason.contains("platform=admin"), "{reason}");
        }
    }

    #[test]
    fn what_is_sent_in_the_clear_stays_on_this_host() {
        for (url, safe) in [
            ("https://id.example.com", true),
            ("http://127.0.0.1:9000/realms/x", true),
            ("http://localhost", true),
            ("http://[::1]:9000", true),
            ("http://id.example.com", false),
            ("http://127.0.0.1.example.com", false),
            ("https://", false),
            ("id.example.com", false),
            ("", false),
        ] {
            assert_eq!(is_safe(url), safe, "{url}");
        }
    }
}
