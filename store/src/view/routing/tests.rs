use proptest::prelude::*;

use super::*;
use crate::model::RouteMatch;

fn route(name: &str, host: Option<&str>, path: PathMatch<'_>, methods: &[&str]) -> Route {
    let (exact, prefix) = match path {
        PathMatch::Exact(path) => (Some(path.to_owned()), None),
        PathMatch::Prefix(prefix) => (None, Some(prefix.to_owned())),
    };
    Route {
        name: name.into(),
        matches: RouteMatch {
            host: host.map(str::to_owned),
            path_prefix: prefix,
            path: exact,
            methods: methods.iter().map(|m| (*m).to_owned()).collect(),
        },
        upstream: "scan".into(),
        ..Route::default()
    }
}

fn table(routes: &[Route]) -> RouteTable {
    let slots = routes.iter().enumerate().map(|(at, route)| (route.name.clone(), at as u32)).collect();
    let upstream = Upstream { name: "scan".into(), ..Upstream::default() };
    RouteTable::new(routes.iter(), [upstream].iter(), &slots)
}

fn name(table: &RouteTable, host: Option<&str>, path: &str, method: &str) -> String {
    table.find(host, path, method).map_or_else(|| "-".into(), |view| view.route.name.to_string())
}

use PathMatch::{Exact, Prefix};

#[test]
fn routes_of_one_place_that_share_a_method_are_rivals() {
    let table = table(&[
        route("any", None, Prefix("/v3"), &[]),
        route("post", None, Prefix("/v3"), &["POST", "PUT"]),
        route("exact", None, Exact("/v3"), &[]),
        route("host", Some("API.example.com"), Prefix("/v3"), &[]),
    ]);
    for (host, path, methods, expected) in [
        (None, Prefix("/v3"), &[][..], "any"),
        (None, Prefix("/%763"), &[], "any"),
        (None, Prefix("/v3/"), &[], ""),
        (None, Prefix("/v3"), &["GET"], ""),
        (None, Prefix("/v3"), &["GET", "PUT"], "post"),
        (None, Exact("/v3"), &[], "exact"),
        (None, Exact("/v3"), &["POST"], ""),
        (Some("api.example.com"), Prefix("/v3"), &[], "host"),
        (Some("other.example.com"), Prefix("/v3"), &[], ""),
    ] {
        let wanted = route("new", host, path, methods);
        let found: Vec<&str> = table.rivals(&wanted.matches).map(|view| view.route.name.as_str()).collect();
        assert_eq!(found.join(" "), expected, "{host:?} {path:?} {methods:?}");
    }
}

#[test]
fn the_most_specific_route_wins() {
    let table = table(&[
        route("all", None, Prefix("/"), &[]),
        route("v3", None, Prefix("/v3"), &[]),
        route("v3-slash", None, Prefix("/v3/"), &[]),
        route("scan", None, Exact("/v3/scan"), &["POST"]),
        route("scan-any", None, Exact("/v3/scan"), &[]),
        route("host", Some("API.example.com"), Prefix("/v3"), &["GET"]),
    ]);
    for (host, path, method, expected) in [
        (None, "/v3/scan", "POST", "scan"),
        (None, "/v3/scan", "GET", "scan-any"),
        (None, "/v3/scan/", "GET", "v3-slash"),
        (None, "/v3/other", "GET", "v3-slash"),
        (None, "/v3", "GET", "v3"),
        (None, "/v30", "GET", "all"),
        (Some("api.example.com"), "/v3/scan", "GET", "host"),
        (Some("Api.Example.com:8080"), "/v3/scan", "GET", "host"),
        (Some("api.example.com"), "/v3/scan", "POST", "scan"),
        (Some("other.example.com"), "/v3/scan", "POST", "scan"),
        (Some("[::1]:8080"), "/", "GET", "all"),
    ] {
        assert_eq!(name(&table, host, path, method), expected, "{host:?} {method} {path}");
    }
}

#[test]
fn a_route_that_fits_but_for_its_methods_is_no_route() {
    let table =
        table(&[route("scan", None, Exact("/v3/scan"), &["POST"]), route("h", Some("h"), Prefix("/"), &["GET"])]);
    assert_eq!(name(&table, None, "/v3/scan", "GET"), "-");
    assert_eq!(name(&table, Some("h"), "/v3/scan", "POST"), "scan");
    assert_eq!(name(&table, Some("h"), "/v3/scan", "PUT"), "-");
}

#[test]
fn a_route_without_its_upstream_is_found_and_says_so() {
    let mut dangling = route("x", None, Prefix("/"), &[]);
    dangling.upstream = "gone".into();
    let table = table(&[dangling, route("y", None, Exact("/y"), &[])]);
    assert!(table.by_name(&"x".into()).expect("there").upstream.is_none());
    assert!(table.by_name(&"y".into()).expect("there").upstream.is_some());
    assert_eq!(table.upstreams().count(), 1);
}

/// The route that guards a path guards all its spellings, and so it is when the route itself is spelled so.
#[test]
fn no_spelling_slips_past_a_route() {
    let table = table(&[
        route("open", None, Prefix("/v4"), &[]),
        route("guarded", None, Prefix("/v4/admin"), &[]),
        route("spelled", None, Exact("/v5//%61;x"), &[]),
    ]);
    for path in ["/v4/%61dmin", "/v4//admin", "//v4/admin/x", "/v4/admin;x=1", "/v4/admin%2f", "/v4\\admin/y"] {
        assert_eq!(name(&table, None, path, "GET"), "guarded", "{path}");
    }
    assert_eq!(name(&table, None, "/v4/administer", "GET"), "open");
    assert_eq!(name(&table, None, "/v5/a", "GET"), "spelled");
}

proptest! {
    /// Against the rule itself: of all routes that match, the greatest by (host, exact, length, methods, name).
    #[test]
    fn it_finds_what_looking_at_all_routes_finds(
        rules in prop::collection::vec(
            (prop::option::of(0usize..2), any::<bool>(), "(/[ab]{1,2}){0,3}/?", 0usize..3), 0..25),
        paths in prop::collection::vec("(/[ab]{1,2}){1,4}/?", 1..20),
        host in prop::option::of(0usize..3),
        method in 0usize..2,
    ) {
        let hosts = ["h0", "h1", "h2"];
        let methods: [&[&str]; 3] = [&[], &["GET"], &["PUT", "POST"]];
        let routes: Vec<_> = rules.iter().enumerate().map(|(at, (host, exact, path, method))| {
            let path = if *exact { Exact(path) } else { Prefix(path) };
            route(&format!("r{at:02}"), host.map(|h| hosts[h]), path, methods[*method])
        }).collect();
        let table = table(&routes);
        let (host, method) = (host.map(|h| hosts[h]), ["GET", "POST"][method]);
        for path in paths {
            let expected = routes.iter().filter(|r| {
                r.matches.host.as_deref().is_none_or(|h| Some(h) == host)
                    && r.matches.path_match().matches(&path)
                    && (r.matches.methods.is_empty() || r.matches.methods.iter().any(|m| m == method))
            }).max_by_key(|r| {
                let (exact, length) = match r.matches.path_match() {
                    Exact(path) => (true, path.len()),
                    Prefix(path) => (false, path.len()),
                };
                let last = std::cmp::Reverse(r.name.to_string());
                (r.matches.host.is_some(), exact, length, !r.matches.methods.is_empty(), last)
            });
            prop_assert_eq!(name(&table, host, &path, method), expected.map_or("-".into(), |r| r.name.to_string()));
        }
    }
}
