//! Secrets of keys and admin tokens: their text form, checksum and hash.
//!
//! `tg_live_` / `tg_test_` / `tga_`, 30 base62 characters from the system's CSPRNG, then CRC-32 (IEEE) of all bytes before
//! it as 6 base62 characters. A mistyped or truncated secret is told apart without a look-up. Only the SHA-256 is kept.

use std::fmt;

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256, block_api::compress256};
use zeroize::Zeroizing;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_CHARS: usize = 30;
const CHECKSUM_CHARS: usize = 6;

/// What a secret opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// A live API key.
    Live,
    /// A test API key.
    Test,
    /// An admin token.
    Admin,
}

impl SecretKind {
    /// The text before the random part.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Live => "tg_live_",
            Self::Test => "tg_test_",
            Self::Admin => "tga_",
        }
    }
}

/// A secret in clear, wiped from memory when dropped. Never `Debug`s its text.
#[derive(Clone)]
pub struct Secret {
    text: Zeroizing<String>,
    kind: SecretKind,
}

/// Why a text is not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not one of the known prefixes.
    #[error("does not start with tg_live_, tg_test_ or tga_")]
    Prefix,
    /// Too long or too short.
    #[error("has {0} characters after its prefix, expected 36")]
    Length(usize),
    /// A character outside `0-9A-Za-z`.
    #[error("has a character that is not 0-9, A-Z or a-z")]
    Alphabet,
    /// Mistyped or cut.
    #[error("its checksum does not match: mistyped or incomplete")]
    Checksum,
}

impl Secret {
    /// A fresh secret from the system's CSPRNG.
    ///
    /// # Panics
    /// When the kernel cannot give random bytes; no key may be made then.
    pub fn generate(kind: SecretKind) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str(kind.prefix());
        let mut bytes = Zeroizing::new([0u8; 64]);
        while text.len() < kind.prefix().len() + RANDOM_CHARS {
            getrandom::fill(&mut *bytes).expect("the kernel's random generator answers");
            // 248 = 4 * 62: refuse the rest, so that every character is equally likely.
            for byte in bytes.iter().filter(|b| **b < 248) {
                if text.len() < kind.prefix().len() + RANDOM_CHARS {
                    text.push(char::from(ALPHABET[usize::from(*byte % 62)]));
                }
            }
        }
        let checksum = checksum(text.as_bytes());
        text.push_str(std::str::from_utf8(&checksum).expect("the alphabet is ASCII"));
        Self { text, kind }
    }

    /// Checks prefix, length, alphabet and checksum; no look-up.
    ///
    /// # Errors
    /// The first thing that is wrong, without repeating any of the text.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let kind = Self::check(text)?;
        Ok(Self { text: Zeroizing::new(text.to_owned()), kind })
    }

    /// As [`Secret::parse`], without keeping the text: the request path's form.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(text: &str) -> Result<SecretKind, SecretError> {
        let kind = [SecretKind::Live, SecretKind::Test, SecretKind::Admin]
            .into_iter()
            .find(|kind| text.starts_with(kind.prefix()))
            .ok_or(SecretError::Prefix)?;
        let rest = &text.as_bytes()[kind.prefix().len()..];
        if rest.len() != RANDOM_CHARS + CHECKSUM_CHARS {
            return Err(SecretError::Length(rest.len()));
        }
        if !rest.iter().all(u8::is_ascii_alphanumeric) {
            return Err(SecretError::Alphabet);
        }
        let (body, sum) = text.as_bytes().split_at(text.len() - CHECKSUM_CHARS);
        if checksum(body) != sum {
            return Err(SecretError::Checksum);
        }
        Ok(kind)
    }

    /// The clear text. Its only places are the answer that made it and the client's header.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What it opens.
    pub fn kind(&self) -> SecretKind {
        self.kind
    }

    /// SHA-256 of the text: what is stored. (Unsalted on purpose: the secret has 178 random bits.)
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.text)
    }

    /// The last four characters, for people to tell keys apart.
    pub fn last4(&self) -> &str {
        &self.text[self.text.len() - 4..]
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}…)", self.kind.prefix())
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(bytes);
    let mut out = [b'0'; CHECKSUM_CHARS];
    for place in out.iter_mut().rev() {
        *place = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    out
}

/// SHA-256 of a secret's text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct KeyHash(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 32],
);

impl KeyHash {
    /// Hashes a secret's text.
    pub fn of(text: &str) -> Self {
        Self(one_block(text.as_bytes()).unwrap_or_else(|| Sha256::digest(text.as_bytes()).into()))
    }
}

/// SHA-256 of a message that is padded to one block, as each of our secrets is (FIPS 180-4, 5.1.1 and 5.3.3). Each request
/// hashes one: without the buffers that a stream needs it takes a fifth less.
fn one_block(message: &[u8]) -> Option<[u8; 32]> {
    const INITIAL: [u32; 8] =
        [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
    let mut block = [0; 64];
    let (text, bits) = block.split_at_mut(56);
    text.get_mut(..message.len())?.copy_from_slice(message);
    *text.get_mut(message.len())? = 0x80;
    bits.copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    let mut hash = [0; 32];
    for (bytes, word) in hash.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    Some(hash)
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_secret_has_the_contracts_form_and_parses() {
        for kind in [SecretKind::Live, SecretKind::Test, SecretKind::Admin] {
            let secret = Secret::generate(kind);
            assert_eq!(secret.expose().len(), kind.prefix().len() + 36);
            assert_eq!(Secret::parse(secret.expose()).map(|s| s.kind()), Ok(kind));
        }
    }

    #[test]
    fn every_single_character_change_is_refused_without_a_look_up() {
        let secret = Secret::generate(SecretKind::Live);
        for place in 8..secret.expose().len() {
            let mut text = secret.expose().to_owned().into_bytes();
            text[place] = if text[place] == b'a' { b'b' } else { b'a' };
            let text = String::from_utf8(text).expect("ASCII");
            assert_eq!(Secret::check(&text), Err(SecretError::Checksum), "{place}");
        }
    }

    #[test]
    fn checksum_is_crc32_ieee_in_base62_zero_padded() {
        // CRC-32 of "123456789" is 0xCBF43926 (the check value of the catalogue of CRC algorithms).
        assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926);
        assert_eq!(&checksum(b"123456789"), b"3jZRME");
        assert_eq!(&checksum(b""), b"000000");
    }

    #[test]
    fn a_hash_is_sha256_whatever_the_length() {
        // FIPS 180-4's example of one block.
        assert_eq!(KeyHash::of("abc").0[..4], [0xba, 0x78, 0x16, 0xbf]);
        let text = "x".repeat(200);
        for length in 0..=text.len() {
            let digest: [u8; 32] = Sha256::digest(&text[..length]).into();
            assert_eq!(KeyHash::of(&text[..length]).0, digest, "{length}");
        }
    }

    #[test]
    fn debug_never_shows_the_secret() {
        let secret = Secret::generate(SecretKind::Live);
        assert!(!format!("{secret:?}").contains(&secret.expose()[8..]));
    }
}
