//! Reads JSON bodies and tells everything that is wrong with one at once, each with its pointer.
//!
//! serde stops at the first error, so bodies are read as values and walked here. A field is taken from its object once;
//! what is left when the object is dropped is unknown and refused. A reader returns `None` after telling what is wrong.

mod json;

use std::{cell::RefCell, ops::RangeInclusive};

use serde_json::{Map, Value};

use super::problem::{Code, FieldError, Problem, Result};

/// What is wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Errors(RefCell<Vec<FieldError>>);

impl Errors {
    fn tell(&self, pointer: String, detail: impl Into<String>) {
        self.0.borrow_mut().push(FieldError { pointer, detail: detail.into() });
    }
}

/// Parses a body's bytes; an empty body is an empty object.
pub(crate) fn parse(body: &[u8]) -> Result<Value> {
    if body.trim_ascii().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    json::parse(body)
}

/// Parses a body's bytes; an empty body is refused: it may have got lost on the way.
pub(crate) fn required(body: &[u8]) -> Result<Value> {
    if body.trim_ascii().is_empty() {
        let told = FieldError { pointer: String::new(), detail: "is required".into() };
        return Err(Problem::invalid(Code::MalformedBody, vec![told]));
    }
    parse(body)
}

/// Walks a JSON object with `reader`.
pub(crate) fn read<T>(value: Value, reader: impl FnOnce(&mut Object<'_>) -> Option<T>) -> Result<T> {
    match read_some(value, reader) {
        (Some(read), told) if told.is_empty() => Ok(read),
        (_, told) if told.is_empty() => Err(Problem::new(Code::InvalidBody, "the body could not be read")),
        (_, told) => Err(Problem::invalid(Code::InvalidBody, told)),
    }
}

/// The same: what could be read, beside all that is wrong.
pub(crate) fn read_some<T>(
    value: Value,
    reader: impl FnOnce(&mut Object<'_>) -> Option<T>,
) -> (Option<T>, Vec<FieldError>) {
    let errors = Errors::default();
    let root = Field { value, pointer: String::new(), errors: &errors };
    let read = root.object().and_then(|mut object| reader(&mut object));
    (read, errors.0.into_inner())
}

/// A JSON object that is being read.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    map: Map<String, Value>,
    pointer: String,
    asked: Vec<&'static str>,
    errors: &'a Errors,
}

impl<'a> Object<'a> {
    /// A field that may be missing or `null`.
    pub(crate) fn optional(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.asked.push(key);
        let value = self.map.shift_remove(key).filter(|value| !value.is_null())?;
        Some(Field { value, pointer: self.pointer_to(key), errors: self.errors })
    }

    /// A field's text, left where it is.
    pub(crate) fn peek(&self, key: &str) -> Option<String> {
        self.map.get(key).and_then(Value::as_str).map(str::to_owned)
    }

    /// A field that must be there.
    pub(crate) fn required(&mut self, key: &'static str) -> Option<Field<'a>> {
        let field = self.optional(key);
        if field.is_none() {
            self.errors.tell(self.pointer_to(key), "is required");
        }
        field
    }

    /// A field that answers have and callers cannot set: taken and not looked at, so that what was read can be sent back.
    pub(crate) fn answered(&mut self, key: &'static str) {
        let _ = self.optional(key);
    }

    /// A field that was set when the object was made, and stays.
    pub(crate) fn fixed(&mut self, key: &'static str, value: &Value) {
        self.asked.push(key);
        if self.map.shift_remove(key).is_some_and(|given| given != *value) {
            self.tell(key, format!("cannot be changed; it is {value}"));
        }
    }

    /// The name that the path gives, tested like a field's.
    pub(crate) fn name(&self, name: &str, fits: impl FnOnce(&str) -> bool) -> Option<store::model::Name> {
        if fits(name) {
            return Some(name.into());
        }
        self.tell("name", format!("{} does not fit; expected {}", shown(name), super::forms::NAME_FORM));
        None
    }

    /// Tells that something is wrong with one of the object's fields.
    pub(crate) fn tell(&self, key: &str, detail: impl Into<String>) {
        self.errors.tell(self.pointer_to(key), detail);
    }

    /// Tells that something is wrong with an item of one of the object's lists.
    pub(crate) fn tell_item(&self, key: &str, item: usize, detail: impl Into<String>) {
        self.errors.tell(format!("{}/{item}", self.pointer_to(key)), detail);
    }

    fn pointer_to(&self, key: &str) -> String {
        format!("{}/{}", self.pointer, escaped(key))
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        for key in std::mem::take(&mut self.map).keys() {
            let detail = format!("is not a field; expected {}", self.asked.join(", "));
            self.errors.tell(self.pointer_to(key), detail);
        }
    }
}

/// A value that is being read.
#[derive(Debug)]
pub(crate) struct Field<'a> {
    value: Value,
    pointer: String,
    errors: &'a Errors,
}

impl<'a> Field<'a> {
    /// Tells what is wrong.
    pub(crate) fn refuse<T>(&self, detail: impl Into<String>) -> Option<T> {
        self.errors.tell(self.pointer.clone(), detail);
        None
    }

    /// The same, when nothing lies more than `most` levels below it; else the first place that does is told.
    pub(crate) fn no_deeper(self, most: usize) -> Option<Self> {
        match too_deep(&self.value, most) {
            None => Some(self),
            Some(place) => {
                let detail = format!("lies too deep: lists and objects may be {most} within each other");
                self.errors.tell(self.pointer + &place, detail);
                None
            }
        }
    }

    /// The value as it is, to be read later.
    pub(crate) fn into_value(self) -> Value {
        self.value
    }

    fn expected<T>(&self, form: &str) -> Option<T> {
        let kind = match &self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.refuse(format!("is {kind}; expected {form}"))
    }

    /// A text, tested by `fits`; `form` is told when it does not.
    pub(crate) fn text(self, form: &str, fits: impl FnOnce(&str) -> bool) -> Option<String> {
        match &self.value {
            Value::String(text) if fits(text) => Some(text.clone()),
            Value::String(text) => self.refuse(format!("{} does not fit; expected {form}", shown(text))),
            _ => self.expected(form),
        }
    }

    /// A text that is read as something else.
    pub(crate) fn parsed<T, E>(self, form: &str, parse: impl FnOnce(&str) -> std::result::Result<T, E>) -> Option<T> {
        match &self.value {
            Value::String(text) => match parse(text) {
                Ok(parsed) => Some(parsed),
                Err(_) => self.refuse(format!("{} does not fit; expected {form}", shown(text))),
            },
            _ => self.expected(form),
        }
    }

    /// A whole number within a range.
    pub(crate) fn whole<T: TryFrom<u64>>(self, range: RangeInclusive<u64>) -> Option<T> {
        let form = format!("a whole number from {} to {}", range.start(), range.end());
        // JSON knows no whole numbers: 3.0 is 3, as far as a double is exact.
        let whole = |number: f64| {
            (number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number)).then_some(number as u64)
        };
        let number = self.value.as_u64().or_else(|| self.value.as_f64().and_then(whole));
        match number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok()) {
            Some(number) => Some(number),
            None if self.value.is_number() => self.refuse(format!("{} does not fit; expected {form}", self.value)),
            None => self.expected(&form),
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => self.expected("true or false"),
        }
    }

    /// An object whose keys are the caller's, each value read with its key and its own pointer.
    pub(crate) fn entries<T>(self, most: usize, mut each: impl FnMut(&str, Field<'a>) -> Option<T>) -> Option<Vec<T>> {
        let map = match self.value {
            Value::Object(map) if map.len() <= most => map,
            Value::Object(ref map) => {
                return self.refuse(format!("has {} fields; at most {most} fit", map.len()));
            }
            _ => return self.expected("an object"),
        };
        let (pointer, errors, length) = (self.pointer, self.errors, map.len());
        let read: Vec<T> = map
            .into_iter()
            .filter_map(|(key, value)| {
                let pointer = format!("{pointer}/{}", escaped(&key));
                each(&key, Field { value, pointer, errors })
            })
            .collect();
        (read.len() == length).then_some(read)
    }

    /// One of some texts.
    pub(crate) fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Option<T> {
        let form = choices.iter().map(|(text, _)| *text).collect::<Vec<_>>().join(", ");
        let form = format!("one of {form}");
        match &self.value {
            Value::String(text) => match choices.iter().find(|(choice, _)| choice == text) {
                Some((_, choice)) => Some(*choice),
                None => self.refuse(format!("{} does not fit; expected {form}", shown(text))),
            },
            _ => self.expected(&form),
        }
    }

    /// A list; every item is read, also after one that is wrong.
    pub(crate) fn list<T>(self, most: usize, mut each: impl FnMut(Field<'a>) -> Option<T>) -> Option<Vec<T>> {
        let items = match self.value {
            Value::Array(items) if items.len() <= most => items,
            Value::Array(ref items) => return self.refuse(format!("has {} items; at most {most} fit", items.len())),
            _ => return self.expected("a list"),
        };
        let (pointer, errors, length) = (self.pointer, self.errors, items.len());
        let read: Vec<T> = items
            .into_iter()
            .enumerate()
            .filter_map(|(i, value)| each(Field { value, pointer: format!("{pointer}/{i}"), errors }))
            .collect();
        (read.len() == length).then_some(read)
    }

    /// An object whose fields are known.
    pub(crate) fn object(self) -> Option<Object<'a>> {
        match self.value {
            Value::Object(map) => Some(Object { map, pointer: self.pointer, asked: Vec::new(), errors: self.errors }),
            _ => self.expected("an object"),
        }
    }

    /// An object that is the caller's own.
    pub(crate) fn map(self, form: &str, fits: impl FnOnce(&Map<String, Value>) -> bool) -> Option<Map<String, Value>> {
        match self.value {
            Value::Object(map) if fits(&map) => Some(map),
            Value::Object(_) => {
                self.errors.tell(self.pointer, format!("does not fit; expected {form}"));
                None
            }
            _ => self.expected(form),
        }
    }
}

/// Where a list or object lies more than `most` levels deep, the first being the value itself.
fn too_deep(value: &Value, most: usize) -> Option<String> {
    let within = |key: String, value: &Value| Some(format!("/{key}{}", too_deep(value, most - 1)?));
    match value {
        Value::Array(_) | Value::Object(_) if most == 0 => Some(String::new()),
        Value::Array(items) => items.iter().enumerate().find_map(|(n, item)| within(n.to_string(), item)),
        Value::Object(map) => map.iter().find_map(|(key, value)| within(escaped(key), value)),
        _ => None,
    }
}

/// A key as a pointer has it (RFC 6901 §3).
pub(crate) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A caller's text in a message: quoted, and cut.
fn shown(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        format!("{text:?}")
    } else {
        format!("{:?}…", text.chars().take(MOST).collect::<String>())
    }
}

/// RFC 7396: `patch` laid over `target`; `null` removes.
pub(crate) fn merge(target: &mut Value, patch: Value) {
    match patch {
        Value::Object(patch) => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            let map = target.as_object_mut().expect("made one above");
            for (key, value) in patch {
                if value.is_null() {
                    map.shift_remove(&key);
                } else {
                    merge(map.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        other => *target = other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_is_wrong_is_told_at_once_with_its_pointer() {
        let told =
            read(json!({ "a": "x", "list": [1, "2", 70], "odd/one": 1, "in": { "c": "z", "x": 1 } }), |object| {
                let a = object.required("a").and_then(|field| field.whole::<u8>(1..=9));
                let list = object.optional("list").and_then(|field| field.list(9, |item| item.whole::<u8>(0..=50)));
                let missing = object.required("missing").and_then(|field| field.text("text", |_| true));
                let inner = object
                    .optional("in")
                    .and_then(Field::object)
                    .and_then(|mut inner| inner.optional("c").and_then(|field| field.choice(&[("u", 1), ("v", 2)])));
                Some((a?, list?, missing?, inner?))
            })
            .expect_err("refused");
        let body = told.render("id");
        assert_eq!(body.status().as_u16(), 422);
        let lines: Vec<String> = told.errors().iter().map(|e| format!("{} {}", e.pointer, e.detail)).collect();
        assert_eq!(
            lines,
            [
                "/a is a text; expected a whole number from 1 to 9",
                "/list/1 is a text; expected a whole number from 0 to 50",
                "/list/2 70 does not fit; expected a whole number from 0 to 50",
                "/missing is required",
                "/in/c \"z\" does not fit; expected one of u, v",
                "/in/x is not a field; expected c",
                "/odd~1one is not a field; expected a, list, missing, in",
            ]
        );
    }

    #[test]
    fn broken_json_is_told_with_line_and_column() {
        let told = parse(b"{\n \"a\": }").expect_err("refused");
        assert_eq!(told.code(), Code::MalformedBody);
        assert!(format!("{told:?}").contains("line 2 column 7"), "{told:?}");
    }

    #[test]
    fn merge_patch_follows_the_examples_of_rfc_7396() {
        for (target, patch, merged) in [
            (json!({ "a": "b" }), json!({ "a": "c" }), json!({ "a": "c" })),
            (json!({ "a": "b", "b": "c" }), json!({ "a": null }), json!({ "b": "c" })),
            (json!({ "a": ["b"] }), json!({ "a": "c" }), json!({ "a": "c" })),
            (json!({ "a": { "b": "c" } }), json!({ "a": { "b": "d", "c": null } }), json!({ "a": { "b": "d" } })),
            (json!({}), json!({ "a": { "bb": { "ccc": null } } }), json!({ "a": { "bb": {} } })),
            (json!({ "e": null }), json!({ "a": 1 }), json!({ "e": null, "a": 1 })),
        ] {
            let mut target = target;
            merge(&mut target, patch);
            assert_eq!(target, merged);
        }
    }
}
