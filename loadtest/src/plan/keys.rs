//! Who sends: the keys of the run, and which of them stands for which key of a trace.

use std::{collections::HashMap, io::BufRead, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::{
    exit::Usage,
    measure::{Label, Labels},
};

/// A line of a file of keys (NDJSON).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyLine {
    /// The pseudonym that traces have for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) k: Option<String>,
    /// The key itself.
    pub(crate) key: String,
    /// Its account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<String>,
    /// Its account's tier: outcomes are counted by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tier: Option<String>,
}

impl KeyLine {
    /// Reads a file's lines.
    pub(crate) fn read_all(input: impl BufRead, name: &str) -> Result<Vec<Self>> {
        let mut lines = Vec::new();
        for (n, line) in input.lines().enumerate() {
            let line = line.with_context(|| format!("read {name}"))?;
            if line.trim().is_empty() {
                continue;
            }
            ensure!(lines.len() < MAX_KEYS, "{name}: more than {MAX_KEYS} keys");
            let parsed = serde_json::from_str::<Self>(&line).map_err(|error| {
                // Its text could show a piece of the key.
                let form = r#"{"key": "…", "k": "pseudonym", "account": "…", "tier": "…"}, all but key optional"#;
                anyhow::anyhow!("{name}:{}:{}: expected {form}", n + 1, error.column())
            })?;
            lines.push(parsed);
        }
        ensure!(!lines.is_empty(), "{name}: no keys in it");
        Ok(lines)
    }
}

/// Who sends a request.
#[derive(Debug)]
pub(crate) struct Principal {
    /// Its number in the run.
    pub(crate) number: u32,
    /// `Bearer <key>`; nothing for requests without a key.
    pub(crate) authorization: Option<HeaderValue>,
    /// Its account, where that is known.
    pub(crate) account: Option<Arc<str>>,
    /// Its tier's name, or `-`.
    pub(crate) tier: Label,
    /// What decides which worker and thread it belongs to.
    pub(crate) shard: u64,
}

/// The keys of a run.
#[derive(Debug)]
pub(crate) struct Keys {
    all: Vec<Arc<Principal>>,
    by_pseudonym: HashMap<String, u32>,
    /// Which ones the file gives to a pseudonym of their own.
    reserved: Vec<bool>,
    /// The first one that stands for no pseudonym yet.
    next: usize,
    shared: u64,
}

/// Most keys of a run.
const MAX_KEYS: usize = 1_000_000;

impl Keys {
    /// From lines.
    pub(crate) fn new(lines: Vec<KeyLine>, labels: &Labels) -> Result<Self> {
        let mut keys = Self { all: Vec::new(), by_pseudonym: HashMap::new(), reserved: Vec::new(), next: 0, shared: 0 };
        let no_key = lines.is_empty();
        for line in lines {
            anyhow::ensure!(!line.key.is_empty(), "key {}: it is empty", keys.all.len() + 1);
            let mut value = HeaderValue::from_str(&format!("Bearer {}", line.key))
                .map_err(|_| anyhow::anyhow!("key {}: not allowed in a header", keys.all.len() + 1))?;
            value.set_sensitive(true);
            if let Some(pseudonym) = &line.k {
                let number = u32::try_from(keys.all.len()).expect("at most MAX_KEYS");
                if keys.by_pseudonym.insert(pseudonym.clone(), number).is_some() {
                    bail!("the pseudonym {pseudonym:?} is given to two keys");
                }
            }
            let shard = match &line.account {
                Some(account) => hash(account),
                None => hash(&line.key),
            };
            keys.reserved.push(line.k.is_some());
            keys.push(Some(value), line.account, labels.label(line.tier.as_deref().unwrap_or("-")), shard);
        }
        if no_key {
            keys.push(None, None, labels.label("-"), 0);
        }
        Ok(keys)
    }

    fn push(&mut self, authorization: Option<HeaderValue>, account: Option<String>, tier: Label, shard: u64) {
        let account = account.map(Arc::from);
        let number = u32::try_from(self.all.len()).expect("at most MAX_KEYS");
        self.all.push(Arc::new(Principal { number, authorization, account, tier, shard }));
    }

    /// All of them, by number.
    pub(crate) fn all(&self) -> &[Arc<Principal>] {
        &self.all
    }

    /// The key that stands for a pseudonym: the one that says so, else the next one that stands for none, else (all are
    /// taken) one by hash, counted as shared.
    pub(crate) fn stand_in(&mut self, pseudonym: &str) -> Arc<Principal> {
        if let Some(number) = self.by_pseudonym.get(pseudonym) {
            return self.all[*number as usize].clone();
        }
        let number = self.unused().unwrap_or_else(|| {
            if self.shared == 0 && self.all[0].authorization.is_some() {
                let have = self.all.len();
                eprintln!("note: the trace has more keys than the {have} that are given; they are shared, by hash");
            }
            self.shared += 1;
            u32::try_from(hash(pseudonym) % self.all.len() as u64).expect("at most MAX_KEYS")
        });
        self.remember(pseudonym, number);
        self.all[number as usize].clone()
    }

    /// As [`Keys::stand_in`], for a new account of an amplitude by clones: never one that another pseudonym has.
    ///
    /// # Errors
    /// There is none left.
    pub(crate) fn clone_of(&mut self, pseudonym: &str, copy: u32) -> Result<Arc<Principal>> {
        let name = format!("{pseudonym}~{copy}");
        if let Some(number) = self.by_pseudonym.get(&name) {
            return Ok(self.all[*number as usize].clone());
        }
        let Some(number) = self.unused() else {
            return Err(Usage::error(format!(
                "more arrivals by clone (--amplitude, or a --shape or --preset on a trace, above 1x) need an account of its own \
                 for copy {copy} of {pseudonym:?}, and all {} keys are taken: give more keys (`tollgate-loadtest keys make`), or \
                 --amplitude-by intensify",
                self.all.len()
            )));
        };
        self.remember(&name, number);
        Ok(self.all[number as usize].clone())
    }

    fn unused(&mut self) -> Option<u32> {
        while self.next < self.all.len() {
            let at = self.next;
            self.next += 1;
            if !self.reserved.get(at).copied().unwrap_or(false) {
                return u32::try_from(at).ok();
            }
        }
        None
    }

    fn remember(&mut self, pseudonym: &str, number: u32) {
        // A trace may have more keys than memory has room for; those beyond are found by hash each time.
        if self.by_pseudonym.len() < MAX_KEYS {
            self.by_pseudonym.insert(pseudonym.to_owned(), number);
        }
    }
}

/// FNV-1a, the same on every machine: workers must agree on whose an account is.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_in_for_pseudonyms_and_clones_get_their_own() {
        let labels = Labels::default();
        let text =
            "{\"key\":\"a\",\"k\":\"p1\",\"tier\":\"free\"}\n{\"key\":\"b\"}\n\n{\"key\":\"c\",\"account\":\"x\"}\n";
        let lines = KeyLine::read_all(text.as_bytes(), "keys").expect("three keys");
        let mut keys = Keys::new(lines, &labels).expect("three keys");
        assert_eq!(keys.stand_in("p1").number, 0);
        assert_eq!(keys.stand_in("p2").number, 1);
        assert_eq!(keys.clone_of("p2", 1).expect("one is left").number, 2);
        assert_eq!(keys.clone_of("p2", 1).expect("the same").number, 2);
        assert!(keys.clone_of("p2", 2).expect_err("none is left").to_string().contains("keys make"));
        assert_eq!(keys.shared, 0);
        keys.stand_in("p3");
        assert_eq!((keys.shared, keys.stand_in("p2").number), (1, 1));
        let refused = KeyLine::read_all("{\"kee\":\"tg_live_secret\"}".as_bytes(), "f").expect_err("a mistype");
        assert!(refused.to_string().starts_with("f:1:") && !format!("{refused:?}").contains("secret"));
    }
}
