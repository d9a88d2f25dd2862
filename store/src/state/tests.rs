//! Scripts of commands, crashes, streams, and laws over random ones.

mod carried;
mod crash;
mod faulty;
mod ledger;
mod meta;
mod open;
mod placement;
mod snapshot;
mod usage;

use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;

use super::{Entry, Options, Payload, State, block};
use crate::model::{
    Account, ColdCommand, Command, Completion, Expect, GroupId, Key, KeyHash, KeyId, LogId, MetaOp, MetaWrite, NodeId,
    Outcome, Reply, RequestId, Route, Row, RowBatch, Tier, Timestamp, Upstream,
};

/// 2026-11-21T00:00:00Z, the day that most tests happen on.
const DAY: i32 = 20_778;

fn at(second: i64) -> Timestamp {
    Timestamp::from_unix_seconds(i64::from(DAY) * 86_400 + second)
}

/// A replica in a directory of its own, and the log that it was given.
struct Rig {
    dir: TempDir,
    state: Option<State>,
    group: GroupId,
    options: Options,
    log: Vec<Entry>,
}

impl Rig {
    fn new(group: GroupId) -> Self {
        Self::with(group, Options { cache_bytes: 4 << 20, ..Options::default() })
    }

    fn with(group: GroupId, options: Options) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let state = Some(open(dir.path(), group, &options));
        Self { dir, state, group, options, log: Vec::new() }
    }

    fn state(&self) -> &State {
        self.state.as_ref().expect("open")
    }

    fn payload(&mut self, payload: Payload) -> Reply {
        let entry = Entry { id: LogId { term: 1, index: self.log.len() as u64 + 1 }, payload };
        self.log.push(entry.clone());
        self.state().apply(&[entry]).expect("applied").remove(0)
    }

    fn command(&mut self, command: impl Into<Command>) -> Reply {
        self.payload(Payload::Command(command.into().encode()))
    }

    fn cold(&mut self, command: ColdCommand) -> Reply {
        self.command(command)
    }

    fn meta(&mut self, ops: Vec<MetaOp>) -> Reply {
        let write = MetaWrite { at: at(0), actor: "tok_1".into(), request_id: "r".into(), ops, ..MetaWrite::default() };
        self.write(write)
    }

    fn write(&mut self, write: MetaWrite) -> Reply {
        self.cold(ColdCommand::Meta(write))
    }

    fn rows(&mut self, batch: u64, rows: &[Row]) -> Reply {
        self.command(batch_of(1, 1, batch, rows))
    }

    fn checkpoint(&self) {
        self.state().checkpoint(&mut |_| Ok(())).expect("checkpoint");
    }

    /// Closes and opens again, and replays the log from the checkpoint, as a node does at its start.
    fn restart(&mut self) {
        self.state = None;
        self.state = Some(open(self.dir.path(), self.group, &self.options));
        self.replay();
    }

    fn replay(&self) -> Vec<Reply> {
        let applied = self.state().applied().last.map_or(0, |last| last.index);
        self.state().apply(&self.log[applied as usize..]).expect("replayed")
    }

    /// Another replica that was given the same log, entry by entry, without any checkpoint.
    fn twin(&self) -> Rig {
        let mut twin = Rig::new(self.group);
        twin.log.clone_from(&self.log);
        twin.replay();
        twin
    }
}

fn open(dir: &Path, group: GroupId, options: &Options) -> State {
    State::open(dir, group, options.clone()).expect("opens")
}

fn batch_of(node: u64, incarnation: u64, batch: u64, rows: &[Row]) -> Command {
    let block = Bytes::from(block::encode(rows).expect("a block"));
    let class = rows.first().map_or(0, |row| row.retention_days);
    Command::Rows(RowBatch { node: NodeId(node), incarnation, batch, rows: rows.len() as u32, class, block })
}

/// A request's id that was made at this time.
fn id(ts: Timestamp, low: u64) -> RequestId {
    RequestId((ts.0 as u128 / 1_000) << 80 | 7 << 76 | 2 << 62 | u128::from(low))
}

fn row(number: u64, ts: Timestamp) -> Row {
    Row {
        request_id: id(ts, number),
        ts,
        account: "acme".into(),
        key_id: "key_1".into(),
        tier: "free".into(),
        route: "scan".into(),
        method: "POST".into(),
        path: "/v3/scan".into(),
        status: 200,
        outcome: Outcome::Admitted,
        cost: 1,
        bytes_in: 10,
        bytes_out: 100,
        upstream_us: 900,
        duration_us: 1_000,
        client_ip: None,
        client_request_id: None,
        trace_id: 0,
        node: "n1".into(),
        region: "".into(),
        completion: Completion::Complete,
        count: 1,
        settles: false,
        decided_by: Default::default(),
        retention_days: 0,
        charges: Vec::new(),
    }
}

fn tier(name: &str) -> MetaOp {
    MetaOp::PutTier { tier: Tier { name: name.into(), ..Tier::default() }, expect: Expect::Any }
}

fn account(id: &str, tier: &str) -> Account {
    Account {
        id: id.into(),
        tier: tier.into(),
        state: Default::default(),
        region: "".into(),
        overrides: Default::default(),
        created_at: at(1),
        profile: String::new(),
        revision: 0,
        resets: Vec::new(),
    }
}

fn put_account(id: &str, tier: &str) -> MetaOp {
    MetaOp::PutAccount { account: account(id, tier), expect: Expect::Any }
}

fn key(id: &str, account: &str, secret: &str) -> Key {
    Key {
        id: KeyId::from(id),
        account: account.into(),
        hash: KeyHash::of(secret),
        name: "".into(),
        env: Default::default(),
        last4: "abcd".into(),
        scopes: Vec::new(),
        allowed_ips: Vec::new(),
        expires_at: None,
        state: Default::default(),
        created_at: at(2),
        revoked_at: None,
        rotated_from: None,
        revision: 0,
        overrides: Default::default(),
    }
}

fn put_key(key: Key) -> MetaOp {
    MetaOp::PutKey { key, expect: Expect::Any }
}

fn upstream(name: &str) -> MetaOp {
    MetaOp::PutUpstream { upstream: Upstream { name: name.into(), ..Upstream::default() }, expect: Expect::Any }
}

fn route(name: &str, upstream: &str) -> MetaOp {
    let route = Route { name: name.into(), upstream: upstream.into(), ..Route::default() };
    MetaOp::PutRoute { route, expect: Expect::Any }
}
