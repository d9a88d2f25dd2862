//! What a room above keeps with an account's view, so that a request that has found its key needs no second look-up.
//!
//! The view is made anew whenever the account or its policies change, and an attachment goes with it; so an attachment may
//! hold what follows from the policies.

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock},
};

/// One value of any type, set once; and another one, for when the first has become useless.
#[derive(Default)]
pub struct Attachment(OnceLock<Arc<dyn Any + Send + Sync>>, OnceLock<Box<Self>>);

impl Attachment {
    /// The value, if it is of this type; made by `make` where there is none yet.
    pub fn get_or_init<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> Arc<T>) -> Option<&T> {
        self.0.get_or_init(|| make()).downcast_ref()
    }

    /// As [`Attachment::get_or_init`], to be kept.
    pub fn shared<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get()?.clone().downcast().ok()
    }

    /// Where the next value is.
    pub fn next(&self) -> &Self {
        self.1.get_or_init(Box::default)
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "Attachment(set)" } else { "Attachment(none)" })
    }
}
