//! The audit lines of a write: what it changed, and what was refused; each with the SHA-256 of the one before it.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Object, Write};
use crate::{
    model::{AuditRecord, Revision, audit_link},
    state::{
        StateError, codec,
        tables::Table,
        view::{self, Overlay, Range},
    },
};

/// How far the audit is.
pub(super) struct Trail {
    /// Lines of this entry so far: an operation can write several (a deleted account's keys).
    lines: u32,
    /// SHA-256 of the newest line.
    pub(super) head: Vec<u8>,
    /// Stored key of the newest line that was taken away; empty before the first.
    pub(super) floor: Vec<u8>,
}

impl Trail {
    pub(super) fn new(head: Vec<u8>, floor: Vec<u8>) -> Self {
        Self { lines: 0, head, floor }
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
            changed: self.changed_beside(),
            ..AuditRecord::default()
        });
        Ok(())
    }

    /// What the operation at work changes beside its object.
    fn changed_beside(&self) -> Option<Vec<String>> {
        let all = self.write.changed.iter().flatten();
        all.into_iter().find(|(op, _)| *op == self.op).map(|(_, changed)| changed.clone())
    }

    /// Takes away what is kept no more, a few for each line of this entry. Which is the same on every replica: it follows from
    /// the lines and the entry's own time alone, not from what lies in memory or in the file.
    pub(super) fn forget_lines(&mut self) -> Result<(), StateError> {
        let most = self.trail.lines as usize * AuditRecord::FORGOTTEN;
        if most == 0 {
            return Ok(());
        }
        // From the newest that went on, so that nothing which is gone is looked at. Lines in memory are newer than the file's.
        let range =
            if self.trail.floor.is_empty() { Range::all() } else { Range::all().after(self.trail.floor.clone()) };
        let mut oldest: BTreeMap<Vec<u8>, Bytes> = BTreeMap::new();
        view::walk(self.main, Table::Audit, &range, Overlay::new(), false, &mut |key, line| {
            oldest.insert(key.to_vec(), Bytes::copy_from_slice(line));
            Ok(oldest.len() < most)
        })?;
        for puts in self.live.frozen.iter().map(|layer| &layer.puts).chain([&self.live.active.puts]) {
            let lines = range.of(Table::Audit, puts).filter_map(|(key, line)| Some((key.clone(), line.clone()?)));
            oldest.extend(lines.take(most));
        }
        for (key, stored) in oldest.into_iter().take(most) {
            let line: AuditRecord = codec::decode(&stored).map_err(self.main.error(Table::Audit))?;
            if !AuditRecord::is_over(line.at, self.write.at) {
                break;
            }
            self.set(Table::Audit, key.clone(), None);
            self.trail.floor = key;
        }
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
                count: note.count,
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
