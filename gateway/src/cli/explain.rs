//! `tollgate explain`

use std::net::IpAddr;

use clap::Args;
use serde_json::{Value, json};

use super::{
    failure::{Failure, Result},
    named::set,
    output,
    remote::Remote,
};

/// `explain`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate explain key_01M7YCG97NQQWGSKVJ8BWS25DH POST /v3/scan
  tollgate explain key_01M7YCG97NQQWGSKVJ8BWS25DH GET /v4/files --ip 10.1.2.3 -o json
  echo \"$KEY\" | tollgate explain - POST /v3/scan")]
pub(crate) struct Arguments {
    /// A key's id; - reads the key's text from stdin
    key: String,
    /// Method of the request
    #[arg(default_value = "GET")]
    method: String,
    /// Path of the request
    #[arg(default_value = "/")]
    path: String,
    /// Host that it asks for, without port
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Address that it comes from
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// Bytes of its body
    #[arg(long, value_name = "BYTES")]
    body_bytes: Option<u64>,
    #[command(flatten)]
    remote: Remote,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let mut body = json!({ "method": self.method.to_uppercase(), "path": self.path });
        if self.key == "-" {
            let mut text = String::new();
            std::io::stdin().read_line(&mut text)?;
            set(&mut body, "key", Some(text.trim()));
        } else if self.key.starts_with("tg_") {
            return Err(Failure::Usage(
                "a key's text on the command line is in your shell's history: use its id, or - and stdin".into(),
            ));
        } else {
            set(&mut body, "key_id", Some(self.key));
        }
        set(&mut body, "host", self.host);
        set(&mut body, "ip", self.ip.map(|ip| ip.to_string()));
        set(&mut body, "body_bytes", self.body_bytes);
        let answer = self.remote.client()?.post("/v1/explain", &body)?.body;
        self.remote.output.print(&answer, || text(&answer))
    }
}

fn text(answer: &Value) -> String {
    let or_dash = |key: &str| answer[key].as_str().unwrap_or("-").to_owned();
    let verdict = match answer["decided_by"].as_str() {
        Some(decided_by) => format!("{} (by {decided_by})", or_dash("outcome")),
        None => or_dash("outcome"),
    };
    let mut text = format!(
        "{verdict}\naccount {}  tier {}  route {}  upstream {}\n\n",
        or_dash("account"),
        or_dash("tier"),
        or_dash("route"),
        or_dash("upstream")
    );
    text.push_str(&met(answer));
    text
}

/// Steps and policies, of a request that would be as of one that was.
pub(super) fn met(answer: &Value) -> String {
    let none = Vec::new();
    let steps = answer["steps"].as_array().unwrap_or(&none);
    let mut text =
        output::rows(steps, &[("step", "/step"), ("passes", "/passes"), ("detail", "/detail"), ("set by", "/set_by")]);
    let policies = answer["policies"].as_array().unwrap_or(&none);
    if !policies.is_empty() {
        text.push_str("\n\n");
        // Each kind of answer has one of these.
        let last = if policies.iter().any(|policy| policy.get("setting").is_some()) {
            ("setting", "/setting")
        } else {
            ("scope", "/scope")
        };
        text.push_str(&output::rows(
            policies,
            &[
                ("policy", "/name"),
                ("kind", "/kind"),
                ("unit", "/unit"),
                ("limit", "/limit"),
                ("used", "/used"),
                ("remaining", "/remaining"),
                ("needed", "/needed"),
                ("passes", "/passes"),
                ("resets at", "/resets_at"),
                last,
                ("set by", "/set_by"),
            ],
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_comes_first() {
        let answer = json!({
            "outcome": "rate-limited", "decided_by": "per-second", "account": "acme",
            "steps": [{ "step": "key-state", "passes": true, "detail": "ok", "set_by": "/v1/keys/k" }],
            "policies": [{ "name": "per-second", "limit": 5, "passes": false }],
        });
        let text = text(&answer);
        assert!(text.starts_with("rate-limited (by per-second)\naccount acme  tier -"), "{text}");
        assert!(text.contains("POLICY") && text.contains("key-state  true"), "{text}");
    }
}
