//! Makes the demo's objects through the admin API, as a user would.

use std::net::SocketAddr;

use anyhow::Context;
use serde_json::{Value, json};
use store::model::Secret;
use zeroize::Zeroizing;

use crate::{
    cli::{Client, OnlyIf},
    tls::ClientFiles,
};

/// What was made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) free_key: String,
    pub(super) enterprise_key: String,
}

/// Puts upstream, route, tiers, accounts and keys. Blocks.
pub(super) fn make(admin_url: &str, token: &Secret, upstream: SocketAddr) -> anyhow::Result<Made> {
    let client = Client::new(admin_url, Some(Zeroizing::new(token.expose().to_owned())), &ClientFiles::default())?;
    let put = |path: &str, body: Value| {
        client.put(path, &body, &OnlyIf::Always).with_context(|| format!("put {path}")).map(drop)
    };
    put("/v1/upstreams/scan-api", json!({ "targets": [{ "url": format!("http://{upstream}") }] }))?;
    put("/v1/routes/scan", json!({ "match": { "path_prefix": "/v3" }, "upstream": "scan-api" }))?;
    put(
        "/v1/tiers/free",
        json!({
            "limits": [{ "name": "per-second", "per": ["key", "route"], "rate": "5/s", "burst": 15 }],
            "quotas": [{ "name": "daily", "unit": "requests", "limit": 10_000, "period": "day" }],
            "concurrency": 20,
            "max_body_bytes": 500_000,
        }),
    )?;
    put(
        "/v1/tiers/enterprise",
        json!({
            "limits": [{ "name": "per-second", "per": ["key", "route"], "rate": "1000/s", "burst": 3_000 }],
            "quotas": [{ "name": "monthly", "unit": "content-bytes", "limit": 10_000_000_000_u64, "period": "month", "overage": "allow" }],
            "concurrency": 500,
            "max_body_bytes": 5_000_000,
        }),
    )?;
    Ok(Made {
        free_key: account(&client, "demo-free", "Free demo", "free")?,
        enterprise_key: account(&client, "demo-enterprise", "Enterprise demo", "enterprise")?,
    })
}

/// Makes an account and a key for it; returns the key's secret.
fn account(client: &Client, id: &str, name: &str, tier: &str) -> anyhow::Result<String> {
    let body = json!({ "id": id, "name": name, "tier": tier, "metadata": { "made_by": "demo" } });
    client.post("/v1/accounts", &body).with_context(|| format!("make the account {id}"))?;
    let key = client
        .post(&format!("/v1/accounts/{id}/keys"), &json!({ "name": "demo" }))
        .with_context(|| format!("make a key for {id}"))?;
    key.body["secret"].as_str().map(str::to_owned).context("read the new key's secret")
}
