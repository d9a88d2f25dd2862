//! What a group's log carries. What applying it answers is in `reply`.
//!
//! An entry's bytes are an envelope: format version (1 byte), kind (1 byte), body. Row batches are a kind of their own, so
//! that their block is neither copied nor walked by a general decoder. Drawn in `store/README.md`.

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};

use super::{AccountId, MetaWrite, Name, NodeId, Placement, Profile, Revision, Timestamp};

/// Version of the envelope written by this build, and the newest one that it reads.
const ENVELOPE_VERSION: u8 = 1;
const KIND_CBOR: u8 = 0;
const KIND_ROWS: u8 = 1;
/// As rows, with a retention class (u16) behind the head.
const KIND_CLASSED_ROWS: u8 = 2;
/// node, incarnation, batch, rows, newest ts.
const ROWS_HEAD_BYTES: usize = 8 + 8 + 8 + 4;

/// A replicated command.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Ledger: a block of rows.
    Rows(RowBatch),
    /// Everything that is not hot.
    Cold(ColdCommand),
}

/// Commands in the general encoding.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum ColdCommand {
    /// Meta: one atomic change of metadata.
    #[n(0)]
    Meta(#[n(0)] MetaWrite),
    /// Ledger: keeps a profile under a stage; the one that group 0 names is the account's.
    #[n(1)]
    StageProfile {
        /// Whose profile.
        #[n(0)]
        account: AccountId,
        /// A fresh ULID.
        #[n(1)]
        stage: String,
        /// The stage that is published now; all others of the account are dropped.
        #[n(2)]
        #[cbor(default)]
        published: String,
        /// Name and metadata.
        #[n(3)]
        profile: Profile,
    },
    /// Ledger: reserves quota units for a node's incarnation.
    #[n(2)]
    Reserve(#[n(0)] Vec<Reservation>),
    /// Ledger: a node has started; what its earlier incarnations had reserved is forfeited for the period.
    #[n(3)]
    NodeStarted {
        /// The node.
        #[n(0)]
        node: NodeId,
        /// Its new incarnation; each start's is greater than the one before.
        #[n(1)]
        incarnation: u64,
    },
    /// Ledger: joins the row blocks of entries `from..=to` into one.
    #[n(4)]
    Seal {
        /// First entry index.
        #[n(0)]
        from: u64,
        /// Last entry index.
        #[n(1)]
        to: u64,
    },
    /// Ledger: drops the row files of days before `day` (days since 1970) in a retention class.
    #[n(5)]
    DropBefore {
        /// First day that stays.
        #[n(0)]
        day: i32,
        /// Retention class in days; 0 for the default class.
        #[n(1)]
        class: u16,
    },
    /// Ledger: as `StageProfile`, of several accounts.
    #[n(6)]
    StageProfiles(#[n(0)] Vec<Staged>),
    /// Ledger: forgets profiles of accounts that are gone.
    #[n(7)]
    DropProfiles(#[n(0)] Vec<Unpublished>),
    /// Meta: places the slots on ledger groups.
    #[n(8)]
    Place {
        /// The epoch of the placement that it follows; 0 for the first.
        #[n(0)]
        expect: Revision,
        /// Where the slots are from then on.
        #[n(1)]
        placement: Placement,
    },
    /// Meta: as `Place`, of a cluster in use: adds groups, closes slots, opens them elsewhere.
    #[n(9)]
    Move {
        /// The epoch of the placement that it follows; 0 where there is none.
        #[n(0)]
        expect: Revision,
        /// The placement from then on.
        #[n(1)]
        placement: Placement,
    },
    /// Ledger: takes over the counters of slots that come to this group. Said twice, it changes nothing.
    #[n(10)]
    TakeOver(#[n(0)] Vec<Carried>),
}

/// A quota's period as another group leaves it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Carried {
    /// The account.
    #[n(0)]
    pub account: AccountId,
    /// The quota's name.
    #[n(1)]
    pub quota: Name,
    /// Start of the period, seconds since 1970.
    #[n(2)]
    pub period_start: i64,
    /// Units that rows have used.
    #[n(3)]
    pub used: u64,
    /// Units that somebody holds, or held when it was gone: nobody will say here what became of them.
    #[n(4)]
    pub unsettled: u64,
    /// What is noticed about the period.
    #[n(5)]
    pub watch: Option<Watch>,
    /// The highest threshold that was passed.
    #[n(6)]
    pub raised: Option<u16>,
}

/// A block of rows, encoded once by the node that served the requests.
#[derive(Debug, Clone, PartialEq)]
pub struct RowBatch {
    /// The node.
    pub node: NodeId,
    /// Its incarnation, minted durably at every start.
    pub incarnation: u64,
    /// 1, 2, 3, … within the incarnation. A retried proposal repeats it and lands once.
    pub batch: u64,
    /// Rows in the block.
    pub rows: u32,
    /// Retention class of all of them: days, or 0 for the default.
    pub class: u16,
    /// The columnar block (`state::block`).
    pub block: Bytes,
}

/// A profile to be kept under a stage.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Staged {
    /// Whose profile.
    #[n(0)]
    pub account: AccountId,
    /// A fresh ULID.
    #[n(1)]
    pub stage: String,
    /// The stage that is published now.
    #[n(2)]
    #[cbor(default)]
    pub published: String,
    /// Name and metadata.
    #[n(3)]
    pub profile: Profile,
}

/// A profile that no account names.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Unpublished {
    /// Whose it was.
    #[n(0)]
    pub account: AccountId,
    /// Its stage.
    #[n(1)]
    pub stage: String,
}

/// A demand for quota units, or (negative) a return of unspent ones.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Reservation {
    /// For which node.
    #[n(0)]
    pub node: NodeId,
    /// For which of its incarnations.
    #[n(1)]
    pub incarnation: u64,
    /// The account.
    #[n(2)]
    pub account: AccountId,
    /// The quota's name.
    #[n(3)]
    pub quota: Name,
    /// Start of the period, seconds since 1970; a period older than the newest seen is refused.
    #[n(4)]
    pub period_start: i64,
    /// Units wanted (the reply says how many were granted), or units given back when negative.
    #[n(5)]
    pub units: i64,
    /// The quota's limit as the asker knows it; `u64::MAX` when overage is allowed.
    #[n(6)]
    pub limit: u64,
    /// What is to be noticed about the period's use; none for what is no quota of a customer.
    #[n(7)]
    pub watch: Option<Watch>,
    /// Looks at once at what the period's use has come to, as of this time: the policy was changed, and no row may come. Not
    /// said before every member knows it (wire version 2), for replicas would differ.
    #[n(8)]
    pub look_at: Option<Timestamp>,
}

/// What is noticed about the use of a quota's period.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Watch {
    /// The limit that people know: units beyond it are overage.
    #[n(0)]
    pub limit: u64,
    /// Percentages of it that raise an alert.
    #[n(1)]
    #[cbor(default)]
    pub thresholds: Vec<u16>,
    /// It never refuses.
    #[n(2)]
    #[cbor(default)]
    pub shadow: bool,
    /// First instant of the next period, seconds since 1970.
    #[n(3)]
    pub period_end: i64,
}

/// Bytes that are not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer build.
    #[error("command format version {0} is newer than this build knows (up to {ENVELOPE_VERSION}): upgrade this node")]
    Version(u8),
    /// A kind this build does not know.
    #[error("command kind {0} is not known to this build: upgrade this node")]
    Kind(u8),
    /// Cut or damaged.
    #[error("command cannot be decoded: {0}")]
    Damaged(String),
}

impl Command {
    /// The entry's bytes.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Rows(batch) => {
                let mut out = BytesMut::with_capacity(2 + ROWS_HEAD_BYTES + batch.block.len());
                let kind = if batch.class == 0 { KIND_ROWS } else { KIND_CLASSED_ROWS };
                out.put_slice(&[ENVELOPE_VERSION, kind]);
                out.put_u64_le(batch.node.0);
                out.put_u64_le(batch.incarnation);
                out.put_u64_le(batch.batch);
                out.put_u32_le(batch.rows);
                if kind == KIND_CLASSED_ROWS {
                    out.put_u16_le(batch.class);
                }
                out.put_slice(&batch.block);
                out.freeze()
            }
            Self::Cold(command) => {
                let mut out = vec![ENVELOPE_VERSION, KIND_CBOR];
                minicbor::encode(command, &mut out).expect("writing to memory cannot fail");
                out.into()
            }
        }
    }

    /// Whether an encoded command is a batch of rows, without decoding it.
    pub fn is_rows(bytes: &[u8]) -> bool {
        matches!(bytes.get(1), Some(&(KIND_ROWS | KIND_CLASSED_ROWS)))
    }

    /// Reads an entry's bytes; a row block is a slice of them.
    ///
    /// # Errors
    /// A newer format, named; or damage.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let [version, kind, body @ ..] = &bytes[..] else {
            return Err(DecodeError::Damaged(format!("{} bytes", bytes.len())));
        };
        if *version == 0 || *version > ENVELOPE_VERSION {
            return Err(DecodeError::Version(*version));
        }
        match *kind {
            KIND_CBOR => {
                minicbor::decode(body).map(Self::Cold).map_err(|error| DecodeError::Damaged(error.to_string()))
            }
            KIND_ROWS | KIND_CLASSED_ROWS => {
                let (head, rest) = body
                    .split_first_chunk::<ROWS_HEAD_BYTES>()
                    .ok_or_else(|| DecodeError::Damaged(format!("row batch of {} bytes", body.len())))?;
                let u64_at =
                    |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes of a fixed head"));
                let (class, block_at) = if *kind == KIND_CLASSED_ROWS {
                    let class = rest
                        .first_chunk::<2>()
                        .ok_or_else(|| DecodeError::Damaged(format!("row batch of {} bytes", body.len())))?;
                    (u16::from_le_bytes(*class), 2 + ROWS_HEAD_BYTES + 2)
                } else {
                    (0, 2 + ROWS_HEAD_BYTES)
                };
                Ok(Self::Rows(RowBatch {
                    node: NodeId(u64_at(0)),
                    incarnation: u64_at(8),
                    batch: u64_at(16),
                    rows: u32::from_le_bytes(head[24..28].try_into().expect("four bytes of a fixed head")),
                    class,
                    block: bytes.slice(block_at..),
                }))
            }
            kind => Err(DecodeError::Kind(kind)),
        }
    }
}

impl From<ColdCommand> for Command {
    fn from(command: ColdCommand) -> Self {
        Self::Cold(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_survive_their_envelope() {
        let rows = |class| {
            Command::Rows(RowBatch {
                node: NodeId(7),
                incarnation: 3,
                batch: 9,
                rows: 2,
                class,
                block: Bytes::from_static(b"block"),
            })
        };
        let seal = Command::from(ColdCommand::Seal { from: 1, to: 9 });
        for command in [rows(0), rows(90), seal] {
            assert_eq!(Command::decode(&command.encode()), Ok(command));
        }
        let cut = rows(90).encode().slice(..2 + ROWS_HEAD_BYTES + 1);
        assert!(matches!(Command::decode(&cut), Err(DecodeError::Damaged(_))));
    }

    #[test]
    fn a_newer_envelope_is_refused_by_name_and_damage_never_panics() {
        let good = Command::from(ColdCommand::Seal { from: 1, to: 9 }).encode();
        let mut newer = good.to_vec();
        newer[0] = 2;
        assert_eq!(Command::decode(&newer.into()), Err(DecodeError::Version(2)));
        for cut in 0..good.len() {
            assert!(Command::decode(&good.slice(..cut)).is_err());
        }
        let rows = Bytes::from_static(&[1, KIND_ROWS, 0, 0]);
        assert!(matches!(Command::decode(&rows), Err(DecodeError::Damaged(_))));
    }
}
