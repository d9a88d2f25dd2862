//! A path as the most lenient upstream reads it, so that no spelling of a path slips past the route that guards it.
//!
//! Letters, digits and `-._~` are the same percent-encoded (RFC 3986 §6.2.2.2); slashes are the same encoded, doubled or as
//! backslashes to many servers; and what follows a `;` in a segment are parameters that many cut off. Routes are matched on
//! what is left; upstreams get the path as it came.

use std::borrow::Cow;

/// The path without these differences; borrowed when it has none, as nearly always.
pub(super) fn plain(path: &str) -> Cow<'_, str> {
    let unusual = |byte| matches!(byte, b'%' | b'\\' | b';');
    if !path.bytes().any(unusual) && !path.contains("//") {
        return path.into();
    }
    let decoded = decoded(path);
    let mut plain = String::with_capacity(decoded.len());
    let mut segments = decoded.split(['/', '\\']).peekable();
    while let Some(segment) = segments.next() {
        let name = segment.split(';').next().unwrap_or_default();
        plain.push_str(name);
        if segments.peek().is_some() && !plain.ends_with('/') {
            plain.push('/');
        }
    }
    plain.into()
}

/// With what is the same when it is not encoded, decoded once.
fn decoded(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let byte = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~/\\;".contains(byte)) {
            Some(byte) => {
                decoded.push(byte.into());
                rest = &after[2..];
            }
            None => {
                decoded.push('%');
                rest = after;
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_path_are_one() {
        for (path, expected) in [
            ("/", "/"),
            ("/v3/scan", "/v3/scan"),
            ("/v3/%61dmin", "/v3/admin"),
            ("/v3//admin", "/v3/admin"),
            ("//v3///admin//", "/v3/admin/"),
            ("/v3/admin;x=1", "/v3/admin"),
            ("/v3;a/admin;x=1/y", "/v3/admin/y"),
            ("/v3/admin%2f", "/v3/admin/"),
            ("/v3\\admin%5Cx", "/v3/admin/x"),
            ("/a%20b", "/a%20b"),
            ("/a%2", "/a%2"),
            ("/a%zz%é", "/a%zz%é"),
            ("/%2561", "/%2561"),
            ("*", "*"),
        ] {
            assert_eq!(plain(path), expected, "{path}");
        }
    }

    proptest! {
        /// What the upstream makes of an encoded path is found under the same route as the plain one.
        #[test]
        fn encoding_changes_nothing(path in "(/[a-z0-9._~-]{1,6}){1,4}", at in any::<prop::sample::Index>()) {
            let at = at.index(path.len());
            let encoded = format!("{}%{:02X}{}", &path[..at], path.as_bytes()[at], &path[at + 1..]);
            prop_assert_eq!(plain(&encoded), plain(&path));
        }
    }
}
