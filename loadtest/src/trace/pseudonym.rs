//! Pseudonyms: the same name for the same secret or person within one trace, and nobody can tell whose.

use sha2::{Digest, Sha256};

/// Makes pseudonyms by a keyed hash. Without the salt, names that somebody guesses cannot be checked against a trace.
#[derive(Debug, Clone)]
pub(crate) struct Pseudonyms {
    salt: Vec<u8>,
}

impl Pseudonyms {
    /// With a given salt, so that two traces have the same names; else with one of chance that is kept nowhere.
    pub(crate) fn new(salt: Option<&str>) -> Self {
        let salt = match salt {
            Some(salt) => salt.as_bytes().to_vec(),
            None => std::iter::repeat_with(|| fastrand::u8(..)).take(32).collect(),
        };
        Self { salt }
    }

    /// As [`Pseudonyms::of`], but what is one already stays: a trace that was converted twice has the same names.
    pub(crate) fn keep_or_make(&self, kind: &str, name: &str) -> String {
        let is_one = name
            .strip_prefix(kind)
            .and_then(|rest| rest.strip_prefix('_'))
            .is_some_and(|hex| hex.len() == 12 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if is_one { name.to_owned() } else { self.of(kind, name) }
    }

    /// The pseudonym of something of this kind (`k`, `a`).
    pub(crate) fn of(&self, kind: &str, name: &str) -> String {
        let mut hash = Sha256::new();
        // Lengths first, so that no two inputs run together.
        for part in [self.salt.as_slice(), kind.as_bytes(), name.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let hash = hash.finalize();
        let hex: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("{kind}_{hex}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_within_a_salt_and_say_nothing() {
        let (ours, same, other) = (Pseudonyms::new(Some("s")), Pseudonyms::new(Some("s")), Pseudonyms::new(None));
        assert_eq!(ours.of("k", "alice"), same.of("k", "alice"));
        assert_ne!(ours.of("k", "alice"), other.of("k", "alice"));
        assert_ne!(ours.of("k", "alice"), ours.of("a", "alice"));
        assert!(!ours.of("k", "alice").contains("alice"));
    }
}
