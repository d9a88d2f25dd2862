//! What a node may spend: rate limits, concurrency and quotas.
//!
//! The stack makes one call, [`Leases::acquire`]. Rates and concurrency are decided by the leader of the account's ledger
//! group (in its memory); quotas are spent from slices that are reserved in the replicated state.

mod grant;

pub use grant::{Demand, Denied, Grant, Policy, Refusal, Standing};

/// The node's leases.
#[derive(Debug)]
pub struct Leases {}

impl Leases {
    /// Takes one unit of every rate limit and of the concurrency, and the demanded units of every quota; all or none.
    ///
    /// Answers from memory when this node leads the account's group and holds quota units; else it waits for the leader.
    ///
    /// # Errors
    /// [`Denied::Refused`] by a policy, or [`Denied::Unavailable`] without a leader within the commit deadline.
    pub async fn acquire(&self, _demand: Demand<'_>) -> Result<Grant, Denied> {
        todo!()
    }
}
