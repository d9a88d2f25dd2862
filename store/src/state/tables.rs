//! The tables of a group's main file. Keys and values are bytes; each key's form is drawn in `store/README.md`.

use redb::TableDefinition;

/// A table. Its number goes into snapshots and digests and is never used anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(super) enum Table {
    /// `state` -> how far the file is and the small things ([`super::vars::Vars`]).
    Vars = 0,
    /// id -> account.
    Accounts = 1,
    /// id -> key.
    Keys = 2,
    /// SHA-256 of the secret -> key id.
    KeyHashes = 3,
    /// account, key id -> nothing.
    AccountKeys = 4,
    /// name -> tier.
    Tiers = 5,
    /// name -> route.
    Routes = 6,
    /// name -> upstream.
    Upstreams = 7,
    /// id -> token.
    Tokens = 8,
    /// entry, operation -> audit record.
    Audit = 9,
    /// tier, account -> nothing.
    TierAccounts = 10,
    /// SHA-256 of an actor and its key -> the write that happened; `count` -> how many.
    Happened = 11,
    /// time, SHA-256 of an actor and its key -> nothing.
    HappenedAt = 12,
    /// account, stage -> profile.
    Profiles = 20,
    /// entry, day, class -> what is known of a row block without reading it.
    Blocks = 21,
    /// account, minute -> sums and latencies, in total and by status, route, key.
    Usage = 22,
    /// account, quota -> its periods.
    Quotas = 23,
    /// entry, day, class -> nothing: a joined block's part, to be removed from its file of rows.
    Garbage = 24,
    /// entry, number -> alert.
    Alerts = 25,
    /// account, counter, start of period -> what was used beyond the limit.
    Overages = 26,
    /// lower-case name, 0, account, stage -> nothing.
    ProfileNames = 27,
    /// day -> a request whose settling record the day's file of them has. Of the replica's own files: in no snapshot.
    SettledFiles = 28,
}

/// How the main file's tables are opened.
pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

impl Table {
    pub(super) const ALL: [Self; 22] = [
        Self::Vars,
        Self::Accounts,
        Self::Keys,
        Self::KeyHashes,
        Self::AccountKeys,
        Self::Tiers,
        Self::Routes,
        Self::Upstreams,
        Self::Tokens,
        Self::Audit,
        Self::TierAccounts,
        Self::Happened,
        Self::HappenedAt,
        Self::Profiles,
        Self::Blocks,
        Self::Usage,
        Self::Quotas,
        Self::Garbage,
        Self::Alerts,
        Self::Overages,
        Self::ProfileNames,
        Self::SettledFiles,
    ];

    pub(super) fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == number)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vars => "vars",
            Self::Accounts => "accounts",
            Self::Keys => "keys",
            Self::KeyHashes => "key_hashes",
            Self::AccountKeys => "account_keys",
            Self::Tiers => "tiers",
            Self::Routes => "routes",
            Self::Upstreams => "upstreams",
            Self::Tokens => "tokens",
            Self::Audit => "audit",
            Self::TierAccounts => "tier_accounts",
            Self::Happened => "happened",
            Self::HappenedAt => "happened_at",
            Self::Profiles => "profiles",
            Self::Blocks => "blocks",
            Self::Usage => "usage",
            Self::Quotas => "quotas",
            Self::Garbage => "garbage",
            Self::Alerts => "alerts",
            Self::Overages => "overages",
            Self::ProfileNames => "profile_names",
            Self::SettledFiles => "settled_files",
        }
    }

    /// Whether it tells of the replica's own files: replicas do not agree on it, and no snapshot has it.
    pub(super) fn is_local(self) -> bool {
        matches!(self, Self::Vars | Self::Garbage | Self::SettledFiles)
    }

    pub(super) fn definition(self) -> Definition {
        TableDefinition::new(self.name())
    }
}
