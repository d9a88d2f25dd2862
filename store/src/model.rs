//! The glossary: one type for one idea, used by every room above.
//!
//! No I/O, no async, no redb, no axum. What is stored or sent is encoded with minicbor: every field has an index, unknown
//! fields are skipped and absent ones take their default, so that a newer node and an older one understand each other.
//! JSON (serde) is the outside form of the same types; the admin API and the declarative file speak it.

mod account;
mod alert;
mod audit;
mod command;
mod decided;
mod id;
mod key;
mod limit;
mod node;
mod placement;
mod quota;
mod reply;
mod route;
mod row;
mod secret;
mod tier;
mod time;
mod token;
mod unavailable;
mod usage;
mod write;

pub use account::{Account, AccountState, Overrides, Profile, Reset};
pub use alert::{Alert, AlertPlace, OverageRecord};
pub use audit::{AuditChain, AuditError, AuditNote, AuditObject, AuditRecord, link as audit_link};
pub use command::{Carried, ColdCommand, Command, DecodeError, Reservation, RowBatch, Staged, Unpublished, Watch};
pub use decided::{Counted, Decided, Numbers, Part, Source};
pub use id::{AccountId, GroupId, KeyId, LogId, Name, NodeId, RequestId, Revision, SLOTS, slot_of};
pub use key::{Env, Key, KeyState, canonical_network, is_within};
pub use limit::{Gcra, Limit, Rate, RateParseError, Refused};
pub use node::NodeInfo;
pub use placement::{AddedGroup, FirstVoter, Left, MAX_LEDGER_GROUPS, Moving, Placement, SlotRun};
pub use quota::{Overage, Period, PeriodBounds, Quota, QuotaError, Unit};
pub use reply::{CommandError, Reply, WriteConflict};
pub use route::{
    Cors, CostHeader, HeaderEdits, HealthCheck, Outlier, PathMatch, Protocol, Route, RouteMatch, SaidCost, Target,
    Upstream,
};
pub use row::{Charge, Completion, Outcome, Row};
pub use secret::{KeyHash, Secret, SecretError, SecretKind};
pub use tier::{Dimension, Tier};
pub use time::Timestamp;
pub use token::{Role, Token};
pub use unavailable::Unavailable;
pub use usage::UsageCounters;
pub use write::{Expect, Happened, MetaOp, MetaWrite, Once};
