//! `/v1/tiers/{name}/preview`: how many of the last days' requests of a tier's accounts would have been refused, by account;
//! by the tier as it is, or as a body says. Nothing is changed.

mod replay;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use serde_json::{Value, json};
use store::{
    RowQuery, Store,
    model::{Account, AccountId, KeyId, KeyState, Name, Outcome, Route, Row, SaidCost, Tier, Timestamp},
    view::Policies,
};

use self::replay::{Counts, Replay, Seen};
use super::{
    Shared,
    access::Visitor,
    answer, input,
    params::Params,
    problem::{Problem, Result},
    tiers,
};

const DEFAULT_DAYS: i64 = 7;
/// Rows that one preview looks at; beyond, the time that it covers is shorter, and it says so.
const MAX_ROWS: usize = 1_000_000;
/// Time that one preview may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// Accounts that an answer lists: those that would be refused most.
const LISTED_ACCOUNTS: usize = 1_000;
/// With fewer accounts than this each one's rows are looked for; with more, all rows are looked at.
const FEW_ACCOUNTS: usize = 16;
const AT_ONCE: usize = 1_000;

/// `GET /v1/tiers/{name}/preview`: by the tier as it is.
pub(crate) async fn get(
    visitor: Visitor,
    State(admin): Shared,
    Path(name): Path<String>,
    mut params: Params,
) -> Result<Response> {
    visitor.require_staff()?;
    visitor.caller().require_everywhere()?;
    let days = days(&mut params);
    params.finish()?;
    let tier = admin.store.tier(&name)?.ok_or_else(|| Problem::not_found("tier", &name))?;
    Ok(answer::plain(&preview(&admin.store, tier, days).await?))
}

/// `POST /v1/tiers/{name}/preview`: by the tier that the body says, over the accounts that are in it now.
pub(crate) async fn create(
    visitor: Visitor,
    State(admin): Shared,
    Path(name): Path<String>,
    mut params: Params,
    body: Bytes,
) -> Result<Response> {
    visitor.require_staff()?;
    visitor.caller().require_everywhere()?;
    let days = days(&mut params);
    params.finish()?;
    let tier = input::read(input::required(&body)?, |object| tiers::read(object, &name))?;
    if admin.store.tier(&name)?.is_none() {
        return Err(Problem::not_found("tier", &name));
    }
    Ok(answer::plain(&preview(&admin.store, tier, days).await?))
}

fn days(params: &mut Params) -> i64 {
    let days = params.parsed("days", "a whole number from 1 to 7").unwrap_or(DEFAULT_DAYS);
    if !(1..=DEFAULT_DAYS).contains(&days) {
        params.refuse("days", format!("{days} does not fit; expected a whole number from 1 to 7"));
    }
    days
}

/// What is gathered before anything is decided.
struct Gathered {
    /// Newest first.
    seen: HashMap<AccountId, Vec<Seen>>,
    rows: usize,
    /// Arrivals before this one were not looked at.
    since: Timestamp,
    complete: bool,
}

async fn preview(store: &Store, tier: Tier, days: i64) -> Result<Value> {
    let until = Timestamp::now();
    let since = until.plus_seconds(-days * 86_400);
    let accounts = accounts_of(store, &tier.name)?;
    let routes: HashMap<Name, Route> = store.routes()?.into_iter().map(|route| (route.name.clone(), route)).collect();
    let ids: HashSet<AccountId> = accounts.iter().map(|account| account.id.clone()).collect();
    let gathered = gather(store, &ids, &routes, (since, until)).await?;
    let Gathered { mut seen, since, complete, .. } = gathered;
    let (store, name) = (store.clone(), tier.name.clone());
    // Deciding a million requests takes a second or so.
    let deciding = tokio::task::spawn_blocking(move || {
        let (mut total, mut by_account) = (Counts::default(), Vec::new());
        for account in &accounts {
            let Some(requests) = seen.remove(&account.id) else { continue };
            let counts = decide(&store, &tier, account, &requests)?;
            total.add(&counts);
            by_account.push((account.id.clone(), counts));
        }
        Ok::<_, Problem>((total, by_account))
    });
    let decided = deciding.await.map_err(|error| {
        Problem::new(super::problem::Code::Internal, format!("the preview could not be made: {error}"))
    })?;
    let (total, mut by_account) = decided?;
    by_account.sort_by(|(a, x), (b, y)| y.would_be_refused.cmp(&x.would_be_refused).then_with(|| a.cmp(b)));
    let in_all = by_account.len();
    by_account.truncate(LISTED_ACCOUNTS);
    let mut view = json!({ "tier": name, "since": since, "until": until, "complete": complete });
    view["accounts_in_all"] = in_all.into();
    lay(&mut view, &total);
    let listed = by_account.into_iter().map(|(id, counts)| {
        let mut line = json!({ "account": id });
        lay(&mut line, &counts);
        line
    });
    view["accounts"] = listed.collect();
    Ok(view)
}

fn lay(view: &mut Value, counts: &Counts) {
    for (name, count) in
        [("requests", counts.requests), ("refused", counts.refused), ("would_be_refused", counts.would_be_refused)]
    {
        view[name] = count.into();
    }
    view["by_policy"] = json!(counts.by_policy);
    view["by_shadow"] = json!(counts.by_shadow);
}

fn accounts_of(store: &Store, tier: &str) -> Result<Vec<Account>> {
    let (mut all, mut after) = (Vec::new(), None::<String>);
    loop {
        let some = store.accounts(after.as_deref(), AT_ONCE)?;
        let Some(last) = some.last() else { return Ok(all) };
        after = Some(last.id.to_string());
        all.extend(some.into_iter().filter(|account| *account.tier == *tier));
    }
}

/// The accounts' requests, newest first, as far as there is room and time.
async fn gather(
    store: &Store,
    accounts: &HashSet<AccountId>,
    routes: &HashMap<Name, Route>,
    (since, until): (Timestamp, Timestamp),
) -> Result<Gathered> {
    let ends = Instant::now() + DEADLINE;
    let mut gathered = Gathered { seen: HashMap::new(), rows: 0, since, complete: true };
    let queries: Vec<Option<&AccountId>> =
        if accounts.len() < FEW_ACCOUNTS { accounts.iter().map(Some).collect() } else { vec![None] };
    for account in queries {
        let mut cursor = None;
        loop {
            let query = RowQuery {
                account: account.cloned(),
                since: Some(since),
                until: Some(until),
                limit: AT_ONCE,
                cursor,
                ..RowQuery::default()
            };
            let page = store.requests(query).await?;
            let oldest = page.rows.last().map(|row| row.ts);
            gathered.rows += page.rows.len();
            for row in page.rows.into_iter().filter(|row| accounts.contains(&row.account)) {
                let account = row.account.clone();
                if let Some(seen) = seen(row, routes) {
                    gathered.seen.entry(account).or_default().push(seen);
                }
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
            if gathered.rows >= MAX_ROWS || Instant::now() >= ends {
                gathered.complete = false;
                gathered.since = oldest.map_or(gathered.since, |oldest| oldest.max(gathered.since));
                break;
            }
        }
    }
    // What was gathered of before the time that all are known of would compare unequal spans.
    let since = gathered.since;
    if !gathered.complete {
        gathered.seen.values_mut().for_each(|seen| seen.retain(|one| one.ts >= since));
    }
    Ok(gathered)
}

/// A row as something to be decided anew; none when policies had no part in it.
fn seen(row: Row, routes: &HashMap<Name, Route>) -> Option<Seen> {
    let (decides, was_refused) = match row.outcome {
        Outcome::Admitted | Outcome::UpstreamUnreachable | Outcome::UpstreamTimeout => (true, false),
        Outcome::RateLimited | Outcome::QuotaExceeded | Outcome::ConcurrencyExceeded | Outcome::RouteNotInTier => {
            (true, true)
        }
        _ => (false, false),
    };
    if !decides {
        return None;
    }
    let unspent = || routes.get(&row.route).map_or(1, |route| route.settled_cost(0, Some(SaidCost::Nothing)));
    let cost = if was_refused { unspent() } else { row.cost };
    Some(Seen {
        ts: row.ts,
        cost,
        key: row.key_id,
        route: row.route,
        body_bytes: row.bytes_in,
        duration_us: row.duration_us,
        count: row.count,
        was_refused,
    })
}

/// One account's requests, newest first, decided by a tier with what the account and its keys override.
fn decide(store: &Store, tier: &Tier, account: &Account, requests: &[Seen]) -> Result<Counts> {
    let overrides = Some(&account.overrides).filter(|overrides| !overrides.is_empty());
    let policies = Policies::compile_reset(tier, overrides, &account.resets, account.revision);
    let of_keys = keys_with_own(store, &account.id, &policies)?;
    let mut replay = Replay::new(Arc::new(policies), of_keys);
    requests.iter().rev().for_each(|seen| replay.request(seen));
    Ok(replay.into_counts())
}

fn keys_with_own(store: &Store, account: &AccountId, policies: &Policies) -> Result<HashMap<KeyId, Arc<Policies>>> {
    let (mut of_keys, mut after) = (HashMap::new(), None::<String>);
    loop {
        let some = store.keys(account, after.as_deref(), AT_ONCE)?;
        let Some(last) = some.last() else { return Ok(of_keys) };
        after = Some(last.id.to_string());
        for key in some.into_iter().filter(|key| key.state != KeyState::Revoked && !key.overrides.is_empty()) {
            let own = policies.of_key(&key.id, &key.overrides, key.revision);
            of_keys.insert(key.id, Arc::new(own));
        }
    }
}
