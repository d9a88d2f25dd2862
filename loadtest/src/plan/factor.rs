//! How many times a record of a trace is sent.

use std::fmt;

use super::keys::hash;

/// Who sends what an amplitude adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Amplitude {
    /// New accounts, each at its original's rate: more customers.
    #[default]
    Clone,
    /// The same accounts, each at a higher rate: they meet their limits.
    Intensify,
}

impl fmt::Display for Amplitude {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Clone { "clone" } else { "intensify" })
    }
}

/// Copies of one record.
#[derive(Debug)]
pub(crate) struct Factor {
    mode: Amplitude,
    random: fastrand::Rng,
    seed: u64,
}

impl Factor {
    /// By a mode; all chance comes from the seed.
    pub(crate) fn new(mode: Amplitude, seed: u64) -> Self {
        Self { mode, random: fastrand::Rng::with_seed(seed), seed }
    }

    /// How many copies a record has at a factor: its whole part, and one more with the chance of the rest. By clone the
    /// chance is the account's, once for all its records: an account is there at its own rate, or not at all.
    pub(crate) fn copies(&mut self, factor: f64, pseudonym: &str) -> u32 {
        let whole = factor.floor();
        let chance = match self.mode {
            Amplitude::Intensify => self.random.f64(),
            Amplitude::Clone => (mixed(hash(pseudonym) ^ self.seed) >> 11) as f64 / (1u64 << 53) as f64,
        };
        whole as u32 + u32::from(chance < factor - whole)
    }
}

/// Spreads a hash's bits (the finaliser of MurmurHash3): FNV's upper bits alone are not even.
pub(crate) fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_has_its_share() {
        let mut intensify = Factor::new(Amplitude::Intensify, 1);
        let sent: u32 = (0..40_000).map(|_| intensify.copies(2.25, "same")).sum();
        assert!((89_000..91_000).contains(&sent), "{sent}");
        let mut clone = Factor::new(Amplitude::Clone, 1);
        let accounts: Vec<String> = (0..40_000).map(|n| format!("account-{n}")).collect();
        let copies: Vec<u32> = accounts.iter().map(|account| clone.copies(0.25, account)).collect();
        let kept: u32 = copies.iter().sum();
        assert!((9_500..10_500).contains(&kept), "{kept}");
        // An account that is there stays.
        assert!(accounts.iter().zip(&copies).all(|(account, copies)| clone.copies(0.25, account) == *copies));
    }
}
