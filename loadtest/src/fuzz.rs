//! What reads files and flags, by name, for the fuzzer (`.ci/fuzz`) and for a test that feeds each a little. No run calls it.

use std::io::Cursor;

use crate::{chaos, shape, trace};

/// A parser and its name. What it returns does not matter: it must neither panic nor take memory that the bytes do not.
pub type Target = (&'static str, fn(&[u8]));

/// All of the load tester.
pub const TARGETS: &[Target] = &[("traces", traces), ("shapes", shapes)];

/// Each format of traces; HAR, which a thread reads, only now and then.
fn traces(bytes: &[u8]) {
    let (har, text) = bytes.split_first().map_or((false, bytes), |(first, rest)| (first.is_multiple_of(16), rest));
    trace::read_all_for_fuzz(|| Cursor::new(text.to_vec()), har);
}

fn shapes(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = shape::parse(&text, shape::Unit::Requests(Some(100.0)));
    let _ = shape::parse(&text, shape::Unit::Factor);
    let _ = shape::duration(&text);
    let _ = shape::rate(&text);
    let _ = chaos::parse(&text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_parser_panics_on_random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512), text in "[ -~\n]{0,300}") {
            for (_, target) in TARGETS {
                target(&bytes);
                target(text.as_bytes());
            }
        }
    }
}
