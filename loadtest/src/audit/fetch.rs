//! Reads what the cluster has: whose the keys are, and all rows of the run's minutes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Result, ensure};

use super::{
    Audit, Verdict,
    row::{Row, Texts},
    sent::{Duty, Sent},
};
use crate::{
    admin::{Admin, escaped},
    client::uuid_text,
};

/// Rows asked for at once.
const PAGE_ROWS: usize = 1_000;
/// Most rows that are kept; about 200 bytes each.
const MAX_ROWS: usize = 20_000_000;
/// Coalesced rejections are written within a second, streamed answers settled when they end.
const SETTLE: Duration = Duration::from_millis(2_500);
/// Looks until no answer is open any more.
const LOOKS: u32 = 5;
/// Answers whose row is asked for to learn a key's account, before the key counts as unknown.
const PROBES: usize = 8;

/// The accounts of the run: from the file of keys, else from the rows themselves.
pub(crate) fn accounts(admin: &Admin, sent: &[Sent], verdict: &mut Verdict) -> Result<BTreeSet<String>> {
    let mut accounts = BTreeSet::new();
    let mut unknown: BTreeMap<u32, Vec<&Sent>> = BTreeMap::new();
    for sent in sent {
        match &sent.account {
            Some(account) => {
                if !accounts.contains(&**account) {
                    accounts.insert(account.to_string());
                }
            }
            None => {
                let probes = unknown.entry(sent.principal).or_default();
                if sent.duty() == Duty::Row && sent.id != 0 && probes.len() < PROBES {
                    probes.push(sent);
                }
            }
        }
    }
    for probes in unknown.into_values() {
        for probe in probes {
            if let Some(row) = admin.find(&format!("/v1/requests/{}", uuid_text(probe.id)))? {
                accounts.insert(row["account"].as_str().unwrap_or_default().to_owned());
                break;
            }
            // Answered and not in the log: the ledger's judgement comes to it as well, if the account is known otherwise.
            verdict.note_lost(probe, "the log has no such id");
        }
    }
    Ok(accounts)
}

/// All rows of these accounts in the run's minutes, when nothing of the run is open any more.
pub(crate) fn settled_rows(admin: &Admin, accounts: &BTreeSet<String>, audit: &Audit) -> Result<Vec<Row>> {
    for _ in 1..LOOKS {
        std::thread::sleep(SETTLE);
        let rows = rows(admin, accounts, audit)?;
        if !rows.iter().any(|row| row.is_open && row.ours.is_some()) {
            return Ok(rows);
        }
    }
    rows(admin, accounts, audit)
}

fn rows(admin: &Admin, accounts: &BTreeSet<String>, audit: &Audit) -> Result<Vec<Row>> {
    let first = audit.sent.iter().map(|sent| sent.sent_us).min().unwrap_or(0);
    let last = audit.sent.iter().map(|sent| sent.ended_us).max().unwrap_or(0);
    let time = |us: i64| jiff::Timestamp::from_microsecond(us).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string();
    // Whole minutes, as usage is kept; and a while after the end, for requests that their clients gave up.
    let since = escaped(&time(first.div_euclid(60_000_000) * 60_000_000));
    let until = escaped(&time((last.div_euclid(60_000_000) + 2) * 60_000_000));
    let (mut rows, mut texts) = (Vec::new(), Texts::default());
    for account in accounts {
        let query = format!("/v1/requests?limit={PAGE_ROWS}&account={}&since={since}&until={until}", escaped(account));
        let mut cursor: Option<String> = None;
        loop {
            let page = match &cursor {
                None => admin.get(&query)?,
                Some(cursor) => admin.get(&format!("{query}&cursor={}", escaped(cursor)))?,
            };
            let data = page["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            rows.extend(data.iter().filter_map(|row| Row::read(row, audit.run, &mut texts)));
            ensure!(rows.len() <= MAX_ROWS, "more than {MAX_ROWS} rows in the run's minutes: audit a shorter run");
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
    }
    rows.sort_by_key(|row| row.ts_us);
    Ok(rows)
}
