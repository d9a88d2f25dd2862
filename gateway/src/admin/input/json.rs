//! JSON into values, within bounds that are kept while it is read.
//!
//! A value takes some fifty times the memory of its shortest text, so a body is not read whole before somebody counts. A name
//! that an object has twice is refused: readers differ in which of the two they take (RFC 8259 §4). Where reading ended is told
//! by line and column and by a pointer, which is put together on the way out of what was being read: a good body costs nothing.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::escaped;
use crate::admin::problem::{Code, FieldError, Problem, Result};

/// Items of one list: as many accounts as a document can have.
const MAX_ITEMS: usize = 100_000;
/// Objects and lists in all: some 200 MB at most.
const MAX_NESTED: usize = 250_000;
/// Characters that are told of one name.
const MAX_NAME_CHARS: usize = 60;

/// Reads a body.
///
/// # Errors
/// It is no JSON (400), or too much of it (413).
pub(super) fn parse(body: &[u8]) -> Result<Value> {
    bounded(body, MAX_ITEMS, MAX_NESTED)
}

fn bounded(body: &[u8], items: usize, nested: usize) -> Result<Value> {
    let bounds = Bounds { items, nested: Cell::new(nested), breached: Cell::new(false), within: RefCell::default() };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = Seed(&bounds).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| {
        let (code, what) = if bounds.breached.get() {
            (Code::BodyTooLarge, "the body has too much in it")
        } else {
            (Code::MalformedBody, "the body is not JSON")
        };
        let pointer = bounds.within.borrow().iter().rev().map(|part| format!("/{part}")).collect();
        let told = FieldError { pointer, detail: error.to_string() };
        Problem::new(code, format!("{what}: {error}")).with_places(vec![told])
    })
}

struct Bounds {
    items: usize,
    nested: Cell<usize>,
    breached: Cell<bool>,
    /// What was being read when it ended, the innermost first.
    within: RefCell<Vec<String>>,
}

impl Bounds {
    fn take<E: Error>(&self) -> std::result::Result<(), E> {
        match self.nested.get().checked_sub(1) {
            Some(left) => {
                self.nested.set(left);
                Ok(())
            }
            None => Err(self.breach(format_args!("more than {MAX_NESTED} objects and lists"))),
        }
    }

    /// Notes on the way out where it was.
    fn was_in(&self, part: &str) {
        self.within.borrow_mut().push(escaped(&start_of(part)));
    }

    fn breach<E: Error>(&self, what: fmt::Arguments<'_>) -> E {
        self.breached.set(true);
        E::custom(what)
    }
}

#[derive(Clone, Copy)]
struct Seed<'b>(&'b Bounds);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> std::result::Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E: Error>(self, text: String) -> std::result::Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        self.0.take::<A::Error>()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self).inspect_err(|_| self.0.was_in(&list.len().to_string()))? {
            if list.len() >= self.0.items {
                return Err(self.0.breach(format_args!("more than {MAX_ITEMS} items in one list")));
            }
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Value, A::Error> {
        self.0.take::<A::Error>()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                self.0.was_in(&key);
                return Err(A::Error::custom(format_args!("an object has {:?} twice", start_of(&key))));
            }
            let value = entries.next_value_seed(self).inspect_err(|_| self.0.was_in(&key))?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

fn start_of(name: &str) -> String {
    name.chars().take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serde_reads_is_read_the_same() {
        for text in [
            "null",
            "true",
            "-5",
            "18446744073709551615",
            "1.5e3",
            "\"x\\u00e9\"",
            "[]",
            "{}",
            " [1, {\"a\": [null, \"b\"]}, 2] ",
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(serde_json::from_str::<Value>(text).expect("JSON")), "{text}");
        }
        for bad in ["", "{", "[1,]", "{} x", "\"\u{1}\"", &"[".repeat(1_000)] {
            assert_eq!(parse(bad.as_bytes()).map_err(|problem| problem.code()), Err(Code::MalformedBody), "{bad}");
        }
    }

    #[test]
    fn a_name_that_comes_twice_is_refused_with_its_place() {
        let problem = parse(b"{\"tier\": \"a\",\n \"in\": {\"x\": 1, \"x\": 1}}").expect_err("refused");
        assert_eq!(problem.code(), Code::MalformedBody);
        let told = format!("{problem:?}");
        assert!(told.contains("\\\"x\\\" twice") && told.contains("line 2"), "{told}");
    }

    #[test]
    fn where_reading_ended_is_pointed_to() {
        let pointer = |text: &str| {
            let problem = parse(text.as_bytes()).expect_err("refused");
            problem.errors().iter().map(|error| error.pointer.clone()).collect::<Vec<_>>()
        };
        assert_eq!(pointer(r#"{"tier": "a", "a/b": [1, {"x": 1, "x": 2}]}"#), ["/a~1b/1/x"]);
        assert_eq!(pointer(r#"{"tier": "a", "tier": "b"}"#), ["/tier"]);
        assert_eq!(pointer(r#"{"operations": [{}, {"body": {"id": tru"#), ["/operations/1/body/id"]);
        assert_eq!(pointer("nonsense"), [""]);
        assert_eq!(pointer(&format!("{{{:?}: x}}", "n".repeat(1_000))), [format!("/{}", "n".repeat(60))]);
    }

    #[test]
    fn the_bounds_end_the_reading() {
        let code = |text: &str| bounded(text.as_bytes(), 3, 5).map(drop).map_err(|problem| problem.code());
        assert_eq!((code("[1, 2, 3]"), code("[1, 2, 3, 4]")), (Ok(()), Err(Code::BodyTooLarge)));
        assert_eq!(
            (code("[[], [], {\"a\": {}}]"), code("[[], [], {\"a\": {\"b\": []}}]")),
            (Ok(()), Err(Code::BodyTooLarge))
        );
        // What comes behind the bound is not looked at.
        assert_eq!(code("[1, 2, 3, 4, nonsense"), Err(Code::BodyTooLarge));
    }
}
