//! Queries and bodies of admin requests, for the fuzzer.

use super::{accounts, input, params::Params, routes, tiers, upstreams};

/// A query with every kind of parameter.
pub(crate) fn query(bytes: &[u8]) {
    let Ok(uri) = format!("/x?{}", String::from_utf8_lossy(bytes)).parse() else { return };
    let Ok(mut params) = Params::of(&http::Method::GET, &uri) else { return };
    params.page();
    for name in ["since", "until"] {
        params.time(name);
    }
    params.name("route");
    params.slug("account");
    params.short("q");
    params.parsed::<u16>("status", "a status");
    params.choice("by", &[("key", 1), ("route", 2)]);
    params.flag("prune");
    let _ = params.finish();
}

/// A body, read as each resource.
pub(crate) fn bodies(bytes: &[u8]) {
    let Ok(value) = input::parse(bytes) else { return };
    let _ = input::read(value.clone(), |object| tiers::read(object, "name"));
    let _ = input::read(value.clone(), |object| routes::read(object, "name"));
    let _ = input::read(value.clone(), |object| upstreams::read(object, "name"));
    let _ = input::read::<accounts::Form>(value, |object| accounts::Form::read(object, &mut NoTiers));
}

struct NoTiers;

impl accounts::Tiers for NoTiers {
    fn has_tier(&mut self, name: &str) -> bool {
        // Both ways.
        name.len().is_multiple_of(2)
    }
}
