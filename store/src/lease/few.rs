//! A list that is nearly always of one or two: kept in place, so that a decision allocates nothing for it.

use smallvec::SmallVec;

pub(super) type Few<T> = SmallVec<[T; 2]>;
