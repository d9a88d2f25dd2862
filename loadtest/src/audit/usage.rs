//! Usage sums against the rows that they are sums of.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;

use super::{Audit, Verdict, row::Row};
use crate::admin::{Admin, escaped};

/// Looks before a difference counts: other traffic may fall between the two answers.
const LOOKS: u32 = 3;

/// What is compared.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Sums {
    requests: u64,
    rejected: u64,
    errors: u64,
    bytes_in: u64,
    bytes_out: u64,
    cost: u64,
}

/// Compares, for every account, over the whole minutes of the run.
pub(crate) fn judge(
    admin: &Admin,
    accounts: &BTreeSet<String>,
    rows: &[Row],
    audit: &Audit,
    verdict: &mut Verdict,
) -> Result<()> {
    const MINUTE_US: i64 = 60_000_000;
    let first = audit.sent.iter().map(|sent| sent.sent_us).min().unwrap_or(0).div_euclid(MINUTE_US) * MINUTE_US;
    let last = (audit.sent.iter().map(|sent| sent.ended_us).max().unwrap_or(0).div_euclid(MINUTE_US) + 1) * MINUTE_US;
    let time = |us: i64| jiff::Timestamp::from_microsecond(us).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string();
    for account in accounts {
        let mut by_rows = Sums::default();
        for row in rows.iter().filter(|row| *row.account == **account && (first..last).contains(&row.ts_us)) {
            by_rows.requests += row.count;
            by_rows.rejected += if row.is_rejected() { row.count } else { 0 };
            by_rows.errors += if row.status >= 500 { row.count } else { 0 };
            by_rows.bytes_in += row.bytes_in;
            by_rows.bytes_out += if row.is_open { 0 } else { row.bytes_out };
            by_rows.cost += if row.is_open { 0 } else { row.cost };
        }
        let path = format!(
            "/v1/accounts/{}/usage?step=minute&since={}&until={}",
            escaped(account),
            escaped(&time(first)),
            escaped(&time(last))
        );
        let mut by_usage = Sums::default();
        for look in 0..LOOKS {
            if look > 0 {
                std::thread::sleep(Duration::from_secs(1));
            }
            by_usage = Sums::default();
            let usage = admin.get(&path)?;
            for step in usage["data"].as_array().map(Vec::as_slice).unwrap_or_default() {
                let number = |name: &str| step[name].as_u64().unwrap_or(0);
                by_usage.requests += number("requests");
                by_usage.rejected += number("rejected");
                by_usage.errors += number("errors");
                by_usage.bytes_in += number("bytes_in");
                by_usage.bytes_out += number("bytes_out");
                by_usage.cost += number("cost");
            }
            if by_usage == by_rows {
                break;
            }
        }
        verdict.usage_judged += 1;
        if by_usage != by_rows {
            let what = format!(
                "usage of account {account} from {} to {}: {by_usage:?}, its rows: {by_rows:?}",
                time(first),
                time(last)
            );
            verdict.note_usage(&what);
        }
    }
    Ok(())
}
