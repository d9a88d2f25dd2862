//! Applying committed entries: the one place where a replica's state moves on.
//!
//! Whatever takes time (decoding a block, joining blocks, reading the disk) is done before the lock is taken; there is one
//! writer, so what was read stays true. Each entry is one step: readers, checkpoints and exports see it whole or not at all.

use std::sync::Arc;

use bytes::Bytes;

use super::{Change, Entry, Payload, State, StateError, meta};
use crate::model::{ColdCommand, Command, CommandError, GroupId, LogId, MetaWrite, Placement, Reply, Revision};

impl State {
    /// Applies entries in order; one reply an entry. A refused command is a reply and changed nothing.
    ///
    /// # Errors
    /// This replica cannot go on: its disk fails, or an entry or a stored value is not of a form that this build reads.
    /// Nothing of the state is to be trusted then, and it takes no more calls; the files are still at the last checkpoint.
    pub fn apply(&self, entries: &[Entry]) -> Result<Vec<Reply>, StateError> {
        let _writer = self.only(&self.writer);
        self.check()?;
        let mut changes = Vec::new();
        let replies: Result<Vec<Reply>, StateError> =
            entries.iter().map(|entry| self.apply_entry(entry, &mut changes)).collect();
        if let Err(error) = &replies {
            self.fail(error);
        }
        self.tell(&changes);
        replies
    }

    fn apply_entry(&self, entry: &Entry, changes: &mut Vec<Change>) -> Result<Reply, StateError> {
        let last = self.read().live.vars.applied.last;
        if let Some(last) = last.filter(|last| last.index >= entry.id.index) {
            return Err(StateError::Order { last: last.index, found: entry.id.index });
        }
        match &entry.payload {
            Payload::Blank => Ok(self.step(entry.id, 0, |_| Reply::Done)),
            Payload::Membership(membership) => Ok(self.step(entry.id, 0, |live| {
                live.vars.applied.membership = Some(Bytes::clone(membership));
                Reply::Done
            })),
            Payload::Command(bytes) => {
                let command =
                    Command::decode(bytes).map_err(|source| StateError::Command { index: entry.id.index, source })?;
                self.apply_command(entry.id, bytes.len() as u64, command, changes)
            }
        }
    }

    fn apply_command(
        &self,
        id: LogId,
        bytes: u64,
        command: Command,
        changes: &mut Vec<Change>,
    ) -> Result<Reply, StateError> {
        let is_meta = self.group == GroupId::META;
        match command {
            Command::Cold(ColdCommand::Meta(write)) if is_meta => self.apply_meta(id, bytes, &write, changes),
            Command::Cold(ColdCommand::Place { expect, placement }) if is_meta => {
                Ok(self.place(id, bytes, expect, placement, changes))
            }
            Command::Cold(ColdCommand::Move { expect, placement }) if is_meta => {
                Ok(self.move_slots(id, bytes, expect, placement, changes))
            }
            Command::Rows(batch) if !is_meta => self.apply_rows(id, &batch),
            Command::Cold(command) if !is_meta => self.apply_ledger(id, bytes, command),
            _ => Ok(self.step(id, bytes, |_| Reply::Refused(CommandError::WrongGroup))),
        }
    }

    fn apply_meta(
        &self,
        id: LogId,
        bytes: u64,
        write: &MetaWrite,
        changes: &mut Vec<Change>,
    ) -> Result<Reply, StateError> {
        let tried = {
            let replica = self.read();
            let main = replica.storage.read_main()?;
            meta::apply(&replica.live, &main, id.index, write)?
        };
        Ok(self.step(id, bytes, |live| match tried {
            Ok(done) => {
                live.active.puts.extend(done.puts);
                live.vars.audit_head = done.audit_head;
                live.vars.audit_floor = done.audit_floor;
                changes.extend(done.changes);
                Reply::Written(id.index)
            }
            Err(refused) => Reply::Refused(refused),
        }))
    }

    /// Places the slots, as long as no account can ever have been in one: nothing has been written to the metadata yet. After
    /// that slots move: see [`State::move_slots`].
    fn place(&self, id: LogId, bytes: u64, expect: Revision, placement: Placement, changes: &mut Vec<Change>) -> Reply {
        self.step(id, bytes, |live| {
            let refused = |why: String| Reply::Refused(CommandError::Placement(why));
            let epoch = live.vars.placement.as_ref().map_or(0, |placed| placed.epoch);
            if epoch != expect {
                return refused(made_meanwhile(epoch));
            }
            if let Some(flaw) = placement.flaw() {
                return refused(format!("it {flaw}"));
            }
            if !live.vars.audit_head.is_empty() {
                return refused("the cluster is in use, and slots are placed before its first write alone".into());
            }
            keep_placement(live, id, placement, changes)
        })
    }

    /// The next placement of a cluster in use.
    fn move_slots(
        &self,
        id: LogId,
        bytes: u64,
        expect: Revision,
        placement: Placement,
        changes: &mut Vec<Change>,
    ) -> Reply {
        self.step(id, bytes, |live| {
            let refused = |why: String| Reply::Refused(CommandError::Placement(why));
            let old = live.vars.placement.as_deref().cloned().unwrap_or_else(|| Placement::even(1, &[]));
            if old.epoch != expect {
                return refused(made_meanwhile(old.epoch));
            }
            if let Some(flaw) = placement.flaw().or_else(|| placement.cannot_follow(&old)) {
                return refused(format!("it {flaw}"));
            }
            keep_placement(live, id, placement, changes)
        })
    }

    /// Moves the replica on by one entry.
    pub(super) fn step(&self, id: LogId, bytes: u64, change: impl FnOnce(&mut super::layer::Live) -> Reply) -> Reply {
        let mut replica = self.write();
        let live = &mut replica.live;
        live.vars.applied.last = Some(id);
        live.touched = true;
        live.active.bytes += bytes;
        change(live)
    }
}

fn made_meanwhile(epoch: Revision) -> String {
    format!("another placement was made meanwhile, with epoch {epoch}")
}

fn keep_placement(live: &mut super::layer::Live, id: LogId, placement: Placement, changes: &mut Vec<Change>) -> Reply {
    let placement = Arc::new(Placement { epoch: id.index, ..placement });
    live.vars.placement = Some(Arc::clone(&placement));
    changes.push(Change::Placement(placement));
    Reply::Written(id.index)
}
