//! What the request path asks of the ledger, and nothing more.
//!
//! The store implements it by delegation. Generic rather than `dyn`, so that a call costs what the store's does.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use store::{
    CommitError, RowPermit, Store, Unavailable, View,
    lease::{self, Acquiring, Demand, Standing},
    model::{AccountId, Charge, GroupId, KeyHash, Name, Row},
    view::{FoundKey, RouteView, UpstreamView},
};

/// The ledger as the request path sees it.
pub trait Ledger: fmt::Debug + Send + Sync + 'static {
    /// A place in the commit queue.
    type Permit: Permit;
    /// Units taken.
    type Grant: Grant;

    /// Looks a key up by the hash of its secret; memory only.
    fn key(&self, hash: &KeyHash) -> Option<FoundKey>;
    /// The most specific route; memory only.
    fn route(&self, host: Option<&str>, path: &str, method: &str) -> Option<Arc<RouteView>>;
    /// All upstreams as they are configured now.
    fn upstreams(&self) -> Vec<Arc<UpstreamView>>;
    /// The lease on the node's view, taken before something is looked up (P3).
    fn view(&self) -> View;
    /// Whether what was looked up after `view` was taken may still be acted upon.
    fn is_in_force(&self, view: View) -> bool;
    /// Whether the node may decide now by what was looked up after `view` was taken (P3, P5); also that a key is unknown.
    ///
    /// # Errors
    /// It may not: 503, never 401.
    fn check(&self, view: View) -> Result<(), Unavailable>;
    /// A place in the commit queue and fresh contact with the quorum.
    ///
    /// # Errors
    /// [`Unavailable`]; the upstream must not be called.
    fn permit(&self, account: &AccountId, view: View) -> Result<Self::Permit, Unavailable>;
    /// Takes what the request needs of every policy, all or none; at once, where memory decides.
    fn acquire<'a>(&'a self, demand: Demand<'a>) -> Acquiring<'a, Self::Grant>;
    /// Where a client stands, for an answer that takes nothing; memory only.
    fn standings(&self, demand: Demand<'_>) -> Vec<Standing>;
    /// Sends a permit's row to the ledger group that gave the units, where its charges are settled; says which that is.
    ///
    /// # Errors
    /// No contact with that group.
    fn bind(&self, permit: &mut Self::Permit, grant: &Self::Grant) -> Result<GroupId, Unavailable>;
    /// Hands in a row that nobody waits for, to the group that gave the request its units, if it has any.
    fn record(&self, row: Row, group: Option<GroupId>);
}

/// See [`RowPermit`].
pub trait Permit: fmt::Debug + Send + Sync + 'static {
    /// Hands the row in and waits for its quorum.
    fn commit(self, row: Row) -> impl Future<Output = Result<(), CommitError>> + Send + 'static;
}

/// See [`lease::Grant`].
pub trait Grant: fmt::Debug + Send + Sync + 'static {
    /// Where the client stands with every policy.
    fn standings(&self) -> Vec<Standing>;
    /// Policies that would have refused if they were no shadows.
    fn shadows(&self) -> Vec<Name>;
    /// The charges, with the true numbers.
    fn settle(&mut self, content_bytes: u64, cost: u64) -> Vec<Charge>;
    /// The upstream was never called.
    fn refund(self);
    /// The unit of concurrency could not be renewed: a request that still runs must be ended.
    fn has_lapsed(&self) -> bool;
    /// How long it cannot, at the earliest; none without such a unit.
    fn lapses_after(&self) -> Option<Duration>;
}

impl Ledger for Store {
    type Permit = RowPermit;
    type Grant = lease::Grant;

    fn key(&self, hash: &KeyHash) -> Option<FoundKey> {
        self.directory().key(hash)
    }

    fn route(&self, host: Option<&str>, path: &str, method: &str) -> Option<Arc<RouteView>> {
        self.directory().routes().find(host, path, method).cloned()
    }

    fn upstreams(&self) -> Vec<Arc<UpstreamView>> {
        self.directory().routes().upstreams().cloned().collect()
    }

    fn view(&self) -> View {
        Store::view(self)
    }

    fn is_in_force(&self, view: View) -> bool {
        Store::is_in_force(self, view)
    }

    fn check(&self, view: View) -> Result<(), Unavailable> {
        Store::check(self, view)
    }

    fn permit(&self, account: &AccountId, view: View) -> Result<RowPermit, Unavailable> {
        Store::permit(self, account, view)
    }

    fn acquire<'a>(&'a self, demand: Demand<'a>) -> Acquiring<'a, lease::Grant> {
        self.leases().begin(demand)
    }

    fn standings(&self, demand: Demand<'_>) -> Vec<Standing> {
        self.leases().standings(demand)
    }

    fn bind(&self, permit: &mut RowPermit, grant: &lease::Grant) -> Result<GroupId, Unavailable> {
        permit.follow(grant).map(|()| grant.group())
    }

    fn record(&self, row: Row, group: Option<GroupId>) {
        Store::record(self, row, group);
    }
}

impl Permit for RowPermit {
    fn commit(self, row: Row) -> impl Future<Output = Result<(), CommitError>> + Send + 'static {
        RowPermit::commit(self, row)
    }
}

impl Grant for lease::Grant {
    fn standings(&self) -> Vec<Standing> {
        lease::Grant::standings(self)
    }

    fn shadows(&self) -> Vec<Name> {
        lease::Grant::shadows(self)
    }

    fn settle(&mut self, content_bytes: u64, cost: u64) -> Vec<Charge> {
        lease::Grant::settle(self, content_bytes, cost)
    }

    fn refund(self) {
        lease::Grant::refund(self);
    }

    fn has_lapsed(&self) -> bool {
        lease::Grant::has_lapsed(self)
    }

    fn lapses_after(&self) -> Option<Duration> {
        lease::Grant::lapses_after(self)
    }
}
