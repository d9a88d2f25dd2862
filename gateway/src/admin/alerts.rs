//! `/v1/alerts`: quotas whose use has passed a threshold, newest first. `/v1/accounts/{id}/overages`: what was used beyond
//! limits that let it through, to be billed apart.

use axum::{
    extract::{Path, State},
    response::Response,
};
use serde::Serialize;
use store::model::{AccountId, Alert, AlertPlace, GroupId, OverageRecord, Quota, Timestamp};

use super::{Shared, access::Visitor, accounts, answer, params::Params, problem::Result};

/// An alert as the API shows it.
#[derive(Debug, Serialize)]
struct View {
    id: String,
    at: Timestamp,
    account: AccountId,
    /// The key whose own quota it is.
    key_id: Option<String>,
    quota: String,
    threshold: u16,
    limit: u64,
    used: u64,
    shadow: bool,
    period_start: Timestamp,
    period_end: Timestamp,
}

impl View {
    fn of(place: AlertPlace, alert: Alert) -> Self {
        Self {
            id: id(place),
            at: alert.at,
            account: alert.account,
            key_id: Quota::key_of_counter(&alert.counter).map(str::to_owned),
            quota: Quota::name_of_counter(&alert.counter).to_owned(),
            threshold: alert.threshold,
            limit: alert.limit,
            used: alert.used,
            shadow: alert.shadow,
            period_start: Timestamp::from_unix_seconds(alert.period_start),
            period_end: Timestamp::from_unix_seconds(alert.period_end),
        }
    }
}

/// Its entry, its number there, and its ledger group where that is not the first.
fn id(place: AlertPlace) -> String {
    let AlertPlace { group, index, number } = place;
    if group == GroupId::LEDGER { format!("{index}-{number}") } else { format!("{index}-{number}-{group}") }
}

fn place(id: &str) -> Option<AlertPlace> {
    let mut parts = id.split('-');
    let (index, number) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let group = parts.next().map_or(Ok(GroupId::LEDGER), |group| group.parse().map(GroupId)).ok()?;
    parts.next().is_none().then_some(AlertPlace { group, index, number })
}

/// `GET /v1/alerts`
pub(crate) async fn list(visitor: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    let page = params.page();
    let before = page.after.as_deref().and_then(place);
    if page.after.is_some() && before.is_none() {
        params.refuse("cursor", "is not valid: use a next_cursor as it was given");
    }
    let mut account = params.slug("account").map(AccountId::from);
    let (since, until) = (params.time("since"), params.time("until"));
    if since.zip(until).is_some_and(|(since, until)| since > until) {
        params.refuse_meaning("until", "is before since");
    }
    if account.is_none() && visitor.caller().is_limited() {
        account.clone_from(&visitor.caller().account);
        if account.is_none() {
            params.refuse("account", "is required: this token is limited to some accounts");
        }
    }
    params.finish()?;
    if let Some(account) = &account {
        visitor.require_account(account)?;
    }
    let takes = move |alert: &Alert| {
        account.as_ref().is_none_or(|account| *account == alert.account)
            && since.is_none_or(|since| alert.at >= since)
            && until.is_none_or(|until| alert.at < until)
    };
    let mut found = admin.store.alerts(before, page.limit + 1, takes).await?;
    let next = page.cut(&mut found, |(place, _)| id(*place));
    let views: Vec<View> = found.into_iter().map(|(place, alert)| View::of(place, alert)).collect();
    Ok(answer::list(views, next))
}

/// Units beyond a limit as the API shows them.
#[derive(Debug, Serialize)]
struct Overage {
    quota: String,
    key_id: Option<String>,
    limit: u64,
    used: u64,
    overage: u64,
    shadow: bool,
    period_start: Timestamp,
    period_end: Timestamp,
}

impl From<OverageRecord> for Overage {
    fn from(record: OverageRecord) -> Self {
        Self {
            quota: Quota::name_of_counter(&record.counter).to_owned(),
            key_id: Quota::key_of_counter(&record.counter).map(str::to_owned),
            limit: record.limit,
            used: record.used,
            overage: record.used.saturating_sub(record.limit),
            shadow: record.shadow,
            period_start: Timestamp::from_unix_seconds(record.period_start),
            period_end: Timestamp::from_unix_seconds(record.period_end),
        }
    }
}

/// `GET /v1/accounts/{id}/overages`
pub(crate) async fn overages(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Response> {
    let (since, until) = (params.time("since"), params.time("until"));
    if since.zip(until).is_some_and(|(since, until)| since > until) {
        params.refuse_meaning("until", "is before since");
    }
    params.finish()?;
    let account = accounts::existing(&visitor, &admin.store, &id)?.id;
    let mut all: Vec<Overage> = admin
        .store
        .overages(account)
        .await?
        .into_iter()
        .map(Overage::from)
        .filter(|of| {
            since.is_none_or(|since| of.period_end > since) && until.is_none_or(|until| of.period_start < until)
        })
        .collect();
    all.sort_by(|a, b| (a.period_start, &a.quota, &a.key_id).cmp(&(b.period_start, &b.quota, &b.key_id)));
    Ok(answer::list(all, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alerts_id_is_its_place() {
        for group in [GroupId::LEDGER, GroupId(3)] {
            let at = AlertPlace { group, index: 17, number: 3 };
            assert_eq!(place(&id(at)), Some(at));
        }
        assert_eq!(place("17-3"), Some(AlertPlace { group: GroupId::LEDGER, index: 17, number: 3 }));
        for bad in ["", "17", "17-", "a-1", "-1-2", "17-99999999999", "17-3-", "17-3-1-1"] {
            assert_eq!(place(bad), None, "{bad}");
        }
    }
}
