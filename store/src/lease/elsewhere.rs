//! A request whose account is on its way to another ledger group: it waits, and is decided there.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Leases,
    acquire::{Stop, round},
    deny::nobody,
    grant::{Demand, Denied, Grant},
    handle::Handle,
    held::Held,
    unavailable,
    wait::{LOOK_AGAIN, again, wait},
};

/// How long a request waits for a slot that is on its way to another ledger group: longer than one stays closed when a node
/// dies meanwhile.
const MOVE_WITHIN: Duration = Duration::from_secs(6);

impl Leases {
    /// Waits until the account's slot is open, and asks the group that it is in then.
    pub(super) async fn acquire_elsewhere(&self, demand: Demand<'_>) -> Result<Grant, Denied> {
        let until = Instant::now() + MOVE_WITHIN;
        let mut pause = LOOK_AGAIN.0;
        loop {
            let place = self.inner.authority.place(&demand.key.account.id);
            let group = self.inner.group(place.group);
            if place.is_open {
                let handle = Handle::of(&group, &demand.key.account);
                let mut held = Held::new(handle, demand.now);
                let (mut promises, mut has_quotas) = (None, false);
                let lacking = round(&mut held, &mut promises, &mut has_quotas, &demand);
                match wait(held, has_quotas, lacking, demand).await {
                    Ok(grant) => return Ok(grant),
                    Err(Stop::Denied(denied)) => return Err(denied),
                    Err(Stop::Moved) => {}
                }
            }
            if again(&mut pause, until).await.is_err() {
                return Err(nobody(&group, unavailable("the account is on its way to another ledger group")));
            }
        }
    }
}
