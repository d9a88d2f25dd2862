//! A list that is nearly always of one or two: kept in place, so that a decision allocates nothing for it.

/// Kept in place up to this many.
const IN_PLACE: usize = 2;

#[derive(Debug, Clone)]
pub(super) struct Few<T> {
    in_place: [Option<T>; IN_PLACE],
    /// Boxed, so that an empty one costs a word.
    #[allow(clippy::box_collection, reason = "nearly always none")]
    more: Option<Box<Vec<T>>>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { in_place: [const { None }; IN_PLACE], more: None }
    }
}

impl<T> Few<T> {
    pub(super) fn push(&mut self, item: T) {
        match self.in_place.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(item),
            None => self.more.get_or_insert_default().push(item),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.in_place.iter().flatten().chain(self.more.iter().flat_map(|more| more.iter()))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.in_place.iter_mut().flatten().chain(self.more.iter_mut().flat_map(|more| more.iter_mut()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_place[0].is_none()
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = T> {
        let all = std::mem::take(self);
        all.in_place.into_iter().flatten().chain(all.more.into_iter().flat_map(|more| *more))
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut few = Self::default();
        items.into_iter().for_each(|item| few.push(item));
        few
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_all_in_order() {
        for count in 0..6 {
            let mut few: Few<u32> = (0..count).collect();
            assert_eq!(few.is_empty(), count == 0);
            few.iter_mut().for_each(|n| *n += 1);
            assert!(few.iter().copied().eq(1..=count));
            assert!(few.take().eq(1..=count));
            assert!(few.is_empty());
        }
    }
}
