//! `/v1/tiers`.

use serde_json::{Value, json};
use store::model::Tier;

use super::{
    draft::{Draft, Kind},
    forms::{self, Expiry},
    input::{self, Object},
    named::Named,
    problem::Result,
};

impl Named for Tier {
    fn checked(draft: &mut Draft<'_>, name: &str, body: Value) -> Result<Self> {
        let given = body["routes"].clone();
        input::read(body, |object| {
            let tier = read(object, name)?;
            // What it names already may be of a time when that was not looked at.
            let before = draft.tier(name).ok().and_then(|slot| slot.value.as_ref()?.routes.clone()).unwrap_or_default();
            for route in tier.routes.iter().flatten().filter(|route| !before.contains(route)) {
                if draft.route(route).is_ok_and(|slot| slot.value.is_none()) {
                    let place = given.as_array().and_then(|all| all.iter().position(|one| *one == **route));
                    object.tell_item("routes", place.unwrap_or_default(), Draft::missing(Kind::Route, route));
                }
            }
            Some(tier)
        })
    }
}

/// A tier from a body; the name is the path's.
pub(crate) fn read(object: &mut Object<'_>, path_name: &str) -> Option<Tier> {
    object.fixed("name", &json!(path_name));
    object.answered("revision");
    let name = object.name(path_name, forms::is_name);
    let policies = forms::policies(object, Expiry::Never);
    let concurrency = object.optional("concurrency").map_or(Some(None), |field| field.whole(1..=1_000_000).map(Some));
    let max_body_bytes =
        object.optional("max_body_bytes").map_or(Some(None), |field| field.whole(0..=forms::MAX_WHOLE).map(Some));
    let routes = object.optional("routes").map_or(Some(None), |field| forms::names(field).map(Some));
    let log_retention_days =
        object.optional("log_retention_days").map_or(Some(None), |field| field.whole(1..=3_650).map(Some));
    let (limits, quotas) = policies?;
    Some(Tier {
        name: name?,
        limits,
        quotas,
        concurrency: concurrency?,
        max_body_bytes: max_body_bytes?,
        routes: routes?,
        log_retention_days: log_retention_days?,
        revision: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_tier_reads_and_what_is_shown_reads_back() {
        let body = json!({
            "name": "free",
            "limits": [{ "name": "per-second", "per": ["key", "route"], "rate": "5/s", "burst": 15 }],
            "quotas": [{ "name": "daily", "unit": "requests", "limit": 10_000, "period": "day", "timezone": "UTC", "overage": "block" }],
            "concurrency": 20, "max_body_bytes": 500_000, "routes": ["scan"], "log_retention_days": 7,
        });
        let tier = input::read(body, |object| read(object, "free")).expect("reads");
        assert_eq!(
            (tier.concurrency, tier.max_body_bytes, tier.log_retention_days),
            (Some(20), Some(500_000), Some(7))
        );
        let again = input::read(json!(tier), |object| read(object, "free")).expect("reads back");
        assert_eq!(again, tier);
    }

    #[test]
    fn another_name_an_unknown_field_and_a_bad_name_are_refused() {
        let refused = |body, name: &str| {
            let problem = input::read(body, |object| read(object, name)).expect_err("refused");
            problem.errors().iter().map(|error| error.pointer.clone()).collect::<Vec<_>>()
        };
        assert_eq!(refused(json!({ "name": "pro", "burst": 3 }), "free"), ["/name", "/burst"]);
        assert_eq!(refused(json!({}), "Not A Name"), ["/name"]);
        assert_eq!(refused(json!({ "concurrency": 0, "log_retention_days": 0 }), "free").len(), 2);
    }
}
