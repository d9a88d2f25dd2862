//! Changes of headers on their way through.

use http::{HeaderName, HeaderValue, header};
use store::model::HeaderEdits;

use crate::admin::input::Field;

/// Headers that are set, and as many that are removed.
const MAX_HEADERS: usize = 32;
const NAME_FORM: &str = "a header's name, none of those that frame a message or that the gateway sets itself";

/// Headers of the connection, of the message's framing, and the gateway's own.
const RESERVED: [HeaderName; 12] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    header::VIA,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("x-request-id"),
];

/// `{set, remove}`.
pub(super) fn read(field: Field<'_>) -> Option<HeaderEdits> {
    let mut object = field.object()?;
    let set = object.optional("set").map_or(Some(Vec::new()), |field| {
        field.entries(MAX_HEADERS, |key, field| {
            let Some(name) = name(key) else {
                return field.refuse(format!("{key:?} does not fit; expected {NAME_FORM}"));
            };
            let value = field.text("a header's value: visible ASCII, spaces and tabs", |text| {
                text.len() <= 4_096 && HeaderValue::from_str(text).is_ok_and(|value| value.to_str().is_ok())
            })?;
            Some((name, value))
        })
    });
    let remove = object.optional("remove").map_or(Some(Vec::new()), |field| {
        field.list(MAX_HEADERS, |item| item.parsed(NAME_FORM, |text| name(text).ok_or(())))
    });
    Some(HeaderEdits { set: set?.into_iter().collect(), remove: remove? })
}

/// The name in lower case, when a route may change it.
fn name(text: &str) -> Option<String> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok()?;
    (!RESERVED.contains(&name) && !name.as_str().starts_with("x-tollgate-")).then(|| name.as_str().to_owned())
}
