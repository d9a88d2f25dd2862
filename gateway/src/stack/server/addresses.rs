//! Connections of each client address, where one address may not have all of them (`max_connections_per_address`).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Bits of an IPv6 address that are a host's own to choose.
const IPV6_HOST_BITS: u32 = 64;

/// The counts of a node; as many entries as there are connections at most.
#[derive(Debug, Default)]
pub(super) struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// A connection's place among those of its address, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// A place for one more connection of an address; none when it has `bound` already.
    pub(super) fn place(self: &Arc<Self>, address: IpAddr, bound: usize) -> Option<Place> {
        let address = network(address);
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= bound {
            return None;
        }
        *count += 1;
        Some(Place { addresses: self.clone(), address })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Whom an address belongs to: an IPv6 host has a whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> IPV6_HOST_BITS << IPV6_HOST_BITS).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let addresses = Arc::new(Addresses::default());
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let one = addresses.place(address("10.0.0.1"), 2);
        let two = addresses.place(address("::ffff:10.0.0.1"), 2);
        assert!(one.is_some() && two.is_some());
        assert!(addresses.place(address("10.0.0.1"), 2).is_none());
        assert!(addresses.place(address("10.0.0.2"), 2).is_some());
        drop(one);
        assert!(addresses.place(address("10.0.0.1"), 2).is_some());
        let here = addresses.place(address("2001:db8:0:1::1"), 1);
        assert!(addresses.place(address("2001:db8:0:1:ffff::2"), 1).is_none(), "the same /64");
        assert!(addresses.place(address("2001:db8:0:2::1"), 1).is_some());
        drop((here, two));
        assert!(addresses.counts().is_empty(), "nothing is kept of who is gone");
    }
}
