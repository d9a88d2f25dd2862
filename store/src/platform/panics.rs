//! A panic is a defect, and a node with a defect must not go on: the process ends. But one panic is expected: a library's over
//! a damaged page of a file, which is told as that.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    process,
};

thread_local! {
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// From now on a panic ends the process (`SIGABRT`, after it was told), but for a library's over damaged bytes, which the
/// store expects.
pub fn end_process_on_panic() {
    let tell = take_hook();
    set_hook(Box::new(move |panic| {
        if EXPECTED.get() {
            tracing::warn!(%panic, "damaged bytes");
            return;
        }
        tell(panic);
        process::abort();
    }));
}

/// What it gives; none when it panics.
pub(crate) fn expected<T>(act: impl FnOnce() -> T) -> Option<T> {
    let before = EXPECTED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(act)).ok();
    EXPECTED.set(before);
    done
}
