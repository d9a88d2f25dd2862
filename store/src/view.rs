//! What is read: the key directory in memory, queries, usage.

mod directory;
mod policy;
mod routing;

pub use directory::{AccountView, Directory, FoundKey};
pub use policy::{LimitPolicy, Policies, QuotaPolicy};
pub use routing::{RouteTable, RouteView, UpstreamView};
