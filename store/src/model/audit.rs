//! The audit log: who did what to which object, each line sealed by the one after it.
//!
//! Lines are kept in the replicated state for [`AuditRecord::KEPT_DAYS`] and never changed. Each carries the SHA-256 of the
//! line before it, so whoever has noted one digest can tell later whether anything up to it was changed, left out or put in
//! between; the oldest that is kept still names the one that went.

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::{Account, Key, Revision, Role, Route, Tier, Timestamp, Token, Upstream};

/// One line of the audit log. No personal data: an account's name and metadata stay with its rows.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct AuditRecord {
    /// The entry.
    #[n(0)]
    pub revision: Revision,
    /// When.
    #[n(1)]
    pub at: Timestamp,
    /// Who.
    #[n(2)]
    pub actor: String,
    /// In which admin request.
    #[n(3)]
    pub request_id: String,
    /// `put` or `delete`; the method of a request that was refused.
    #[n(4)]
    pub action: String,
    /// `account`, `key`, `tier`, …; `request` for one that was refused.
    #[n(5)]
    pub kind: String,
    /// Which one; the path of a request that was refused.
    #[n(6)]
    pub id: String,
    /// SHA-256 of the stored object before; empty when there was none.
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub before: Vec<u8>,
    /// SHA-256 of the stored object after; empty when it is gone.
    #[n(8)]
    #[cbor(with = "minicbor::bytes")]
    pub after: Vec<u8>,
    /// Which line of the entry, from 0.
    #[n(9)]
    #[cbor(default)]
    pub line: u32,
    /// The actor's role at that time.
    #[n(10)]
    pub role: Option<Role>,
    /// The address that the request came from.
    #[n(11)]
    #[cbor(default)]
    pub source: String,
    /// Empty when it was done; else the code of the refusal.
    #[n(12)]
    #[cbor(default)]
    pub result: String,
    /// The object before, as CBOR; empty when there was none.
    #[n(13)]
    #[cbor(default, with = "minicbor::bytes")]
    pub before_object: Vec<u8>,
    /// The object after, as CBOR; empty when it is gone.
    #[n(14)]
    #[cbor(default, with = "minicbor::bytes")]
    pub after_object: Vec<u8>,
    /// SHA-256 of the line before, as it is stored; empty for the first.
    #[n(15)]
    #[cbor(default, with = "minicbor::bytes")]
    pub previous: Vec<u8>,
    /// How many requests it stands for; none for one. Left out then, so that the line is as an older build writes it.
    #[n(16)]
    pub count: Option<u32>,
    /// Pointers to what was changed and is not in the objects: an account's name and entries of its metadata.
    #[n(17)]
    pub changed: Option<Vec<String>>,
}

/// A request that changed nothing and is to be remembered all the same.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct AuditNote {
    /// When.
    #[n(0)]
    pub at: Timestamp,
    /// Who.
    #[n(1)]
    pub actor: String,
    /// With which role.
    #[n(2)]
    pub role: Option<Role>,
    /// From which address.
    #[n(3)]
    pub source: String,
    /// The request's id.
    #[n(4)]
    pub request_id: String,
    /// Its method.
    #[n(5)]
    pub action: String,
    /// Its path.
    #[n(6)]
    pub id: String,
    /// Why it was refused; empty when it was answered.
    #[n(7)]
    pub result: String,
    /// How many requests it stands for; none for one.
    #[n(8)]
    pub count: Option<u32>,
}

/// An object as an audit line keeps it.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each names its object")]
pub enum AuditObject {
    Account(Box<Account>),
    Key(Box<Key>),
    Tier(Box<Tier>),
    Route(Box<Route>),
    Upstream(Box<Upstream>),
    Token(Box<Token>),
}

/// Where a chain of lines is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// A line does not follow the one before it.
    #[error(
        "line {line} of revision {revision} does not follow the line before it: lines were changed, left out or put in"
    )]
    Broken {
        /// Its entry.
        revision: Revision,
        /// Its number there.
        line: u32,
    },
    /// Bytes that are no line.
    #[error("the line after revision {after} cannot be read: {what}")]
    Unreadable {
        /// The last one that could be.
        after: Revision,
        /// Why.
        what: String,
    },
}

/// Follows the lines of an audit log, oldest first, and holds each against the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditChain {
    /// Lines so far.
    pub lines: u64,
    /// SHA-256 of the newest.
    pub head: Vec<u8>,
    /// Entry of the newest.
    pub revision: Revision,
    /// The first line: its entry, its number there, and when it was written.
    pub first: Option<(Revision, u32, Timestamp)>,
    /// SHA-256 of the line before the first one; empty when there was none.
    pub anchor: Vec<u8>,
}

impl AuditRecord {
    /// Lines are kept for so long; then each new line takes up to [`Self::FORGOTTEN`] of the oldest away.
    pub const KEPT_DAYS: i64 = 400;
    /// Few, so that a node whose clock is wrong takes little away.
    pub const FORGOTTEN: usize = 2;

    /// Whether a line that was written at a time may be gone at another.
    pub fn is_over(at: Timestamp, now: Timestamp) -> bool {
        at.plus_seconds(Self::KEPT_DAYS * 86_400) <= now
    }

    /// Its bytes as they are stored: a version byte, then CBOR.
    pub fn stored(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        minicbor::encode(self, &mut bytes).expect("writing to memory cannot fail");
        bytes
    }

    /// The object before; none when there was none or this build does not know its kind.
    pub fn object_before(&self) -> Option<AuditObject> {
        AuditObject::read(&self.kind, &self.before_object)
    }

    /// The object after.
    pub fn object_after(&self) -> Option<AuditObject> {
        AuditObject::read(&self.kind, &self.after_object)
    }
}

impl AuditObject {
    fn read(kind: &str, bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        match kind {
            "account" => minicbor::decode(bytes).ok().map(|found| Self::Account(Box::new(found))),
            "key" => minicbor::decode(bytes).ok().map(|found| Self::Key(Box::new(found))),
            "tier" => minicbor::decode(bytes).ok().map(|found| Self::Tier(Box::new(found))),
            "route" => minicbor::decode(bytes).ok().map(|found| Self::Route(Box::new(found))),
            "upstream" => minicbor::decode(bytes).ok().map(|found| Self::Upstream(Box::new(found))),
            "token" => minicbor::decode(bytes).ok().map(|found| Self::Token(Box::new(found))),
            _ => None,
        }
    }
}

impl AuditChain {
    /// Takes the next line: its bytes as they are stored (a version byte, then CBOR).
    ///
    /// # Errors
    /// It does not follow, or is no line.
    pub fn follow(&mut self, stored: &[u8]) -> Result<AuditRecord, AuditError> {
        let unreadable = |what: String| AuditError::Unreadable { after: self.revision, what };
        let body = match stored {
            [1, body @ ..] => body,
            [version, ..] => return Err(unreadable(format!("version {version} is not known to this build"))),
            [] => return Err(unreadable("it is empty".into())),
        };
        let record: AuditRecord = minicbor::decode(body).map_err(|error| unreadable(error.to_string()))?;
        if self.lines > 0 && record.previous != self.head {
            return Err(AuditError::Broken { revision: record.revision, line: record.line });
        }
        if self.lines == 0 {
            self.first = Some((record.revision, record.line, record.at));
            self.anchor.clone_from(&record.previous);
        }
        self.lines += 1;
        self.head = link(stored);
        self.revision = record.revision;
        Ok(record)
    }
}

/// What the line after this one says of it.
pub fn link(stored: &[u8]) -> Vec<u8> {
    Sha256::digest(stored).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: u64) -> Vec<Vec<u8>> {
        let mut previous = Vec::new();
        (1..=count)
            .map(|revision| {
                let record = AuditRecord { revision, previous: previous.clone(), ..AuditRecord::default() };
                let bytes = record.stored();
                previous = link(&bytes);
                bytes
            })
            .collect()
    }

    fn verify(lines: &[Vec<u8>]) -> Result<AuditChain, AuditError> {
        let mut chain = AuditChain::default();
        for line in lines {
            chain.follow(line)?;
        }
        Ok(chain)
    }

    #[test]
    fn a_line_that_was_changed_left_out_or_put_in_breaks_the_chain() {
        let whole = lines(5);
        assert_eq!(verify(&whole).map(|chain| (chain.lines, chain.head)), Ok((5, link(&whole[4]))));
        let mut changed = whole.clone();
        let mut record: AuditRecord = minicbor::decode(&changed[2][1..]).expect("a line");
        record.actor = "somebody else".into();
        changed[2] = record.stored();
        assert_eq!(verify(&changed), Err(AuditError::Broken { revision: 4, line: 0 }));
        let mut missing = whole.clone();
        missing.remove(1);
        assert_eq!(verify(&missing), Err(AuditError::Broken { revision: 3, line: 0 }));
        let mut doubled = whole.clone();
        doubled.insert(3, whole[2].clone());
        assert!(verify(&doubled).is_err());
        assert!(matches!(verify(&[vec![2, 0x80]]), Err(AuditError::Unreadable { .. })));
    }

    #[test]
    fn a_line_of_a_build_without_chain_still_reads() {
        // revision 7, the account `a` put by tok_1: nine fields, as they were first stored.
        let mut bytes = vec![0x89, 7];
        bytes.extend_from_slice(&[0x00, 0x65, b't', b'o', b'k', b'_', b'1', 0x61, b'r', 0x63, b'p', b'u', b't']);
        bytes.extend_from_slice(&[0x67, b'a', b'c', b'c', b'o', b'u', b'n', b't', 0x61, b'a', 0x40, 0x41, 9]);
        let record: AuditRecord = minicbor::decode(&bytes).expect("reads");
        assert_eq!((record.revision, record.kind.as_str(), record.after), (7, "account", vec![9]));
        assert_eq!((record.role, record.previous), (None, Vec::new()));
    }
}
