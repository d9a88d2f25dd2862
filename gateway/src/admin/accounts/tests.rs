use super::*;

struct All;

impl Tiers for All {
    fn has_tier(&mut self, name: &str) -> bool {
        name != "none"
    }
}

fn account() -> (Account, Profile) {
    let account = Account {
        id: "acme".into(),
        tier: "free".into(),
        state: AccountState::Active,
        region: Name::default(),
        overrides: Overrides::default(),
        created_at: Timestamp(0),
        profile: "s1".into(),
        revision: 7,
        resets: Vec::new(),
    };
    let metadata = [("crm".to_owned(), "{\"id\":5}".to_owned()), ("vip".to_owned(), "true".to_owned())];
    (account, Profile { name: "Acme".into(), metadata: metadata.into() })
}

#[test]
fn an_empty_patch_changes_nothing() {
    let (account, profile) = account();
    let form = patched(&account, &profile, json!({}), &mut All).expect("reads");
    assert_eq!(form.profile, profile);
    assert_eq!((form.tier, form.state, form.overrides), (account.tier, account.state, account.overrides));
}

#[test]
fn a_patch_changes_what_it_names_and_null_removes() {
    let (account, profile) = account();
    let patch = json!({ "tier": "pro", "name": null, "metadata": { "vip": null, "crm": { "tag": [1] } } });
    let form = patched(&account, &profile, patch, &mut All).expect("reads");
    assert_eq!(&*form.tier, "pro");
    assert_eq!(form.profile.name, "");
    assert_eq!(form.profile.metadata, [("crm".to_owned(), "{\"id\":5,\"tag\":[1]}".to_owned())].into());
}

#[test]
fn a_patch_can_neither_rename_nor_remove_the_tier_nor_add_a_field() {
    let (account, profile) = account();
    let problem =
        patched(&account, &profile, json!({ "id": "other", "tier": "none", "x": 1 }), &mut All).expect_err("refused");
    let pointers: Vec<_> = problem.errors().iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(pointers, ["/tier", "/id", "/x"]);
    let problem = patched(&account, &profile, json!({ "tier": null }), &mut All).expect_err("refused");
    assert_eq!(problem.errors()[0].pointer, "/tier");
    assert!(patched(&account, &profile, json!("suspended"), &mut All).is_err());
}

#[test]
fn metadata_that_lies_too_deep_is_told_with_its_place() {
    // A hundred levels were taken, and then neither export nor apply could read the account.
    let deep = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "a/b": inner }));
    let read = |metadata: Value| {
        input::read(json!({ "tier": "free", "metadata": metadata }), |object| Form::read(object, &mut All))
    };
    assert!(read(deep(MAX_METADATA_DEPTH)).is_ok());
    let problem = read(deep(MAX_METADATA_DEPTH + 1)).expect_err("refused");
    assert_eq!(problem.errors()[0].pointer, format!("/metadata{}", "/a~1b".repeat(MAX_METADATA_DEPTH)));
    assert!(read(json!({ "list": deep(100) })).is_err());
}

#[test]
fn ids_are_slugs_or_the_gateways_own() {
    assert!(account_id("acme-1").is_ok());
    assert!(account_id("acct_01ARZ3NDEKTSV4RRFFQ69G5FAV").is_ok());
    for bad in ["acct_x", "a/b", "", "..", "a b"] {
        assert!(account_id(bad).is_err(), "{bad}");
    }
}
