//! The tables as a thread holds them: taken hold of when there are newer ones, not for each look-up.

use std::{
    cell::RefCell,
    ptr,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use arc_swap::{ArcSwap, cache::Cache};

use super::tables::Tables;

type Published = Arc<ArcSwap<Tables>>;

thread_local! {
    /// Of the directory that this thread looked keys up in last; nearly always there is one. It keeps this version of the tables
    /// from being freed: a thread that has nothing to do lets go of it.
    static HELD: RefCell<Option<Cache<Published, Arc<Tables>>>> = const { RefCell::new(None) };
}

/// What comes of acting with the newest tables: newest still when `act` has returned, so that all that it has read was so at
/// one instant. Writes nothing that other threads read; `act` publishes nothing.
#[inline]
pub(super) fn with_newest<T>(published: &Published, act: impl Fn(&Tables) -> T) -> T {
    HELD.with_borrow_mut(|held| {
        let cache = match held {
            Some(cache) if ptr::eq(cache.arc_swap(), &**published) => cache,
            _ => held.insert(Cache::new(Arc::clone(published))),
        };
        loop {
            let tables = cache.load();
            let (address, out) = (Arc::as_ptr(tables), act(tables));
            fence(Ordering::Acquire);
            // The cache holds them until this call, so no others can have had their address.
            if ptr::eq(Arc::as_ptr(cache.load()), address) {
                return out;
            }
        }
    })
}

/// Lets go of the tables that this thread holds.
pub(super) fn let_go() {
    // None of a thread that ends.
    let _ = HELD.try_with(RefCell::take);
}
