//! The declarative file: applied as one change, compared, exported and built anew elsewhere.

use super::*;

fn told(said: &Said) -> Vec<String> {
    assert_eq!(said.status, 200, "{}", said.body);
    let changes = said.body["changes"].as_array().expect("changes").iter();
    changes
        .map(|change| {
            let of = |name: &str| change[name].as_str().expect("a text").to_owned();
            let id = if of("id").starts_with("key_") { "key_".to_owned() } else { of("id") };
            format!("{} {} {id}", of("action"), of("kind"))
        })
        .collect()
}

impl Rig {
    async fn apply(&self, query: &str, document: &Value) -> Said {
        self.call(Method::POST, &format!("/v1/apply{query}"), Some(document.clone())).await
    }
}

fn document(hash: &str) -> Value {
    json!({
        "upstreams": [{ "name": "up", "targets": [{ "url": "http://127.0.0.1:9000" }] }],
        "tiers": [{ "name": "free", "concurrency": 5 }, { "name": "gold" }],
        "routes": [{ "name": "scan", "match": { "path_prefix": "/v3" }, "upstream": "up" }],
        "accounts": [
            { "id": "acme", "name": "Acme", "tier": "free", "metadata": { "crm": 5 },
              "keys": [{ "hash": hash, "name": "ci", "last4": "abcd", "scopes": ["scan"] }] },
            { "id": "other", "tier": "gold" },
        ],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_applied_as_one_change_and_again_changes_nothing() {
    let rig = Rig::start().await;
    let secret = Secret::generate(SecretKind::Live);
    let hash = format!("sha256:{}", secret.hash().0.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let mut file = document(&hash);
    let all = [
        "create upstream up",
        "create tier free",
        "create tier gold",
        "create route scan",
        "create account acme",
        "create key key_",
        "create account other",
    ];
    assert_eq!(told(&rig.apply("?dry_run=true", &file).await), all);
    assert_eq!(rig.call(Method::GET, "/v1/tiers/free", None).await.status, 404, "a dry run changes nothing");
    assert_eq!(told(&rig.apply("", &file).await), all);
    assert!(rig.node.store.directory().key(&secret.hash()).is_some(), "the key works by its hash");
    let again = rig.apply("", &file).await;
    assert_eq!((told(&again).len(), &again.body["unchanged"]), (0, &json!(7)));

    file["tiers"][0]["concurrency"] = 6.into();
    file["accounts"][0]["metadata"] = json!({ "crm": 6 });
    let changed = rig.apply("", &file).await;
    assert_eq!(told(&changed), ["change tier free", "change account acme"]);
    let field = json!([{ "field": "concurrency", "before": 5, "after": 6 }]);
    assert_eq!(changed.body["changes"][0]["fields"], field);

    // What a list does not name stays, unless it is to be pruned; a list that is left out is nobody's business.
    let mut less = json!({ "tiers": file["tiers"], "accounts": [file["accounts"][0]] });
    less["tiers"].as_array_mut().expect("a list").pop();
    assert_eq!(told(&rig.apply("", &less).await).len(), 0);
    less["accounts"][0]["keys"] = json!([]);
    let pruned = told(&rig.apply("?prune=true", &less).await);
    assert_eq!(pruned, ["revoke key key_", "delete account other", "delete tier gold"]);
    assert_eq!(rig.call(Method::GET, "/v1/routes/scan", None).await.status, 200);
    let wrong = rig.apply("", &file).await;
    assert_eq!((wrong.status, &wrong.body["errors"][0]["pointer"]), (422, &json!("/accounts/0/keys/0/hash")));
    let bad = json!({ "tiers": [{ "name": "x" }, { "name": "x" }, { "burst": 1 }], "accounts": [{ "id": "a", "tier": "y" }] });
    let bad = rig.apply("", &bad).await;
    let pointers: Vec<_> = bad.body["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| error["pointer"].as_str().expect("one"))
        .collect();
    assert_eq!(pointers, ["/tiers/2/name", "/tiers/2/burst", "/accounts/0/tier"]);
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_builds_the_same_elsewhere_and_an_older_one_is_refused_with_the_differences() {
    let rig = Rig::start().await;
    let secret = Secret::generate(SecretKind::Test);
    let hash = format!("sha256:{}", secret.hash().0.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert_eq!(rig.apply("", &document(&hash)).await.status, 200);
    let export = rig.call(Method::GET, "/v1/export", None).await.body;
    assert_eq!(told(&rig.apply("?prune=true", &export).await).len(), 0);
    assert!(!export.to_string().contains("secret"));

    let other = Rig::start().await;
    let mut copy = export.clone();
    copy.as_object_mut().expect("an object").shift_remove("revision");
    assert_eq!(told(&other.apply("?prune=true", &copy).await).len(), 7);
    let mut again = other.call(Method::GET, "/v1/export", None).await.body;
    again.as_object_mut().expect("an object").shift_remove("revision");
    assert_eq!(again, copy);
    assert!(other.node.store.directory().key(&secret.hash()).is_some(), "the same key works there");
    other.node.drain(Duration::from_secs(1)).await;

    // Somebody else changes a tier after the export; the file says otherwise, and would remove what was made since.
    assert_eq!(rig.put("/v1/tiers/free", json!({ "concurrency": 9 })).await.status, 200);
    assert_eq!(rig.put("/v1/tiers/new", json!({})).await.status, 201);
    assert_eq!(told(&rig.apply("?dry_run=true&prune=true", &copy).await), ["change tier free", "delete tier new"]);
    let refused = rig.apply("?prune=true", &export).await;
    assert_eq!((refused.status, &refused.body["code"]), (412, &json!("precondition-failed")));
    let errors = refused.body["errors"].as_array().expect("errors");
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0]["detail"].as_str().is_some_and(|text| text.contains("concurrency is 9, the document says 5")));
    assert_eq!(rig.call(Method::GET, "/v1/tiers/new", None).await.status, 200, "nothing was changed");
    let schema = rig.call_as("none", Method::GET, "/schema.json", None, &[]).await;
    assert_eq!((schema.status, &schema.body["properties"]["tiers"]["type"]), (200, &json!(["array", "null"])));
    rig.node.drain(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_document_brings_nothing_back_that_was_deleted_since() {
    let rig = Rig::start().await;
    let secret = Secret::generate(SecretKind::Live);
    let hash = format!("sha256:{}", secret.hash().0.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert_eq!(rig.apply("", &document(&hash)).await.status, 200);
    let export = rig.call(Method::GET, "/v1/export", None).await.body;
    // A customer leaves: its key, which may have leaked, is revoked, its account deleted.
    let keys = rig.call(Method::GET, "/v1/accounts/acme/keys", None).await.body;
    let key = format!("/v1/keys/{}", keys["data"][0]["id"].as_str().expect("an id"));
    assert_eq!(rig.call(Method::DELETE, &key, None).await.status, 204);
    assert_eq!(rig.call(Method::DELETE, "/v1/accounts/acme", None).await.status, 204);
    for query in ["", "?dry_run=true"] {
        let refused = rig.apply(query, &export).await;
        assert_eq!((refused.status, &refused.body["code"]), (412, &json!("precondition-failed")), "{}", refused.body);
        let errors = refused.body["errors"].as_array().expect("errors");
        let pointers: Vec<&str> = errors.iter().filter_map(|error| error["pointer"].as_str()).collect();
        assert_eq!(pointers, ["/accounts/0", "/accounts/0/keys/0"]);
        assert!(errors[0]["detail"].as_str().is_some_and(|text| text.contains("\"acme\" was deleted at revision")));
    }
    assert!(rig.node.store.directory().key(&secret.hash()).is_none(), "the key stays revoked");
    // What was not there when the document was made is made, and what stayed is compared as ever.
    let mut newer = rig.call(Method::GET, "/v1/export", None).await.body;
    newer["accounts"].as_array_mut().expect("accounts").push(json!({ "id": "acme", "tier": "gold" }));
    assert_eq!(told(&rig.apply("", &newer).await), ["create account acme"]);
    // Without a revision it is what its author says, now.
    let mut wanted = export;
    wanted.as_object_mut().expect("an object").shift_remove("revision");
    assert_eq!(rig.apply("", &wanted).await.status, 200);
    rig.node.drain(Duration::from_secs(1)).await;
}
