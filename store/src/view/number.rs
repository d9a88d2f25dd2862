//! Numbers made of ids: the same on every node and in every build, so that a message can name a bucket by a number.
//!
//! Two ids that share a number would share a bucket, which admits less and never more; callers' slugs go through SHA-256,
//! so that nobody can aim at another's.

use sha2::{Digest, Sha256};
use ulid::Ulid;

const KEY_PREFIX: &str = "key_";

/// Number of an account, route, limit or quota. Frozen: nodes of different builds must agree.
pub(crate) fn of_text(kind: &str, text: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(kind.as_bytes());
    hash.update([0]);
    hash.update(text.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes(digest[..8].try_into().expect("eight bytes of a digest"))
}

/// Number of a key whose id is `key_` and this ULID. Key ids are minted by us, so mixing is enough.
pub(crate) fn of_key_ulid(ulid: u128) -> u64 {
    join((ulid >> 64) as u64, ulid as u64)
}

/// Number of a key.
pub(crate) fn of_key(id: &str) -> u64 {
    key_ulid(id).map_or_else(|| of_text("key", id), of_key_ulid)
}

/// Joins two numbers into one, order mattering (the finalizer of SplitMix64, Steele, Lea and Flood 2014).
pub(crate) fn join(left: u64, right: u64) -> u64 {
    let mut z = left.rotate_left(23).wrapping_add(right).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) ^ left
}

/// The ULID of an id of the common form; none for any other text, also for one that is spelled differently.
pub(crate) fn key_ulid(id: &str) -> Option<u128> {
    let text = id.strip_prefix(KEY_PREFIX)?;
    let ulid = Ulid::from_string(text).ok()?;
    let mut buffer = [0; ulid::ULID_LEN];
    (ulid.array_to_str(&mut buffer) == text).then_some(ulid.0)
}

/// The id of a ULID; the inverse of [`key_ulid`].
pub(crate) fn with_key_id<T>(ulid: u128, use_text: impl FnOnce(&str) -> T) -> T {
    let mut text = [0; KEY_PREFIX.len() + ulid::ULID_LEN];
    text[..KEY_PREFIX.len()].copy_from_slice(KEY_PREFIX.as_bytes());
    let (_, rest) = text.split_at_mut(KEY_PREFIX.len());
    let rest: &mut [u8; ulid::ULID_LEN] = rest.try_into().expect("the array is that long");
    Ulid(ulid).array_to_str(rest);
    use_text(std::str::from_utf8(&text).expect("a ULID's alphabet is ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_common_form_is_its_ulid_and_back() {
        let id = "key_01ARZ3NDEKTSV4RRFFQ69G5FAV";
        let ulid = key_ulid(id).expect("the common form");
        with_key_id(ulid, |text| assert_eq!(text, id));
        assert_eq!(of_key(id), of_key_ulid(ulid));
    }

    #[test]
    fn other_spellings_are_other_ids() {
        for id in [
            "key_01arz3ndektsv4rrffq69g5fav",
            "key_8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "key_x",
            "",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        ] {
            assert_eq!(key_ulid(id), None, "{id}");
        }
    }

    /// Nodes of different builds name the same bucket: these numbers never change.
    #[test]
    fn numbers_are_frozen() {
        assert_eq!(of_text("account", "acme"), 5_427_242_831_650_755_322);
        assert_eq!(of_key("key_01ARZ3NDEKTSV4RRFFQ69G5FAV"), 16_856_988_927_298_905_451);
    }
}
