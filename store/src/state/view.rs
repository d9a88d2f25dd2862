//! Tables as they are: what the layers changed over what the main file holds.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    StateError,
    layer::{Live, Puts},
    storage::Main,
    tables::Table,
};
use bytes::Bytes;

/// Changes of a range of one table: what its rows are now, or that they are gone.
pub(super) type Overlay = BTreeMap<Vec<u8>, Option<Bytes>>;

/// Told each row of a walk, key and value; says whether it goes on.
pub(super) type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StateError> + 'v;

/// A range of keys.
#[derive(Debug, Clone)]
pub(super) struct Range {
    pub(super) from: Bound<Vec<u8>>,
    pub(super) to: Bound<Vec<u8>>,
}

impl Range {
    pub(super) fn all() -> Self {
        Self { from: Bound::Unbounded, to: Bound::Unbounded }
    }

    /// Keys that begin so.
    pub(super) fn prefix(prefix: Vec<u8>) -> Self {
        let mut end = prefix.clone();
        while end.pop_if(|byte| *byte == u8::MAX).is_some() {}
        let to = match end.last_mut() {
            Some(byte) => {
                *byte += 1;
                Bound::Excluded(end)
            }
            None => Bound::Unbounded,
        };
        Self { from: Bound::Included(prefix), to }
    }

    /// Only keys after this one.
    pub(super) fn after(mut self, key: Vec<u8>) -> Self {
        self.from = Bound::Excluded(key);
        self
    }

    fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        }
    }

    pub(super) fn of<'p>(
        &self,
        table: Table,
        puts: &'p Puts,
    ) -> impl Iterator<Item = (&'p Vec<u8>, &'p Option<Bytes>)> + use<'p> {
        let tagged = |bound: &Bound<Vec<u8>>| bound.as_ref().map(|key| (table, key.clone()));
        let from = match tagged(&self.from) {
            Bound::Unbounded => Bound::Included((table, Vec::new())),
            bound => bound,
        };
        let rest = puts.range((from, Bound::Unbounded));
        let to = self.to.clone();
        let inside = move |key: &Vec<u8>| match &to {
            Bound::Unbounded => true,
            Bound::Included(to) => key <= to,
            Bound::Excluded(to) => key < to,
        };
        rest.take_while(move |((of, key), _)| *of == table && inside(key)).map(|((_, key), value)| (key, value))
    }
}

/// What the layers, and newer changes over them, say of a range.
pub(super) fn overlay(live: &Live, newer: Option<&Puts>, table: Table, range: &Range) -> Overlay {
    let mut overlay = Overlay::new();
    let layers = live.frozen.iter().map(|layer| &layer.puts).chain([&live.active.puts]).chain(newer);
    for puts in layers {
        overlay.extend(range.of(table, puts).map(|(key, value)| (key.clone(), value.clone())));
    }
    overlay
}

/// Walks a range in order of keys, until `f` says false. `backwards` from its end.
pub(super) fn walk(
    main: &Main,
    table: Table,
    range: &Range,
    overlay: Overlay,
    backwards: bool,
    f: &mut Visit<'_>,
) -> Result<(), StateError> {
    if range.is_empty() {
        return Ok(());
    }
    let open = main.table(table)?;
    let bounds = (range.from.as_ref().map(Vec::as_slice), range.to.as_ref().map(Vec::as_slice));
    let mut stored = open.range::<&[u8]>(bounds).map_err(main.error(table))?;
    let mut overlay = overlay.into_iter();
    let mut stored_next = move || if backwards { stored.next_back() } else { stored.next() };
    let mut overlay_next = move || if backwards { overlay.next_back() } else { overlay.next() };
    let (mut left, mut right) = (stored_next(), overlay_next());
    loop {
        let order = match (&left, &right) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(Ok((key, _))), Some((newer, _))) => {
                let order = key.value().cmp(newer);
                if backwards { order.reverse() } else { order }
            }
            (Some(Err(_)), Some(_)) => std::cmp::Ordering::Less,
        };
        let goes_on = if order.is_lt() {
            let (key, value) = left.take().expect("compared above").map_err(main.error(table))?;
            f(key.value(), value.value())?
        } else {
            match right.take() {
                Some((key, Some(value))) => f(&key, &value)?,
                _ => true,
            }
        };
        if !goes_on {
            return Ok(());
        }
        if order.is_le() {
            left = stored_next();
        }
        if order.is_ge() {
            right = overlay_next();
        }
    }
}
