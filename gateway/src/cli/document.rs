//! Files that people write: YAML, and JSON, which is YAML too.

use std::{io::Read, path::Path};

use serde_json::Value;

use super::failure::{Failure, Result};

/// Reads a file; `-` is stdin.
pub(crate) fn read(path: &Path) -> Result<Value> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| Failure::Failed(format!("read {}: {error}", path.display())))?;
    parse(&text).map_err(|reason| Failure::Failed(format!("{}: {reason}", path.display())))
}

/// Reads a text.
pub(crate) fn parse(text: &str) -> std::result::Result<Value, String> {
    // JSON first: its reader keeps every number and names line and column.
    if text.trim_start().starts_with(['{', '[']) {
        if let Ok(value) = serde_json::from_str(text) {
            return Ok(value);
        }
    }
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_contracts_tier_reads() {
        let text = "name: free\nlimits:                         # GCRA\n  \
                    - { name: per-second, per: [key, route], rate: 5/s, burst: 15 }\nquotas:\n  \
                    - { name: daily, unit: requests, limit: 10000, period: day, timezone: UTC, overage: block }\n\
                    concurrency: 20\nmax_body_bytes: 500000\n";
        assert_eq!(
            parse(text),
            Ok(json!({
                "name": "free",
                "limits": [{ "name": "per-second", "per": ["key", "route"], "rate": "5/s", "burst": 15 }],
                "quotas": [{ "name": "daily", "unit": "requests", "limit": 10_000, "period": "day", "timezone": "UTC", "overage": "block" }],
                "concurrency": 20, "max_body_bytes": 500_000,
            }))
        );
        assert_eq!(parse("{\"a\": [1, 2.5]}"), Ok(json!({ "a": [1, 2.5] })));
        assert!(parse("a: [1").is_err());
    }
}
