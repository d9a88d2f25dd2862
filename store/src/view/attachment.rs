//! What a room above keeps with an account's view, so that a request that has found its key needs no second look-up.
//!
//! The view is made anew whenever the account or its policies change, and an attachment goes with it; so an attachment may
//! hold what follows from the policies.

use std::{
    any::Any,
    fmt,
    hint::black_box,
    sync::{Arc, OnceLock},
};

/// What can be attached: anything.
pub type Attached = dyn Any + Send + Sync;

/// One value of any type, set once; and another one, for when the first has become useless.
#[derive(Default)]
pub struct Attachment {
    value: OnceLock<Arc<Attached>>,
    /// What the value leads to. They are reached from here without it: see [`Attachment::touch`].
    near: [OnceLock<Arc<Attached>>; 2],
    next: OnceLock<Box<Self>>,
}

impl Attachment {
    /// The value, to be kept, if it is of this type; made by `make` where there is none yet, with what it leads to.
    pub fn get_or_init<T: Any + Send + Sync>(
        &self,
        make: impl FnOnce() -> (Arc<T>, [Option<Arc<Attached>>; 2]),
    ) -> Option<Arc<T>> {
        let value = self.value.get_or_init(|| {
            let (value, near) = make();
            for (place, near) in self.near.iter().zip(near) {
                // Set by nobody else: only who makes the value comes here.
                let _ = near.map(|near| place.set(near));
            }
            value
        });
        Arc::clone(value).downcast().ok()
    }

    /// Where the next value is.
    pub fn next(&self) -> &Self {
        self.next.get_or_init(Box::default)
    }

    /// Touches all that is attached. Each of them is a cache miss when the account has not been here for a while: met one after
    /// the other by instructions that wait (locks, counts), they take their sum; read side by side they take as long as one.
    pub(super) fn touch(&self) {
        let all = [&self.near[0], &self.near[1], &self.value];
        black_box(all.map(|place| place.get().map_or(0, Arc::strong_count)));
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.value.get().is_some() { "Attachment(set)" } else { "Attachment(none)" })
    }
}
