//! The limits and quotas of an account: its tier's, with its own overrides in their place.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::admin::{Admin, escaped};

/// A rate limit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limit {
    /// Its name.
    pub(crate) name: String,
    /// What it counts apart: account, key, route.
    pub(crate) per: Vec<String>,
    /// A microsecond.
    pub(crate) per_us: f64,
    /// As the tier says it.
    pub(crate) rate: String,
    /// At once.
    pub(crate) burst: f64,
}

/// A quota.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Quota {
    /// Its name.
    pub(crate) name: String,
    /// requests, content-bytes, cost.
    pub(crate) unit: String,
    /// Units a period.
    pub(crate) limit: u64,
    /// Above the limit nothing is admitted.
    pub(crate) blocks: bool,
}

/// What an account may.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Policies {
    /// Its tier.
    pub(crate) tier: String,
    /// Rate limits.
    pub(crate) limits: Vec<Limit>,
    /// Quotas.
    pub(crate) quotas: Vec<Quota>,
    /// At once.
    pub(crate) concurrency: Option<u64>,
}

impl Policies {
    /// Of an account, now. Policies that end are left out: whether they had ended at a row's time is not known here.
    pub(crate) fn of(admin: &Admin, account: &str) -> Result<Self> {
        let account = admin.get(&format!("/v1/accounts/{}", escaped(account)))?;
        let tier = account["tier"].as_str().unwrap_or_default();
        let tier = admin.get(&format!("/v1/tiers/{}", escaped(tier)))?;
        Self::read(&tier, &account["overrides"])
    }

    fn read(tier: &Value, overrides: &Value) -> Result<Self> {
        let list = |of: &Value, name: &str| of[name].as_array().cloned().unwrap_or_default();
        let merged = |name: &str| {
            let own = list(overrides, name);
            let is_own = |policy: &Value| own.iter().any(|own| own["name"] == policy["name"]);
            let mut all: Vec<Value> = list(tier, name).into_iter().filter(|policy| !is_own(policy)).collect();
            all.extend(own.iter().filter(|policy| policy["expires_at"].is_null()).cloned());
            all
        };
        Ok(Self {
            tier: tier["name"].as_str().unwrap_or_default().to_owned(),
            limits: merged("limits").iter().map(limit).collect::<Result<_>>()?,
            quotas: merged("quotas").iter().map(quota).collect::<Result<_>>()?,
            concurrency: tier["concurrency"].as_u64(),
        })
    }
}

fn limit(of: &Value) -> Result<Limit> {
    let rate = of["rate"].as_str().context("a limit without a rate")?;
    let per = of["per"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(Limit {
        name: of["name"].as_str().unwrap_or_default().to_owned(),
        per: per.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        per_us: per_us(rate).with_context(|| format!("a limit's rate {rate:?}: expected one like 5/s"))?,
        rate: rate.to_owned(),
        burst: of["burst"].as_f64().context("a limit without a burst")?,
    })
}

fn per_us(rate: &str) -> Option<f64> {
    let (units, period) = rate.split_once('/')?;
    let seconds = match period {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Some(units.parse::<f64>().ok()? / seconds / 1e6)
}

fn quota(of: &Value) -> Result<Quota> {
    Ok(Quota {
        name: of["name"].as_str().unwrap_or_default().to_owned(),
        unit: of["unit"].as_str().unwrap_or("requests").to_owned(),
        limit: of["limit"].as_u64().context("a quota without a limit")?,
        blocks: of["overage"].as_str() != Some("allow"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_accounts_own_policies_take_the_place_of_its_tiers() {
        let tier = json!({
            "name": "free", "concurrency": 20,
            "limits": [{ "name": "a", "per": ["key"], "rate": "5/s", "burst": 15 }, { "name": "b", "per": ["account"], "rate": "60/m", "burst": 2 }],
            "quotas": [{ "name": "daily", "unit": "requests", "limit": 10, "period": "day", "overage": "allow" }],
        });
        let own = json!({ "limits": [
            { "name": "b", "per": ["account"], "rate": "3600/h", "burst": 9 },
            { "name": "c", "per": ["account"], "rate": "1/s", "burst": 1, "expires_at": "2030-01-01T00:00:00Z" },
        ] });
        let policies = Policies::read(&tier, &own).expect("reads");
        let of: Vec<_> =
            policies.limits.iter().map(|limit| (limit.name.as_str(), limit.per_us * 1e6, limit.burst)).collect();
        assert_eq!(of, [("a", 5.0, 15.0), ("b", 1.0, 9.0)]);
        assert_eq!((policies.concurrency, policies.quotas[0].blocks), (Some(20), false));
    }
}
