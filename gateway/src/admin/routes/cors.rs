//! What pages of other origins may do.

use http::{HeaderName, Uri};
use store::model::Cors;

use super::is_method;
use crate::admin::input::{Field, Object};

/// Origins, methods, headers: each.
const MAX_ITEMS: usize = 64;
/// Browsers keep a preflight's answer no longer.
const MAX_AGE_SECONDS: u64 = 86_400;

/// `{origins, methods, headers, expose, credentials, max_age_seconds}`.
pub(super) fn read(field: Field<'_>) -> Option<Cors> {
    let mut object = field.object()?;
    let origins = object.required("origins").and_then(|field| {
        field.list(MAX_ITEMS, |item| item.text("an origin like https://app.example.com, or *", is_origin))
    });
    let methods = object.optional("methods").map_or(Some(Vec::new()), |field| {
        field.list(MAX_ITEMS, |item| item.text("a method in upper case, like POST", is_method))
    });
    let headers = names(&mut object, "headers");
    let expose = names(&mut object, "expose");
    let credentials = object.optional("credentials").map_or(Some(false), Field::boolean);
    let max_age_seconds =
        object.optional("max_age_seconds").map_or(Some(None), |field| field.whole(0..=MAX_AGE_SECONDS).map(Some));
    if credentials == Some(true) && origins.as_ref().is_some_and(|origins| origins.iter().any(|origin| origin == "*")) {
        object.tell("credentials", "excludes the origin *: browsers refuse the two together");
    }
    Some(Cors {
        origins: origins?,
        methods: methods?,
        headers: headers?,
        expose: expose?,
        credentials: credentials?,
        max_age_seconds: max_age_seconds?,
    })
}

fn names(object: &mut Object<'_>, key: &'static str) -> Option<Vec<String>> {
    object.optional(key).map_or(Some(Vec::new()), |field| {
        field.list(MAX_ITEMS, |item| {
            item.parsed("a header's name", |text| {
                HeaderName::from_bytes(text.as_bytes()).map(|name| name.as_str().to_owned())
            })
        })
    })
}

/// `scheme://host` or `scheme://host:port`, as browsers write it, or `*`.
fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let parts = text.split_once("://");
    parts.is_some_and(|(scheme, rest)| ["http", "https"].contains(&scheme) && !rest.contains(['/', '?', '#', '@']))
        && text.parse::<Uri>().is_ok_and(|uri| uri.authority().is_some())
        && !text.contains(|c: char| c.is_ascii_uppercase())
}
