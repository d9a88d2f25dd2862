//! How often an address may try: to sign in, where each visit makes this node ask the provider, or with tokens that are not known.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Mutex,
    time::{Duration, Instant},
};

/// Addresses that are kept; when none of them can be forgotten, a new one waits.
const MAX_ADDRESSES: usize = 4_096;

/// GCRA an address: so many a minute, all of them at once if need be.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Between two tries.
    every: Duration,
    /// Until when each address has used up its tries.
    until: Mutex<HashMap<IpAddr, Instant>>,
}

impl Throttle {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { every: Duration::from_secs(60) / per_minute.max(1), until: Mutex::default() }
    }

    /// Counts a try.
    ///
    /// # Errors
    /// How long until the next one.
    pub(super) fn count(&self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let minute = Duration::from_secs(60);
        let from = network_of(from);
        let mut until = self.until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if until.len() >= MAX_ADDRESSES && !until.contains_key(&from) {
            until.retain(|_, until| *until > now);
            if until.len() >= MAX_ADDRESSES {
                return Err(self.every);
            }
        }
        let used = until.entry(from).or_insert(now);
        let next = (*used).max(now) + self.every;
        let ahead = next - now;
        if ahead > minute {
            return Err(ahead - minute);
        }
        *used = next;
        Ok(())
    }
}

/// An IPv6 host has a whole /64.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_tries_a_minute_and_another_its_own() {
        let throttle = Throttle::new(3);
        let (from, other) = ("10.0.0.1".parse().expect("reads"), "10.0.0.2".parse().expect("reads"));
        let now = Instant::now();
        assert!((0..3).all(|_| throttle.count(from, now).is_ok()));
        assert_eq!(throttle.count(from, now), Err(Duration::from_secs(20)));
        assert_eq!(throttle.count(other, now), Ok(()));
        assert_eq!(throttle.count(from, now + Duration::from_secs(20)), Ok(()));
        assert!(throttle.count(from, now + Duration::from_secs(20)).is_err());
    }

    #[test]
    fn a_network_is_one_address_and_their_number_is_bounded() {
        let throttle = Throttle::new(1);
        let now = Instant::now();
        let at = |text: &str| text.parse::<IpAddr>().expect("reads");
        assert_eq!(throttle.count(at("2001:db8::1"), now), Ok(()));
        assert!(throttle.count(at("2001:db8::2"), now).is_err());
        assert_eq!(throttle.count(at("2001:db8:0:1::2"), now), Ok(()));
        for i in 2..u32::try_from(MAX_ADDRESSES).expect("fits") {
            assert_eq!(throttle.count(IpAddr::V4(i.into()), now), Ok(()));
        }
        assert!(throttle.count(at("10.9.9.9"), now).is_err());
        assert_eq!(throttle.count(at("10.9.9.9"), now + Duration::from_secs(61)), Ok(()));
        assert_eq!(throttle.until.lock().expect("no holder panics").len(), 1);
    }
}
