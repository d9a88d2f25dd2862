//! Names turned into texts that outlive their block.

use super::{
    super::hash::FastMap,
    names::{Dictionary, Names, Parts},
};
use crate::model::{AccountId, KeyId, Name};

/// What a name is built as.
pub(super) trait Text: Clone + AsRef<str> + for<'t> From<&'t str> + From<String> {}

impl<T: Clone + AsRef<str> + for<'t> From<&'t str> + From<String>> Text for T {}

/// Where names' texts come from: built for the block, or shared with the blocks before.
pub(in crate::state) trait Texts {
    fn accounts(&mut self, names: &Names) -> Vec<AccountId>;
    fn keys(&mut self, names: &Names) -> Vec<KeyId>;
    fn names(&mut self, names: &Names, of: Dictionary) -> Vec<Name>;
}

/// Builds every text anew.
pub(super) struct Built;

impl Texts for Built {
    fn accounts(&mut self, names: &Names) -> Vec<AccountId> {
        all(names, Dictionary::Account)
    }

    fn keys(&mut self, names: &Names) -> Vec<KeyId> {
        all(names, Dictionary::Key)
    }

    fn names(&mut self, names: &Names, of: Dictionary) -> Vec<Name> {
        all(names, of)
    }
}

fn all<T: Text>(names: &Names, of: Dictionary) -> Vec<T> {
    names.parts(of).map(Parts::to_name).collect()
}

/// Texts of the blocks before: apply meets the same names again and again. One text in memory for each saves building it,
/// and maps tell it by its address before they read it.
#[derive(Debug, Default)]
pub(in crate::state) struct SharedTexts {
    accounts: Shared<AccountId>,
    keys: Shared<KeyId>,
    names: Shared<Name>,
}

impl Texts for SharedTexts {
    fn accounts(&mut self, names: &Names) -> Vec<AccountId> {
        self.accounts.all(names, Dictionary::Account)
    }

    fn keys(&mut self, names: &Names) -> Vec<KeyId> {
        self.keys.all(names, Dictionary::Key)
    }

    fn names(&mut self, names: &Names, of: Dictionary) -> Vec<Name> {
        self.names.all(names, of)
    }
}

/// Texts of one kind that are kept; at the bound they are forgotten and built again.
const SHARED: usize = 1 << 16;

#[derive(Debug)]
struct Shared<T> {
    by_ulid: FastMap<u128, T>,
    by_text: FastMap<Box<str>, T>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { by_ulid: FastMap::default(), by_text: FastMap::default() }
    }
}

impl<T: Text> Shared<T> {
    fn all(&mut self, names: &Names, of: Dictionary) -> Vec<T> {
        names.parts(of).map(|name| self.name(name)).collect()
    }

    fn name(&mut self, name: Parts<'_>) -> T {
        if self.by_ulid.len() + self.by_text.len() >= SHARED {
            *self = Self::default();
        }
        let Some(bits) = name.ulid else {
            if let Some(known) = self.by_text.get(name.text) {
                return known.clone();
            }
            let built: T = name.to_name();
            self.by_text.insert(name.text.into(), built.clone());
            return built;
        };
        let same = |known: &&T| known.as_ref().len() == name.len() && known.as_ref().starts_with(name.text);
        if let Some(known) = self.by_ulid.get(&bits).filter(same) {
            return known.clone();
        }
        let built: T = name.to_name();
        self.by_ulid.insert(bits, built.clone());
        built
    }
}
