//! The audit lines of a write: what it changed, and what was refused; each with the SHA-256 of the one before it.

use std::ops::Bound;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Object, Write};
use crate::{
    model::{AuditRecord, Revision, audit_link},
    state::{StateError, codec, tables::Table, view::Range},
};

/// How far the audit is.
pub(super) struct Trail {
    /// Lines of this entry so far: an operation can write several (a deleted account's keys).
    lines: u32,
    /// SHA-256 of the newest line.
    pub(super) head: Vec<u8>,
}

impl Trail {
    pub(super) fn new(head: Vec<u8>) -> Self {
        Self { lines: 0, head }
    }
}

impl Write<'_> {
    /// A changed object.
    pub(super) fn audit<T: Object>(&mut self, action: &str, id: &str, after: Option<&Bytes>) -> Result<(), StateError> {
        let before = self.get(T::TABLE, id.as_bytes())?;
        let digest = |bytes: Option<&Bytes>| bytes.map(|bytes| Sha256::digest(bytes).to_vec()).unwrap_or_default();
        // Without its version byte: the line has its own.
        let object = |bytes: Option<&Bytes>| bytes.map(|bytes| bytes[1..].to_vec()).unwrap_or_default();
        self.line(AuditRecord {
            at: self.write.at,
            actor: self.write.actor.clone(),
            role: self.write.role,
            source: self.write.source.clone(),
            request_id: self.write.request_id.clone(),
            action: action.to_owned(),
            kind: T::KIND.to_owned(),
            id: id.to_owned(),
            before: digest(before.as_ref()),
            after: digest(after),
            before_object: object(before.as_ref()),
            after_object: object(after),
            ..AuditRecord::default()
        });
        Ok(())
    }

    /// Requests that changed nothing.
    pub(super) fn note(&mut self) {
        for note in &self.write.notes {
            self.line(AuditRecord {
                at: note.at,
                actor: note.actor.clone(),
                role: note.role,
                source: note.source.clone(),
                request_id: note.request_id.clone(),
                action: note.action.clone(),
                kind: "request".to_owned(),
                id: note.id.clone(),
                result: note.result.clone(),
                ..AuditRecord::default()
            });
        }
    }

    fn line(&mut self, record: AuditRecord) {
        let line = self.trail.lines;
        let previous = std::mem::take(&mut self.trail.head);
        let stored = codec::encode(&AuditRecord { revision: self.revision, line, previous, ..record });
        self.trail.head = audit_link(&stored);
        self.trail.lines += 1;
        self.set(Table::Audit, key(self.revision, line), Some(stored.into()));
    }
}

/// The stored key of an audit line.
fn key(revision: Revision, line: u32) -> Vec<u8> {
    [&revision.to_be_bytes()[..], &line.to_be_bytes()].concat()
}

/// Audit lines before one.
pub(in crate::state) fn before_line(line: Option<(Revision, u32)>) -> Range {
    match line {
        Some((revision, line)) => Range { from: Bound::Unbounded, to: Bound::Excluded(key(revision, line)) },
        None => Range::all(),
    }
}

/// Audit lines after one.
pub(in crate::state) fn after_line(line: Option<(Revision, u32)>) -> Range {
    match line {
        Some((revision, line)) => Range::all().after(key(revision, line)),
        None => Range::all(),
    }
}
