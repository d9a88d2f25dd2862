//! Over-admission by quotas.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use super::{Verdict, policy::Policies, row::Row};
use crate::admin::{Admin, escaped};

/// Units of an account's quotas that are used or spoken for, by account and quota, with the end of the period.
pub(crate) type Standings = BTreeMap<(String, String), (u64, Option<String>)>;

/// What the cluster says now; accounts that it does not know are left out.
pub(crate) fn standings(admin: &Admin, accounts: &[String]) -> Standings {
    let mut all = Standings::new();
    for account in accounts {
        let Ok(now) = admin.get(&format!("/v1/accounts/{}/limits", escaped(account))) else { continue };
        all.extend(quotas_of(account, &now));
    }
    all
}

fn quotas_of(account: &str, now: &Value) -> Standings {
    let policies = now["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let quotas = policies.iter().filter(|policy| policy["kind"] == "quota");
    quotas
        .map(|policy| {
            let units = |name: &str| policy[name].as_u64().unwrap_or(0);
            let name = policy["name"].as_str().unwrap_or_default().to_owned();
            let spoken_for = units("used") + units("reserved") + units("unsettled");
            ((account.to_owned(), name), (spoken_for, policy["resets_at"].as_str().map(str::to_owned)))
        })
        .collect()
}

/// Judges every quota of every account.
pub(crate) fn judge(
    admin: &Admin,
    rows: &[Row],
    policies: &BTreeMap<String, Policies>,
    before: &Standings,
    verdict: &mut Verdict,
) -> Result<()> {
    for (account, policies) in policies.iter().filter(|(_, policies)| !policies.quotas.is_empty()) {
        let now = quotas_of(account, &admin.get(&format!("/v1/accounts/{}/limits", escaped(account)))?);
        for quota in &policies.quotas {
            verdict.quotas_judged += 1;
            let key = (account.clone(), quota.name.clone());
            let Some((spoken_for, resets_at)) = now.get(&key) else { continue };
            if quota.blocks && *spoken_for > quota.limit {
                let what = format!(
                    "quota {:?} of account {account}: {spoken_for} {} are used or reserved, at most {} may be",
                    quota.name, quota.unit, quota.limit
                );
                verdict.note_over(spoken_for - quota.limit, i64::MAX, &what);
            }
            // What the rows of this run took, when it all was in the period at hand.
            let own = rows.iter().filter(|row| *row.account == **account && row.is_admitted() && row.ours.is_some());
            let units: u64 = match quota.unit.as_str() {
                "requests" => own.count() as u64,
                "cost" => own.map(|row| row.cost).sum(),
                _ => continue,
            };
            let Some((already, same_period)) = before.get(&key).map(|(units, end)| (*units, end == resets_at)) else {
                if quota.blocks && units > quota.limit {
                    let what = format!(
                        "quota {:?} of account {account}: the run's rows alone took {units} {}, at most {} may be",
                        quota.name, quota.unit, quota.limit
                    );
                    verdict.note_over(units - quota.limit, i64::MAX, &what);
                }
                continue;
            };
            if same_period && already + units > *spoken_for {
                let what = format!(
                    "quota {:?} of account {account}: {already} {} before the run and {units} by its rows, but only {spoken_for} are counted",
                    quota.name, quota.unit
                );
                verdict.note_usage(&what);
            }
        }
    }
    Ok(())
}
