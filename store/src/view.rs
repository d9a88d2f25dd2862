//! What is read: the key directory in memory.
//!
//! One writer (apply of group 0) changes it, the request path reads it without a lock: a look-up reads an index of
//! atomics, one 64-byte record and the account. It never waits for the writer, who may be in the middle of a snapshot.

mod attachment;
mod directory;
mod edit;
mod hold;
mod index;
pub(crate) mod number;
mod own;
mod placed;
mod policy;
mod record;
mod routing;
mod slots;
mod tables;

pub use attachment::{Attached, Attachment};
pub use directory::{AccountView, Directory, FoundKey};
pub use edit::Edit;
pub use placed::PlaceOfAccount;
pub use policy::{LimitPolicy, Policies, QuotaPolicy};
pub use routing::{RoutePlace, RouteTable, RouteView, UpstreamView, are_rivals};
