//! `/v1/accounts`.

use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value, json};
use store::{
    Store,
    model::{Account, AccountId, AccountState, Expect, MetaOp, Name, Overrides, Profile, Revision, Role, Timestamp},
};

use super::{
    Shared,
    access::{Visitor, Writer},
    answer,
    etag::Condition,
    forms::{self, Expiry},
    input::{self, Object},
    params::Params,
    problem::{Code, Problem, Result},
};

/// Entries of an account's metadata.
const MAX_METADATA_ENTRIES: usize = 64;
/// Bytes of an account's metadata as JSON.
const MAX_METADATA_BYTES: usize = 16 * 1024;
/// Ids that the gateway makes.
const ID_PREFIX: &str = "acct_";
/// Tries of a change whose object another change has moved, when the caller named no revision.
const ATTEMPTS: usize = 8;

/// An account as the API shows it.
#[derive(Debug, Serialize)]
struct View {
    id: AccountId,
    name: String,
    tier: Name,
    state: AccountState,
    region: Option<Name>,
    overrides: Overrides,
    metadata: Map<String, Value>,
    created_at: Timestamp,
    revision: Revision,
}

impl View {
    fn of(account: Account, profile: Profile) -> Self {
        let metadata = profile.metadata.into_iter().map(|(key, text)| {
            let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            (key, value)
        });
        Self {
            id: account.id,
            name: profile.name,
            tier: account.tier,
            state: account.state,
            region: Some(account.region).filter(|region| !region.is_empty()),
            overrides: account.overrides,
            metadata: metadata.collect(),
            created_at: account.created_at,
            revision: account.revision,
        }
    }
}

/// What a caller can set of an account.
#[derive(Debug, PartialEq)]
struct Form {
    id: Option<String>,
    tier: Name,
    state: AccountState,
    region: Name,
    overrides: Overrides,
    profile: Profile,
}

impl Form {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let id = object.optional("id").map_or(Some(None), |field| {
            field
                .parsed("a slug (1 to 63 of a-z, A-Z, 0-9, '.', '_', '-'); acct_ goes before a ULID only", account_id)
                .map(Some)
        });
        let name = object.optional("name").map_or(Some(String::new()), forms::label);
        let tier = object.required("tier").and_then(forms::name);
        let state = object.optional("state").map_or(Some(AccountState::Active), |field| {
            field.choice(&[("active", AccountState::Active), ("suspended", AccountState::Suspended)])
        });
        let region = object.optional("region").map_or(Some(Name::default()), forms::name);
        let overrides = object.optional("overrides").map_or(Some(Overrides::default()), |field| {
            let mut object = field.object()?;
            let (limits, quotas) = forms::policies(&mut object, Expiry::Allowed)?;
            Some(Overrides { limits, quotas })
        });
        let metadata = object.optional("metadata").map_or(Some(Map::new()), |field| {
            field.map("a JSON object of at most 64 entries and 16 KiB", |map| {
                map.len() <= MAX_METADATA_ENTRIES && json!(map).to_string().len() <= MAX_METADATA_BYTES
            })
        });
        object.answered("created_at");
        object.answered("revision");
        Some(Self {
            id: id?,
            tier: tier?,
            state: state?,
            region: region?,
            overrides: overrides?,
            profile: Profile {
                name: name?,
                metadata: metadata?.into_iter().map(|(key, value)| (key, value.to_string())).collect(),
            },
        })
    }
}

fn account_id(text: &str) -> std::result::Result<String, ()> {
    let own = match text.strip_prefix(ID_PREFIX) {
        Some(ulid) => ulid::Ulid::from_string(ulid).is_ok(),
        None => forms::is_slug(text),
    };
    if own { Ok(text.to_owned()) } else { Err(()) }
}

/// `GET /v1/accounts`
pub(crate) async fn list(_: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    let page = params.page();
    params.finish()?;
    let mut accounts = admin.store.accounts(page.after.as_deref(), page.limit + 1)?;
    let next = page.cut(&mut accounts, |account| account.id.clone());
    let staged: Vec<_> = accounts.iter().map(|account| (account.id.clone(), account.profile.clone())).collect();
    let profiles = admin.store.profiles(&staged)?;
    let views: Vec<View> =
        accounts.into_iter().zip(profiles).map(|(account, profile)| View::of(account, profile)).collect();
    Ok(answer::list(views, next))
}

/// `POST /v1/accounts`
pub(crate) async fn create(visitor: Visitor, State(admin): Shared, params: Params, body: Bytes) -> Result<Response> {
    let writer = visitor.require(Role::Operator)?;
    params.finish()?;
    let form = input::read(input::parse(&body)?, Form::read)?;
    let id = form.id.unwrap_or_else(|| format!("{ID_PREFIX}{}", ulid::Ulid::generate()));
    let id = AccountId::from(id);
    if admin.store.account(&id)?.is_some() {
        return Err(Problem::new(Code::AlreadyExists, format!("account {:?} exists already", id.as_str())));
    }
    let profile = admin.store.stage_profile(&id, "", form.profile.clone()).await?;
    let mut account = Account {
        id,
        tier: form.tier,
        state: form.state,
        region: form.region,
        overrides: form.overrides,
        created_at: Timestamp::now(),
        profile,
        revision: 0,
    };
    account.revision = put(&writer, &admin.store, account.clone(), Expect::Absent).await?;
    let path = format!("/v1/accounts/{}", account.id);
    Ok(answer::created(&path, account.revision, &View::of(account, form.profile)))
}

/// `GET /v1/accounts/{id}`
pub(crate) async fn get(_: Visitor, State(admin): Shared, Path(id): Path<String>, params: Params) -> Result<Response> {
    params.finish()?;
    let (account, profile) = find(&admin.store, &id)?;
    Ok(answer::object(StatusCode::OK, account.revision, &View::of(account, profile)))
}

/// `PATCH /v1/accounts/{id}`: a JSON merge patch (RFC 7396).
pub(crate) async fn patch(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    condition: Condition,
    params: Params,
    body: Bytes,
) -> Result<Response> {
    let writer = visitor.require(Role::Operator)?;
    params.finish()?;
    let patch = input::parse(&body)?;
    for _ in 0..ATTEMPTS {
        let (account, profile) = find(&admin.store, &id).map_err(|problem| condition.refused(problem, None))?;
        let expect = condition.check(account.revision)?;
        let form = patched(&account, &profile, patch.clone())?;
        let stage = if form.profile == profile {
            account.profile.clone()
        } else {
            admin.store.stage_profile(&account.id, &account.profile, form.profile.clone()).await?
        };
        let mut changed = Account {
            tier: form.tier,
            state: form.state,
            region: form.region,
            overrides: form.overrides,
            profile: stage,
            ..account
        };
        match put(&writer, &admin.store, changed.clone(), expect).await {
            Ok(revision) => {
                changed.revision = revision;
                return Ok(answer::object(StatusCode::OK, revision, &View::of(changed, form.profile)));
            }
            Err(problem) if problem.code() == Code::PreconditionFailed && condition == Condition::None => {
                admin.store.barrier().await?;
            }
            Err(problem) => return Err(problem),
        }
    }
    Err(Problem::new(Code::NotPossible, "the account is being changed by others all the time: try again"))
}

/// `DELETE /v1/accounts/{id}`: refused while it has keys that are not revoked.
pub(crate) async fn delete(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    condition: Condition,
    params: Params,
) -> Result<Response> {
    let writer = visitor.require(Role::Operator)?;
    params.finish()?;
    let expect = if condition == Condition::None { Expect::Present } else { condition.expect() };
    let op = MetaOp::DeleteAccount { id: id.into(), expect };
    writer.write(&admin.store, vec![op]).await.map_err(|problem| condition.refused(problem, None))?;
    Ok(answer::gone())
}

/// An account that must exist, for the resources below it.
pub(crate) fn existing(store: &Store, id: &str) -> Result<Account> {
    store.account(&id.into())?.ok_or_else(|| Problem::not_found("account", id))
}

fn find(store: &Store, id: &str) -> Result<(Account, Profile)> {
    let account = existing(store, id)?;
    let profile = store.profiles(&[(account.id.clone(), account.profile.clone())])?.pop().unwrap_or_default();
    Ok((account, profile))
}

async fn put(writer: &Writer, store: &Store, account: Account, expect: Expect) -> Result<Revision> {
    writer.write(store, vec![MetaOp::PutAccount { account, expect }]).await
}

/// The account with a patch laid over it.
fn patched(account: &Account, profile: &Profile, patch: Value) -> Result<Form> {
    let mut whole = json!(View::of(account.clone(), profile.clone()));
    input::merge(&mut whole, patch);
    input::read(whole, |object| {
        let form = Form::read(object)?;
        if form.id.as_deref() != Some(account.id.as_str()) {
            object.tell("id", "cannot be changed");
        }
        Some(form)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        };
        let metadata = [("crm".to_owned(), "{\"id\":5}".to_owned()), ("vip".to_owned(), "true".to_owned())];
        (account, Profile { name: "Acme".into(), metadata: metadata.into() })
    }

    #[test]
    fn an_empty_patch_changes_nothing() {
        let (account, profile) = account();
        let form = patched(&account, &profile, json!({})).expect("reads");
        assert_eq!(form.profile, profile);
        assert_eq!((form.tier, form.state, form.overrides), (account.tier, account.state, account.overrides));
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_removes() {
        let (account, profile) = account();
        let patch = json!({ "tier": "pro", "name": null, "metadata": { "vip": null, "crm": { "tag": [1] } } });
        let form = patched(&account, &profile, patch).expect("reads");
        assert_eq!(&*form.tier, "pro");
        assert_eq!(form.profile.name, "");
        assert_eq!(form.profile.metadata, [("crm".to_owned(), "{\"id\":5,\"tag\":[1]}".to_owned())].into());
    }

    #[test]
    fn a_patch_can_neither_rename_nor_remove_the_tier_nor_add_a_field() {
        let (account, profile) = account();
        let problem = patched(&account, &profile, json!({ "id": "other", "x": 1 })).expect_err("refused");
        let pointers: Vec<_> = problem.errors().iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/id", "/x"]);
        let problem = patched(&account, &profile, json!({ "tier": null })).expect_err("refused");
        assert_eq!(problem.errors()[0].pointer, "/tier");
        assert!(patched(&account, &profile, json!("suspended")).is_err());
    }

    #[test]
    fn ids_are_slugs_or_the_gateways_own() {
        assert!(account_id("acme-1").is_ok());
        assert!(account_id("acct_01ARZ3NDEKTSV4RRFFQ69G5FAV").is_ok());
        for bad in ["acct_x", "a/b", "", "..", "a b"] {
            assert!(account_id(bad).is_err(), "{bad}");
        }
    }
}
