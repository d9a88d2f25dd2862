//! Counters of slots that leave their group, for the group that they come to.

use super::{
    ReadError, State, codec,
    quota::Counter,
    tables::Table,
    view::{self, Overlay, Range},
};
use crate::model::{AccountId, Carried, Name, slot_of};

type Slots = std::ops::Range<u16>;

impl State {
    /// The counters of all accounts in some slots, as another group is to take them over. Looks through all counters.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn carried(&self, slots: &Slots) -> Result<Vec<Carried>, ReadError> {
        // Made-up accounts (debts of rates) have names that no account has; whoever needs them reads them here.
        let wanted = |account: &str| !account.contains('/') && slots.contains(&slot_of(account));
        let (known, main) = {
            let replica = self.read();
            (replica.live.quotas_that(wanted), replica.storage.read_main()?)
        };
        let none = Overlay::new();
        let mut all = Vec::new();
        view::walk(&main, Table::Quotas, &Range::all(), none, false, &mut |key, value| {
            let Some((account, quota)) = codec::split_text_key(key) else { return Ok(true) };
            let key = (AccountId::from(account), Name::from(quota));
            if wanted(account) && !known.contains_key(&key) {
                let counter: Counter = codec::decode(value).map_err(main.error(Table::Quotas))?;
                all.extend(counter.carried(&key.0, &key.1));
            }
            Ok(true)
        })?;
        all.extend(known.iter().flat_map(|((account, quota), counter)| counter.carried(account, quota)));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a table's part of a slot that leaves its group.
    #[derive(Debug, PartialEq)]
    enum Becomes {
        /// The new group takes it over.
        Carried,
        /// It stays; whoever reads an account looks at the older groups too, and writes of one request go to one group.
        Stays,
        /// It is group 0's, or the group's own.
        OfNoSlot,
    }

    /// A new table does not compile before it is said here what becomes of it.
    fn becomes(table: Table) -> Becomes {
        match table {
            Table::Quotas => Becomes::Carried,
            // `Store::requests`, `request`, `usage`, `key_last_used`, `alerts`, `overages`, `profiles`, `accounts_named`.
            Table::Blocks
            | Table::Garbage
            | Table::Usage
            | Table::Alerts
            | Table::Overages
            | Table::Profiles
            | Table::ProfileNames => Becomes::Stays,
            Table::Vars
            | Table::Accounts
            | Table::Keys
            | Table::KeyHashes
            | Table::AccountKeys
            | Table::Tiers
            | Table::Routes
            | Table::Upstreams
            | Table::Tokens
            | Table::Audit
            | Table::TierAccounts
            | Table::Happened
            | Table::HappenedAt
            | Table::SettledFiles => Becomes::OfNoSlot,
        }
    }

    #[test]
    fn of_what_a_ledger_keeps_the_counters_alone_are_carried() {
        let all = || Table::ALL.into_iter();
        assert_eq!(all().filter(|table| becomes(*table) == Becomes::Carried).collect::<Vec<_>>(), [Table::Quotas]);
        assert_eq!(all().filter(|table| becomes(*table) == Becomes::Stays).count(), 7);
    }
}
