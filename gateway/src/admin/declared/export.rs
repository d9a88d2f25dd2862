//! `GET /v1/export`: the whole configuration as a document that `POST /v1/apply` takes, in a stable order.

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};
use store::{
    Store,
    model::{Key, KeyState, Role},
};

use crate::admin::{
    Shared,
    access::Visitor,
    accounts, freshness, keys,
    params::Params,
    problem::{Problem, Result},
};

/// Accounts that are read and written at once: an export of many takes little memory.
const AT_ONCE: usize = 200;
const KEYS_AT_ONCE: usize = 1_000;

/// `GET /v1/export`
pub(crate) async fn get(visitor: Visitor, State(admin): Shared, params: Params) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?;
    writer.caller().require_everywhere()?;
    params.finish()?;
    let store = admin.store.clone();
    // Read before anything else: what others change while this is written is newer, and an apply will say so.
    let revision = store.revision();
    let head = head(&store, revision)?;
    let parts = futures_util::stream::try_unfold(Some((head, None::<String>)), move |state| {
        let store = store.clone();
        async move {
            let Some((text, after)) = state else { return Ok::<_, std::io::Error>(None) };
            let is_first = after.is_none();
            let read = tokio::task::spawn_blocking(move || {
                freshness::caught_up_blocking(&store, || accounts_after(&store, after.as_deref(), is_first))
            })
            .await;
            let (more, last) = read
                .map_err(std::io::Error::other)?
                .map_err(|problem| std::io::Error::other(format!("{problem:?}")))?;
            Ok(Some(match last {
                Some(last) => (Bytes::from(text), Some((more, Some(last)))),
                None => (Bytes::from(text + &more + "]}\n"), None),
            }))
        }
    });
    let mut response = Body::from_stream(parts).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Everything before the first account.
fn head(store: &Store, revision: u64) -> Result<String> {
    let list = |items: Vec<Value>| Value::Array(items.into_iter().map(declared).collect());
    let document = json!({
        "version": 1,
        "revision": revision,
        "upstreams": list(store.upstreams()?.into_iter().map(|upstream| json!(upstream)).collect()),
        "tiers": list(store.tiers()?.into_iter().map(|tier| json!(tier)).collect()),
        "routes": list(store.routes()?.into_iter().map(|route| json!(route)).collect()),
    });
    let text = document.to_string();
    Ok(format!("{},\"accounts\":[", text.trim_end_matches('}')))
}

/// Some accounts as text, and the last one's id; none when there are no more.
fn accounts_after(store: &Store, after: Option<&str>, is_first: bool) -> Result<(String, Option<String>), Problem> {
    let some = store.accounts(after, AT_ONCE)?;
    let last = some.last().map(|account| account.id.to_string());
    let wanted: Vec<_> = some.iter().map(|account| (account.id.clone(), account.profile.clone())).collect();
    let profiles = store.profiles(&wanted)?;
    let mut text = String::new();
    for (n, (account, profile)) in some.into_iter().zip(profiles).enumerate() {
        let mut view = declared(accounts::view(&account, &profile));
        view["keys"] = Value::Array(keys_of(store, &account.id)?);
        if !(is_first && n == 0) {
            text.push(',');
        }
        text.push_str(&view.to_string());
    }
    Ok((text, last))
}

fn keys_of(store: &Store, account: &store::model::AccountId) -> Result<Vec<Value>, Problem> {
    let (mut all, mut after) = (Vec::new(), None::<String>);
    loop {
        let some = store.keys(account, after.as_deref(), KEYS_AT_ONCE)?;
        let Some(last) = some.last() else { return Ok(all) };
        after = Some(last.id.to_string());
        all.extend(some.into_iter().filter(|key| key.state != KeyState::Revoked).map(declared_key));
    }
}

fn declared_key(key: Key) -> Value {
    let hash: String = key.hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut view = declared(keys::audited(key));
    if let Some(map) = view.as_object_mut() {
        for name in ["id", "account"] {
            map.shift_remove(name);
        }
        map.insert("hash".to_owned(), format!("sha256:{hash}").into());
    }
    view
}

/// A view without what nobody declares and without what is as good as not said.
fn declared(view: Value) -> Value {
    const ANSWERED: [&str; 7] =
        ["resets", "revision", "created_at", "last_used_at", "revoked_at", "rotated_from", "prefix"];
    let Value::Object(map) = view else { return view };
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => map.values().any(|value| value.as_array().is_none_or(|items| !items.is_empty())),
        _ => true,
    };
    let kept: Map<String, Value> =
        map.into_iter().filter(|(name, value)| !ANSWERED.contains(&name.as_str()) && says(value)).collect();
    Value::Object(kept)
}
