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
    model::{
        Account, AccountId, AccountState, Expect, MetaOp, Name, Overrides, Profile, Reset, Revision, Role, Timestamp,
    },
};

use super::{
    Shared,
    access::Visitor,
    answer, change,
    draft::{Draft, Effect, Kind},
    etag::Condition,
    forms, freshness,
    input::{self, Object},
    params::Params,
    problem::{Code, Problem, Result},
};

/// Entries of an account's metadata.
const MAX_METADATA_ENTRIES: usize = 64;
/// Bytes of an account's metadata as JSON.
const MAX_METADATA_BYTES: usize = 16 * 1024;
/// Lists and objects within each other in an account's metadata, itself being the first: far less than readers of JSON and
/// YAML can follow.
const MAX_METADATA_DEPTH: usize = 16;
/// Ids that the gateway makes.
const ID_PREFIX: &str = "acct_";
/// Accounts that a list looks at in one go: with a filter that lets few through, many at once.
const SCANNED_AT_ONCE: usize = 1_000;
const MIN_SCANNED: usize = 100;
/// Accounts found by their name; with more of them a page is full soon by looking through all.
const MOST_NAMED: usize = 10_000;
const STATES: &[(&str, AccountState)] = &[("active", AccountState::Active), ("suspended", AccountState::Suspended)];

/// An account as the API shows it.
#[derive(Debug, Serialize)]
struct View {
    id: AccountId,
    name: String,
    tier: Name,
    state: AccountState,
    region: Option<Name>,
    overrides: Overrides,
    /// Policies that were reset.
    resets: Vec<Reset>,
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
            resets: account.resets,
            metadata: metadata.collect(),
            created_at: account.created_at,
            revision: account.revision,
        }
    }
}

/// Knows which tiers there are.
pub(crate) trait Tiers {
    fn has_tier(&mut self, name: &str) -> bool;
}

impl Tiers for Draft<'_> {
    /// A tier that cannot be read is told when the write is refused.
    fn has_tier(&mut self, name: &str) -> bool {
        self.tier(name).map_or(true, |slot| slot.value.is_some())
    }
}

/// What a caller can set of an account.
#[derive(Debug, PartialEq)]
pub(crate) struct Form {
    pub(crate) id: Option<String>,
    pub(crate) tier: Name,
    pub(crate) state: AccountState,
    pub(crate) region: Name,
    pub(crate) overrides: Overrides,
    pub(crate) profile: Profile,
}

impl Form {
    pub(crate) fn read(object: &mut Object<'_>, known: &mut impl Tiers) -> Option<Self> {
        let id = object.optional("id").map_or(Some(None), |field| {
            field
                .parsed("a slug (1 to 63 of a-z, A-Z, 0-9, '.', '_', '-'); acct_ goes before a ULID only", account_id)
                .map(Some)
        });
        let name = object.optional("name").map_or(Some(String::new()), forms::label);
        let tier = object.required("tier").and_then(forms::name);
        if let Some(tier) = tier.as_ref().filter(|tier| !known.has_tier(tier)) {
            Draft::tell_missing(object, "tier", Kind::Tier, tier);
        }
        let state = object.optional("state").map_or(Some(AccountState::Active), |field| field.choice(STATES));
        let region = object.optional("region").map_or(Some(Name::default()), forms::name);
        let overrides = object.optional("overrides").map_or(Some(Overrides::default()), forms::overrides);
        let metadata = object.optional("metadata").map_or(Some(Map::new()), |field| {
            field.no_deeper(MAX_METADATA_DEPTH)?.map("a JSON object of at most 64 entries and 16 KiB", |map| {
                map.len() <= MAX_METADATA_ENTRIES && json!(map).to_string().len() <= MAX_METADATA_BYTES
            })
        });
        object.answered("resets");
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

/// Which accounts.
#[derive(Debug, Default)]
struct Filter {
    id_prefix: Option<String>,
    name_prefix: Option<String>,
    tier: Option<String>,
    state: Option<AccountState>,
    region: Option<String>,
}

impl Filter {
    fn read(params: &mut Params) -> Self {
        Self {
            id_prefix: params.slug("id_prefix"),
            name_prefix: params.short("name_prefix").map(|text| text.to_lowercase()),
            tier: params.name("tier"),
            state: params.choice("state", STATES),
            region: params.name("region"),
        }
    }

    /// Of what group 0 knows.
    fn takes(&self, account: &Account) -> bool {
        self.id_prefix.as_ref().is_none_or(|prefix| account.id.starts_with(prefix.as_str()))
            && self.tier.as_ref().is_none_or(|tier| *account.tier == **tier)
            && self.state.is_none_or(|state| account.state == state)
            && self.region.as_ref().is_none_or(|region| *account.region == **region)
    }

    /// Of what stays with the account's rows; case does not matter.
    fn takes_profile(&self, profile: &Profile) -> bool {
        self.name_prefix.as_ref().is_none_or(|prefix| profile.name.to_lowercase().starts_with(prefix.as_str()))
    }
}

/// `GET /v1/accounts`
pub(crate) async fn list(visitor: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    let page = params.page();
    let filter = Filter::read(&mut params);
    params.finish()?;
    // A filter that lets few through walks over all.
    let found = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        let mut after = page.after.clone();
        let mut named = match &filter.name_prefix {
            Some(prefix) => {
                let named = || Ok(admin.store.accounts_named(prefix, MOST_NAMED)?);
                freshness::caught_up_blocking(&admin.store, named)?.map(Vec::into_iter)
            }
            None => None,
        };
        loop {
            // Without a gap: those that are filtered out have been looked at too.
            let at_once = SCANNED_AT_ONCE.min(page.limit + 1).max(MIN_SCANNED);
            let ids: Option<Vec<AccountId>> = named.as_mut().map(|named| {
                let behind = named.filter(|id| after.as_deref().is_none_or(|after| id.as_str() > after));
                behind.take(at_once).collect()
            });
            let read = || {
                let some: Vec<Account> = match &ids {
                    Some(ids) => {
                        let found: std::result::Result<Vec<_>, _> =
                            ids.iter().map(|id| admin.store.account(id)).collect();
                        found?.into_iter().flatten().collect()
                    }
                    None => admin.store.accounts(after.as_deref(), at_once)?,
                };
                let last = some.last().map(|last| last.id.to_string());
                let taken = |account: &Account| visitor.caller().covers(&account.id) && filter.takes(account);
                let some: Vec<Account> = some.into_iter().filter(taken).collect();
                let wanted: Vec<_> = some.iter().map(|account| (account.id.clone(), account.profile.clone())).collect();
                Ok((last, some.into_iter().zip(admin.store.profiles(&wanted)?)))
            };
            let (last, some) = freshness::caught_up_blocking(&admin.store, read)?;
            let Some(last) = last else { break };
            after = Some(last);
            found.extend(some.filter(|(_, profile)| filter.takes_profile(profile)));
            if found.len() > page.limit {
                break;
            }
        }
        let next = page.cut(&mut found, |(account, _)| account.id.clone());
        Ok::<_, Problem>((found, next))
    });
    let (found, next) = found.await.map_err(|_| Problem::new(Code::Internal, "the list could not be made"))??;
    let views: Vec<View> = found.into_iter().map(|(account, profile)| View::of(account, profile)).collect();
    Ok(answer::list(views, next))
}

/// `POST /v1/accounts`
pub(crate) async fn create(visitor: Visitor, State(admin): Shared, params: Params, body: Bytes) -> Result<Response> {
    let writer = visitor.require(Role::Operator)?;
    params.finish()?;
    let value = input::parse(&body)?;
    change::one(&admin, &writer, &body, |draft| draft_create(draft, value.clone())).await
}

/// A new account.
pub(crate) fn draft_create(draft: &mut Draft<'_>, body: Value) -> Result<Effect> {
    draft.require(Role::Operator)?;
    let form = input::read(body, |object| Form::read(object, draft))?;
    let id = form.id.clone().unwrap_or_else(|| format!("{ID_PREFIX}{}", ulid::Ulid::generate()));
    if !draft.caller.covers(&id) {
        let detail = format!("this token is limited to some accounts, and {id:?} is none of them");
        return Err(Problem::new(Code::TokenLimited, detail));
    }
    if draft.account(&id)?.value.is_some() {
        return Err(Problem::new(Code::AlreadyExists, format!("account {id:?} exists already")));
    }
    let expect = draft.account(&id)?.put(Condition::Absent)?;
    let account = Account {
        id: AccountId::from(id.as_str()),
        tier: form.tier,
        state: form.state,
        region: form.region,
        overrides: form.overrides,
        created_at: draft.now,
        profile: String::new(),
        revision: 0,
        resets: Vec::new(),
    };
    let view = json!(View::of(account.clone(), form.profile.clone()));
    draft.put_account(Condition::None, expect, account, form.profile, true);
    Ok(Effect::created(Kind::Account, &id, view))
}

/// `GET /v1/accounts/{id}`
pub(crate) async fn get(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response> {
    params.finish()?;
    visitor.require_account(&id)?;
    let (account, profile) = freshness::caught_up(&admin.store, || find(&admin.store, &id)).await?;
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
    let patch = input::required(&body)?;
    change::one(&admin, &writer, &body, |draft| draft_patch(draft, &id, condition, patch.clone())).await
}

/// An account with a merge patch laid over it.
pub(crate) fn draft_patch(draft: &mut Draft<'_>, id: &str, condition: Condition, patch: Value) -> Result<Effect> {
    draft.require(Role::Operator)?;
    let ((account, profile), expect) = draft.account(id)?.change(Kind::Account, id, condition)?;
    let (account, profile) = (account.clone(), profile.clone());
    let form = patched(&account, &profile, patch, draft)?;
    let is_new_profile = form.profile != profile;
    let before = account.clone();
    let changed =
        Account { tier: form.tier, state: form.state, region: form.region, overrides: form.overrides, ..account };
    let view = json!(View::of(changed.clone(), form.profile.clone()));
    // What an operation before this one has changed is written anyway, and has no revision yet.
    if changed == before && !is_new_profile && expect != Expect::Any {
        return Ok(Effect::kept(Kind::Account, id, view));
    }
    draft.put_account(condition, expect, changed, form.profile, is_new_profile);
    Ok(Effect::changed(Kind::Account, id, view))
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
    change::one(&admin, &writer, &[], |draft| draft_delete(draft, &id, condition)).await
}

/// An account that goes.
pub(crate) fn draft_delete(draft: &mut Draft<'_>, id: &str, condition: Condition) -> Result<Effect> {
    draft.require(Role::Operator)?;
    let expect = draft.account(id)?.remove(Kind::Account, id, condition)?;
    draft.op(condition, MetaOp::DeleteAccount { id: id.into(), expect });
    draft.set_account(id, None);
    Ok(Effect::gone(Kind::Account, id))
}

/// An account that must exist, for the resources below it.
pub(crate) fn existing(visitor: &Visitor, store: &Store, id: &str) -> Result<Account> {
    visitor.require_account(id)?;
    store.account(&id.into())?.ok_or_else(|| Problem::not_found("account", id))
}

/// An account as the API shows it.
pub(crate) fn show(store: &Store, id: &str) -> Result<Option<Value>> {
    let Some(account) = store.account(&id.into())? else { return Ok(None) };
    let profile = store.profiles(&[(account.id.clone(), account.profile.clone())])?.pop().unwrap_or_default();
    Ok(Some(json!(View::of(account, profile))))
}

/// An account as the API shows it, of its parts.
pub(crate) fn view(account: &Account, profile: &Profile) -> Value {
    json!(View::of(account.clone(), profile.clone()))
}

/// An account as the audit keeps it: without name and metadata, which are kept with its rows alone. `profile` tells whether
/// they were changed.
pub(crate) fn audited(account: Account) -> Value {
    let profile = account.profile.clone();
    let mut view = json!(View::of(account, Profile::default()));
    if let Some(map) = view.as_object_mut() {
        map.shift_remove("name");
        map.shift_remove("metadata");
        map.insert("profile".to_owned(), profile.into());
    }
    view
}

fn find(store: &Store, id: &str) -> Result<(Account, Profile)> {
    let account = store.account(&id.into())?.ok_or_else(|| Problem::not_found("account", id))?;
    let profile = store.profiles(&[(account.id.clone(), account.profile.clone())])?.pop().unwrap_or_default();
    Ok((account, profile))
}

/// The account with a patch laid over it.
fn patched(account: &Account, profile: &Profile, patch: Value, known: &mut impl Tiers) -> Result<Form> {
    let mut whole = json!(View::of(account.clone(), profile.clone()));
    input::merge(&mut whole, patch);
    input::read(whole, |object| {
        let form = Form::read(object, known)?;
        if form.id.as_deref() != Some(account.id.as_str()) {
            object.tell("id", "cannot be changed");
        }
        Some(form)
    })
}

#[cfg(test)]
mod tests;
