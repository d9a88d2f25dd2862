//! Over-admission by quotas.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use serde_json::Value;

use super::{Verdict, policy::Policies, row::Row};
use crate::{
    admin::{Admin, escaped},
    exit::Usage,
};

/// Accounts asked for at once.
const AT_ONCE: usize = 8;

/// Where an account stands with a quota.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Standing {
    /// Units that are used for good.
    used: u64,
    /// These, and those that nodes have reserved or had when they died: what is used is at most this.
    spoken_for: u64,
    /// The end of its period.
    resets_at: Option<String>,
}

impl Standing {
    /// Whether it counts less than was used before and so many units since, in the same period. What was only reserved
    /// before may have been given back.
    fn misses(&self, before: &Self, units: u64) -> bool {
        before.resets_at == self.resets_at && before.used + units > self.spoken_for
    }
}

/// By account and quota.
pub(crate) type Standings = BTreeMap<(String, String), Standing>;

/// What the cluster says now, asked for several accounts at once.
pub(crate) fn standings(admin: &Admin, accounts: &[String]) -> Result<Standings> {
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Ok(Standings::new()));
    let read = || {
        while let Some(account) = accounts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let now = now(admin, account);
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *all, now) {
                (Ok(all), Ok(now)) => all.extend(now),
                (Ok(_), Err(error)) => *all = Err(error),
                (Err(_), _) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(accounts.len()) {
            scope.spawn(read);
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn now(admin: &Admin, account: &str) -> Result<Standings> {
    let found = admin.find(&format!("/v1/accounts/{}/limits", escaped(account)))?;
    let unknown = || Usage::error(format!("the keys name the account {account:?}, which the cluster does not know"));
    Ok(quotas_of(account, &found.ok_or_else(unknown)?))
}

fn quotas_of(account: &str, now: &Value) -> Standings {
    let policies = now["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let quotas = policies.iter().filter(|policy| policy["kind"] == "quota");
    quotas
        .map(|policy| {
            let units = |name: &str| policy[name].as_u64().unwrap_or(0);
            let name = policy["name"].as_str().unwrap_or_default().to_owned();
            let standing = Standing {
                used: units("used"),
                spoken_for: units("used") + units("reserved") + units("unsettled"),
                resets_at: policy["resets_at"].as_str().map(str::to_owned),
            };
            ((account.to_owned(), name), standing)
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
        let now = now(admin, account)?;
        for quota in &policies.quotas {
            verdict.quotas_judged += 1;
            let key = (account.clone(), quota.name.clone());
            let Some(now) = now.get(&key) else { continue };
            let spoken_for = &now.spoken_for;
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
            let Some(before) = before.get(&key) else {
                if quota.blocks && units > quota.limit {
                    let what = format!(
                        "quota {:?} of account {account}: the run's rows alone took {units} {}, at most {} may be",
                        quota.name, quota.unit, quota.limit
                    );
                    verdict.note_over(units - quota.limit, i64::MAX, &what);
                }
                continue;
            };
            if now.misses(before, units) {
                let what = format!(
                    "quota {:?} of account {account}: {} {} before the run and {units} by its rows, but only {spoken_for} are counted",
                    quota.name, before.used, quota.unit
                );
                verdict.note_usage(&what);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reserved_and_given_back_is_not_missing() {
        let standing = |used, spoken_for, period: &str| Standing { used, spoken_for, resets_at: Some(period.into()) };
        // 45 were with a node that took none of them.
        let before = standing(5, 50, "today");
        assert!(!standing(8, 8, "today").misses(&before, 3));
        assert!(standing(8, 8, "today").misses(&before, 4));
        assert!(!standing(0, 0, "tomorrow").misses(&before, 4));
    }
}
