//! The forms that fields of several resources share: names, times, limits and quotas.

use ipnet::IpNet;
use store::{
    lease::CONCURRENCY,
    model::{Dimension, Limit, Name, Overage, Overrides, Period, Quota, Timestamp, Unit, canonical_network},
};

use super::input::{Field, Object};

/// Longest name of anything.
const MAX_NAME_CHARS: usize = 63;
/// Limits or quotas of a tier.
const MAX_POLICIES: usize = 16;
/// Percentages of a quota that raise alerts.
const MAX_THRESHOLDS: usize = 10;
/// Names in a list (scopes, routes).
const MAX_NAMES: usize = 100;
/// Networks of a key.
const MAX_NETWORKS: usize = 100;
/// The largest number that every JSON reader keeps exact (2^53 - 1).
pub(crate) const MAX_WHOLE: u64 = 9_007_199_254_740_991;
/// The largest burst: with the slowest rate its bucket still counts in nanoseconds.
const MAX_BURST: u64 = 100_000_000;

pub(crate) const NAME_FORM: &str = "1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit";
const SCOPE_FORM: &str = "a name like scan, or names parted by colons like scan:write, at most 63 characters";
const LABEL_FORM: &str = "at most 200 characters, no control characters";
const TIME_FORM: &str = "a time like 2026-01-31T12:00:00Z";

/// Whether a text is the name of a tier, route, upstream, limit, quota or region. It fits into a header unquoted.
pub(crate) fn is_name(text: &str) -> bool {
    is_slug(text) && !text.contains(|c: char| c.is_ascii_uppercase())
}

/// Whether a text is a scope: a name, or several that colons part, like `scan:write`.
fn is_scope(text: &str) -> bool {
    text.len() <= MAX_NAME_CHARS && text.split(':').all(is_name)
}

/// Whether a text can be a caller's own id of an account.
pub(crate) fn is_slug(text: &str) -> bool {
    (1..=MAX_NAME_CHARS).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// A name.
pub(crate) fn name(field: Field<'_>) -> Option<Name> {
    field.text(NAME_FORM, is_name).map(Name::from)
}

/// What people call something.
pub(crate) fn label(field: Field<'_>) -> Option<String> {
    field.text(LABEL_FORM, |text| text.chars().count() <= 200 && !text.chars().any(char::is_control))
}

/// A time.
pub(crate) fn time(field: Field<'_>) -> Option<Timestamp> {
    field.parsed(TIME_FORM, str::parse)
}

/// Names; one that is given twice counts once.
pub(crate) fn names(field: Field<'_>) -> Option<Vec<Name>> {
    distinct(field, name)
}

/// Scopes; one that is given twice counts once.
pub(crate) fn scopes(field: Field<'_>) -> Option<Vec<Name>> {
    distinct(field, |item| item.text(SCOPE_FORM, is_scope).map(Name::from))
}

fn distinct(field: Field<'_>, item: impl FnMut(Field<'_>) -> Option<Name>) -> Option<Vec<Name>> {
    let mut names: Vec<Name> = field.list(MAX_NAMES, item)?;
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Some(names)
}

/// Networks; an address without a length is itself alone.
pub(crate) fn networks(field: Field<'_>) -> Option<Vec<IpNet>> {
    field.list(MAX_NETWORKS, |item| {
        item.parsed("a network like 10.0.0.0/8 or 2001:db8::/32, or an address", |text| {
            let net = text.parse::<IpNet>().map(|net| net.trunc());
            net.or_else(|_| text.parse().map(|ip: std::net::IpAddr| ip.into())).map(canonical_network)
        })
    })
}

/// Whether policies may end: those of an account may, those of a tier do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    Never,
    Allowed,
}

/// `limits` and `quotas` of an object; a policy's name is its own among both, for the headers have one list.
pub(crate) fn policies(object: &mut Object<'_>, expiry: Expiry) -> Option<(Vec<Limit>, Vec<Quota>)> {
    let limits = object
        .optional("limits")
        .map_or(Some(Vec::new()), |field| field.list(MAX_POLICIES, |item| limit(item, expiry)));
    let quotas = object
        .optional("quotas")
        .map_or(Some(Vec::new()), |field| field.list(MAX_POLICIES, |item| quota(item, expiry)));
    // Also of those that could be read beside others that could not.
    let named = |list: &'static str| move |name| (list, name);
    let of_limits = limits.iter().flatten().map(|limit| &limit.name).map(named("limits"));
    let names = of_limits.chain(quotas.iter().flatten().map(|quota| &quota.name).map(named("quotas")));
    let mut told = false;
    let mut seen: Vec<&Name> = Vec::new();
    for (list, name) in names {
        if seen.contains(&name) {
            object.tell(list, format!("the name {:?} is given to two policies; each needs its own", name.as_str()));
            told = true;
        }
        seen.push(name);
    }
    if told { None } else { Some((limits?, quotas?)) }
}

/// Policies of an account or a key, in the place of others or beside them.
pub(crate) fn overrides(field: Field<'_>) -> Option<Overrides> {
    let mut object = field.object()?;
    let (limits, quotas) = policies(&mut object, Expiry::Allowed)?;
    Some(Overrides { limits, quotas })
}

/// The name of a policy. That of the concurrency limit is taken: headers, answers and explanations have one list of names.
fn policy_name(object: &mut Object<'_>) -> Option<Name> {
    let name = object.required("name").and_then(name)?;
    if *name == *CONCURRENCY {
        object.tell(
            "name",
            format!("{CONCURRENCY:?} is what the bound of requests at once is called: choose another name"),
        );
        return None;
    }
    Some(name)
}

fn limit(field: Field<'_>, expiry: Expiry) -> Option<Limit> {
    let mut object = field.object()?;
    let name = policy_name(&mut object);
    let per = object.optional("per").map_or(Some(vec![Dimension::Account]), dimensions);
    let rate =
        object.required("rate").and_then(|field| field.parsed("a rate like 5/s, 300/m, 1000/h or 100/d", str::parse));
    let burst = object.required("burst").and_then(|field| field.whole(1..=MAX_BURST));
    let expires_at = expires_at(&mut object, expiry);
    let shadow = object.optional("shadow").map_or(Some(false), Field::boolean);
    let (name, per, rate) = (name?, per?, rate?);
    Some(Limit { name, per, rate, burst: burst?, expires_at: expires_at?, shadow: shadow? })
}

fn dimensions(field: Field<'_>) -> Option<Vec<Dimension>> {
    let mut per: Vec<Dimension> = field.list(3, |item| {
        item.choice(&[("account", Dimension::Account), ("key", Dimension::Key), ("route", Dimension::Route)])
    })?;
    per.sort_unstable();
    per.dedup();
    if per.is_empty() {
        per.push(Dimension::Account);
    }
    Some(per)
}

fn quota(field: Field<'_>, expiry: Expiry) -> Option<Quota> {
    let mut object = field.object()?;
    let name = policy_name(&mut object);
    let unit = object.optional("unit").map_or(Some(Unit::Requests), |field| {
        field.choice(&[("requests", Unit::Requests), ("content-bytes", Unit::ContentBytes), ("cost", Unit::Cost)])
    });
    let limit = object.required("limit").and_then(|field| field.whole(0..=MAX_WHOLE));
    let period = object.required("period").and_then(|field| {
        field.choice(&[("hour", Period::Hour), ("day", Period::Day), ("week", Period::Week), ("month", Period::Month)])
    });
    let timezone = object
        .optional("timezone")
        .map_or(Some(Name::from("UTC")), |field| field.parsed("an IANA timezone like UTC or Europe/Berlin", timezone));
    let overage = object
        .optional("overage")
        .map_or(Some(Overage::Block), |field| field.choice(&[("block", Overage::Block), ("allow", Overage::Allow)]));
    let expires_at = expires_at(&mut object, expiry);
    let shadow = object.optional("shadow").map_or(Some(false), Field::boolean);
    let anchor_day = object.optional("anchor_day").map_or(Some(None), |field| match period {
        Some(Period::Week) => field.whole(1..=7).map(Some),
        Some(Period::Month) => field.whole(1..=31).map(Some),
        Some(_) => field.refuse("is for weeks (1 Monday to 7 Sunday) and months (1 to 31)"),
        None => Some(None),
    });
    let thresholds = object.optional("thresholds").map_or(Some(None), |field| {
        field.list(MAX_THRESHOLDS, |item| item.whole(1..=1_000)).map(|mut percentages: Vec<u16>| {
            percentages.sort_unstable();
            percentages.dedup();
            Some(percentages)
        })
    });
    Some(Quota {
        name: name?,
        unit: unit?,
        limit: limit?,
        period: period?,
        timezone: timezone?,
        overage: overage?,
        expires_at: expires_at?,
        anchor_day: anchor_day?,
        thresholds: thresholds?,
        shadow: shadow?,
    })
}

/// The timezone's name, when this build knows it.
fn timezone(text: &str) -> Result<Name, ()> {
    let probe = Quota {
        name: Name::default(),
        unit: Unit::Requests,
        limit: 0,
        period: Period::Day,
        timezone: text.into(),
        overage: Overage::Block,
        expires_at: None,
        anchor_day: None,
        thresholds: None,
        shadow: false,
    };
    probe.time_zone().map(|_| probe.timezone).map_err(|_| ())
}

/// `Some(None)`: does not end.
fn expires_at(object: &mut Object<'_>, expiry: Expiry) -> Option<Option<Timestamp>> {
    match object.optional("expires_at") {
        None => Some(None),
        Some(field) if expiry == Expiry::Allowed => time(field).map(Some),
        Some(field) => field.refuse("a tier's policies do not end; overrides of accounts and keys may"),
    }
}

/// A text that begins with `/`, as paths in routes do.
pub(crate) fn path(field: Field<'_>) -> Option<String> {
    field.text("a path that begins with /, without ?, #, spaces and dot segments, at most 1024 bytes", |text| {
        text.starts_with('/')
            && text.len() <= 1_024
            && !text.contains(|c: char| c == '?' || c == '#' || c.is_whitespace() || c.is_control())
            // Requests with them are refused, so none could ever match.
            && !text.split('/').any(|segment| segment == "." || segment == "..")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::input, *};

    fn read(value: Value, expiry: Expiry) -> Result<(Vec<Limit>, Vec<Quota>), Vec<String>> {
        input::read(value, |object| policies(object, expiry))
            .map_err(|problem| problem.errors().iter().map(|e| format!("{} {}", e.pointer, e.detail)).collect())
    }

    #[test]
    fn the_contracts_tier_reads() {
        let value = json!({
            "limits": [{ "name": "per-second", "per": ["route", "key"], "rate": "5/s", "burst": 15 }],
            "quotas": [{ "name": "daily", "limit": 10_000, "period": "day" }],
        });
        let (limits, quotas) = read(value, Expiry::Never).expect("reads");
        assert_eq!(limits[0].per, [Dimension::Key, Dimension::Route]);
        assert_eq!((limits[0].rate.to_string(), limits[0].burst), ("5/s".into(), 15));
        assert_eq!((quotas[0].unit, quotas[0].overage, &*quotas[0].timezone), (Unit::Requests, Overage::Block, "UTC"));
    }

    #[test]
    fn what_was_read_reads_back_as_the_same() {
        let value = json!({
            "limits": [{ "name": "x", "rate": "100/d", "burst": 1, "expires_at": "2027-01-01T00:00:00Z" }],
            "quotas": [{ "name": "y", "unit": "cost", "limit": 0, "period": "month", "timezone": "Asia/Tokyo", "overage": "allow" }],
        });
        let once = read(value, Expiry::Allowed).expect("reads");
        let again = read(json!({ "limits": once.0, "quotas": once.1 }), Expiry::Allowed).expect("reads again");
        assert_eq!(once, again);
    }

    #[test]
    fn wrong_policies_are_told_with_their_places() {
        let told = read(
            json!({
                "limits": [
                    { "name": "Per Second", "per": ["planet"], "rate": "fast", "burst": 0, "expires_at": "2027-01-01T00:00:00Z" },
                    { "name": "ok", "rate": "5/s", "burst": 5, "brust": 5 },
                ],
                "quotas": [{ "name": "daily", "limit": -1, "period": "fortnight", "timezone": "Mars/Olympus" }],
            }),
            Expiry::Never,
        )
        .expect_err("refused");
        let pointers: Vec<&str> = told.iter().map(|line| line.split_once(' ').expect("two parts").0).collect();
        assert_eq!(
            pointers,
            [
                "/limits/0/name",
                "/limits/0/per/0",
                "/limits/0/rate",
                "/limits/0/burst",
                "/limits/0/expires_at",
                "/limits/1/brust",
                "/quotas/0/limit",
                "/quotas/0/period",
                "/quotas/0/timezone",
            ],
            "{told:#?}"
        );
    }

    #[test]
    fn anchors_thresholds_and_shadows_read_and_refuse() {
        let value = json!({
            "limits": [{ "name": "x", "rate": "5/s", "burst": 5, "shadow": true }],
            "quotas": [
                { "name": "y", "limit": 9, "period": "month", "anchor_day": 31, "thresholds": [100, 50, 100], "shadow": true },
                { "name": "z", "limit": 9, "period": "week", "anchor_day": 7, "thresholds": [] },
            ],
        });
        let (limits, quotas) = read(value, Expiry::Never).expect("reads");
        assert!(limits[0].shadow && quotas[0].shadow && !quotas[1].shadow);
        assert_eq!((quotas[0].anchor_day, quotas[0].thresholds()), (Some(31), &[50, 100][..]));
        assert_eq!((quotas[1].anchor_day, quotas[1].thresholds()), (Some(7), &[][..]));
        let again = read(json!({ "limits": limits, "quotas": quotas }), Expiry::Never).expect("reads again");
        assert_eq!(again, (limits, quotas));
        let told = read(
            json!({ "quotas": [
                { "name": "a", "limit": 1, "period": "day", "anchor_day": 1 },
                { "name": "b", "limit": 1, "period": "week", "anchor_day": 8 },
                { "name": "c", "limit": 1, "period": "month", "anchor_day": 32, "thresholds": [0], "shadow": "yes" },
            ] }),
            Expiry::Never,
        )
        .expect_err("refused");
        let pointers: Vec<&str> = told.iter().map(|line| line.split_once(' ').expect("two parts").0).collect();
        let expected = [
            "/quotas/0/anchor_day",
            "/quotas/1/anchor_day",
            "/quotas/2/shadow",
            "/quotas/2/anchor_day",
            "/quotas/2/thresholds/0",
        ];
        assert_eq!(pointers, expected, "{told:#?}");
    }

    #[test]
    fn a_name_that_two_policies_have_is_refused() {
        let told = read(
            json!({
                "limits": [{ "name": "x", "rate": "5/s", "burst": 5 }],
                "quotas": [{ "name": "x", "limit": 1, "period": "day" }],
            }),
            Expiry::Never,
        );
        assert!(told.expect_err("refused")[0].starts_with("/quotas the name \"x\""));
    }

    /// Two entries of that name in `RateLimit` could not be told apart.
    #[test]
    fn the_name_of_the_concurrency_limit_is_taken() {
        let told = read(
            json!({
                "limits": [{ "name": "x", "rate": "5/s", "burst": 5 }, { "name": "concurrency", "rate": "5/s", "burst": 5 }],
                "quotas": [{ "name": "concurrency", "limit": 1, "period": "day" }],
            }),
            Expiry::Never,
        )
        .expect_err("refused");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("/limits/1/name ") && told[1].starts_with("/quotas/0/name "), "{told:?}");
        assert!(told[1].contains("choose another name"), "{told:?}");
    }

    #[test]
    fn networks_are_kept_as_clients_addresses_are() {
        let read = |text: &str| {
            input::read(json!({ "nets": [text] }), |object| object.required("nets").and_then(networks))
                .map(|nets| nets[0].to_string())
        };
        assert_eq!(read("::ffff:10.0.0.1").expect("reads"), "10.0.0.1/32");
        assert_eq!(read("::ffff:10.1.2.3/112").expect("reads"), "10.1.0.0/16");
        assert_eq!(read("2001:db8::1/32").expect("reads"), "2001:db8::/32");
    }

    #[test]
    fn names_and_slugs() {
        for (text, name, slug) in [
            ("free", true, true),
            ("eu-west.1_x", true, true),
            ("Acme", false, true),
            ("", false, false),
            ("-x", false, false),
            ("a b", false, false),
            ("é", false, false),
        ] {
            assert_eq!((is_name(text), is_slug(text)), (name, slug), "{text}");
        }
        assert!(is_slug(&"x".repeat(63)) && !is_slug(&"x".repeat(64)));
        for (text, scope) in [("scan", true), ("scan:write", true), ("a:b:c", true), (":", false), ("scan:", false)] {
            assert_eq!(is_scope(text), scope, "{text}");
        }
        assert!(!is_scope("scan: write") && !is_scope(&format!("{}:x", "x".repeat(62))));
    }
}
