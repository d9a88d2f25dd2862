//! Lines of a trace.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The version that is written and read.
pub(crate) const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// The format's version; the name says what the file is.
    pub(crate) tollgate_trace: u32,
    /// When `t` is 0, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<String>,
    /// Where it comes from, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Nanoseconds since the start.
    pub(crate) t: u64,
    /// Method.
    pub(crate) m: String,
    /// Path and query.
    pub(crate) p: String,
    /// The key's pseudonym.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) k: Option<String>,
    /// The account's pseudonym.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) a: Option<String>,
    /// The body, or its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) b: Option<Body>,
    /// Headers that are to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) h: Option<BTreeMap<String, String>>,
    /// The status that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) s: Option<u16>,
    /// Nanoseconds that it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) d: Option<u64>,
}

/// A body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// So many bytes, made up when they are sent.
    Bytes(u64),
    /// This text.
    Text(String),
}

impl Body {
    /// Of some bytes: their text, or how many they are when they are none.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        let count = bytes.len() as u64;
        String::from_utf8(bytes).map_or(Self::Bytes(count), Self::Text)
    }

    /// How long it is.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => *bytes,
            Self::Text(text) => text.len() as u64,
        }
    }

    /// What is sent for it.
    pub(crate) fn content(&self) -> Bytes {
        match self {
            Self::Bytes(bytes) => filler(*bytes),
            Self::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    /// What is sent for it, as text.
    pub(crate) fn content_text(&self) -> String {
        String::from_utf8_lossy(&self.content()).into_owned()
    }
}

/// Longest body that is made up.
const MAX_BODY_BYTES: u64 = 16 * 1024 * 1024;

/// A body of so many bytes: JSON with one long text, when there is room for that.
fn filler(bytes: u64) -> Bytes {
    const FRAME: &str = r#"{"payload":""}"#;
    let bytes = usize::try_from(bytes.min(MAX_BODY_BYTES)).expect("16 MiB");
    match bytes.checked_sub(FRAME.len()) {
        Some(rest) => format!(r#"{{"payload":"{}"}}"#, "x".repeat(rest)).into(),
        None => "x".repeat(bytes).into(),
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.serialize_u64(*bytes),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Body;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a body's text or its bytes")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Body, E> {
                Ok(Body::Bytes(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Body, E> {
                Ok(Body::Text(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Body, E> {
                Ok(Body::Text(text))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_body_has_its_length() {
        for bytes in [0, 1, 13, 14, 15, 1_000] {
            assert_eq!(filler(bytes).len() as u64, bytes);
        }
        assert!(serde_json::from_slice::<serde_json::Value>(&filler(100)).is_ok());
    }
}
