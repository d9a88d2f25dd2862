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

/// Lists and objects within each other. The API takes less; what an older one has taken must still come back.
const MAX_DEPTH: usize = 160;
/// Values in a file: more than the largest document of `apply` has.
const MAX_NODES: usize = 16 << 20;

/// Reads a text.
pub(crate) fn parse(text: &str) -> std::result::Result<Value, String> {
    // JSON first: its reader keeps every number and names line and column.
    if text.trim_start().starts_with(['{', '['])
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
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

    /// Of the thread that a command runs on.
    const STACK: usize = 8 << 20;

    #[test]
    fn whatever_the_api_holds_can_be_written_and_read_back() {
        let check = || {
            // 64 levels and 250,000 values were the reader's own bounds, and an export could not be applied.
            let deep = (0..120).fold(json!(1), |inner, _| json!({ "a": inner }));
            let many: Vec<serde_json::Value> =
                (0..60_000).map(|n| json!({ "id": format!("a-{n}"), "tier": "t" })).collect();
            for value in [json!({ "accounts": [{ "metadata": deep }] }), json!({ "accounts": many })] {
                let text = serde_saphyr::to_string(&value).expect("written");
                assert_eq!(parse(&text), Ok(value));
            }
            assert!(parse(&"- ".repeat(100_000)).is_err());
        };
        let thread = std::thread::Builder::new().stack_size(STACK).spawn(check).expect("a thread");
        thread.join().expect("no panic");
    }
}
