//! Names of outcomes and tiers, as small numbers: a request is counted by numbers, a report shows names.

use std::sync::{Arc, Mutex, PoisonError};

/// Most names; further ones are counted as `other`.
const MAX_LABELS: usize = 1_000;
const OTHER: &str = "other";

/// A name's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Label(pub(crate) u16);

/// The names, in the order in which they were first seen. Shared by all threads of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels(Arc<Mutex<Vec<String>>>);

impl Labels {
    /// The number of a name. Walks all names: whoever asks often keeps the answer.
    pub(crate) fn label(&self, name: &str) -> Label {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = names.iter().position(|known| known == name);
        let at = found.unwrap_or_else(|| {
            let name = if names.len() < MAX_LABELS { name } else { OTHER };
            names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name.to_owned());
                names.len() - 1
            })
        });
        Label(u16::try_from(at).expect("fewer than MAX_LABELS + 1"))
    }

    /// The name of a number.
    pub(crate) fn name(&self, label: Label) -> String {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(usize::from(label.0)).cloned().unwrap_or_else(|| OTHER.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded() {
        let labels = Labels::default();
        let first = labels.label("200");
        for n in 0..2 * MAX_LABELS {
            labels.label(&n.to_string());
        }
        assert_eq!(labels.label("200"), first);
        assert_eq!(labels.name(labels.label("never seen")), OTHER);
        assert!(labels.0.lock().expect("not poisoned").len() <= MAX_LABELS + 1);
    }
}
