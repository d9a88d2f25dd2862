//! Lost and doubled.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use anyhow::Result;

use super::{
    Audit, Verdict,
    row::Row,
    sent::{Duty, Sent},
};
use crate::{admin::Admin, client::uuid_text};

/// A crash may lose the coalesced rejections of its last second; clocks and the flush's own time beside it.
const CRASH_LOSES_US: i64 = 2_000_000;

/// A node that was killed.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    /// When, microseconds since 1970.
    pub(crate) at_us: i64,
    /// Where clients reached it.
    pub(crate) data_addr: String,
}

/// By key (its principal's number) and outcome.
type Shares<'a> = BTreeMap<(u32, Arc<str>), Vec<&'a Sent>>;

/// Judges.
pub(crate) fn judge(audit: &Audit, admin: &Admin, rows: &[Row], verdict: &mut Verdict) -> Result<()> {
    doubled(rows, verdict);
    let by_ours: HashMap<(u16, u32), &Row> = rows.iter().filter_map(|row| row.ours.map(|ours| (ours, row))).collect();
    let mut keys: HashMap<u32, Arc<str>> = HashMap::new();
    let mut shares = Shares::new();
    let mut unknown: HashMap<u32, u64> = HashMap::new();
    for sent in &audit.sent {
        let row = by_ours.get(&(sent.thread, sent.number)).copied();
        if let Some(row) = row {
            keys.entry(sent.principal).or_insert_with(|| row.key.clone());
        }
        let duty = sent.duty();
        verdict.judged += u64::from(duty != Duty::Unknown);
        match (duty, row) {
            (Duty::Unknown, found) => {
                verdict.unknown += 1;
                verdict.unknown_with_row += u64::from(found.is_some());
                if found.is_none() {
                    *unknown.entry(sent.principal).or_default() += 1;
                }
            }
            (_, Some(row)) => agree(sent, row, verdict),
            (Duty::RowOrShare, None) => {
                shares.entry((sent.principal, sent.code().into())).or_default().push(sent);
            }
            (Duty::Row, None) if sent.id == 0 => {
                verdict.note_lost(sent, "answered without X-Request-Id, and no row has our own id");
            }
            (Duty::Row, None) => {
                // Looked for once more by the gateway's id alone: pages of a list that grows may slip.
                match admin.find(&format!("/v1/requests/{}", uuid_text(sent.id)))? {
                    None => verdict.note_lost(sent, "the log has no such id"),
                    Some(row) if row["client_request_id"].is_string() => {
                        verdict.note_mismatch(sent, &format!("its row belongs to {}", row["client_request_id"]));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    coalesced(audit, rows, &keys, shares, &unknown, verdict);
    Ok(())
}

fn doubled(rows: &[Row], verdict: &mut Verdict) {
    let mut ids: HashMap<u128, &Row> = HashMap::new();
    let mut ours: HashMap<(u16, u32), &Row> = HashMap::new();
    for row in rows.iter().filter(|row| !row.is_coalesced()) {
        let first = ids.insert(row.id, row);
        if first.is_some() {
            verdict.note_doubled(row, &format!("the id {} has two rows", uuid_text(row.id)));
        }
        if let Some(number) = row.ours
            && let Some(first) = ours.insert(number, row)
            && first.id != row.id
        {
            let what = format!("one request, two rows: {} and {}", uuid_text(first.id), uuid_text(row.id));
            verdict.note_doubled(row, &what);
        }
    }
}

/// The row and the answer must say the same.
fn agree(sent: &Sent, row: &Row, verdict: &mut Verdict) {
    if sent.id == 0 && sent.duty() == Duty::Row {
        verdict
            .note_mismatch(sent, &format!("answered without X-Request-Id; its row has the id {}", uuid_text(row.id)));
    } else if sent.id != 0 && row.id != sent.id {
        verdict.note_mismatch(sent, &format!("its row has the id {}", uuid_text(row.id)));
    } else if row.status != sent.status {
        verdict.note_mismatch(sent, &format!("its row says status {}", row.status));
    } else if !matches!(sent.code(), "" | "bad-request" | "request-timeout")
        && *row.outcome != *sent.code()
        && row.is_rejected()
    {
        verdict.note_mismatch(sent, &format!("its row says {}", row.outcome));
    }
}

/// Rejections without a row of their own are in the counts of their key's coalesced ones.
fn coalesced(
    audit: &Audit,
    rows: &[Row],
    keys: &HashMap<u32, Arc<str>>,
    shares: Shares<'_>,
    unknown: &HashMap<u32, u64>,
    verdict: &mut Verdict,
) {
    let mut counted: HashMap<(Arc<str>, Arc<str>), u64> = HashMap::new();
    let first = audit.sent.iter().map(|sent| sent.sent_us).min().unwrap_or(0);
    for row in rows.iter().filter(|row| row.is_coalesced() && row.ts_us >= first) {
        *counted.entry((row.key.clone(), row.outcome.clone())).or_default() += row.count;
    }
    for ((principal, code), sent) in shares {
        let claimed = sent.len() as u64;
        verdict.coalesced += claimed;
        let Some(key) = keys.get(&principal) else {
            // No row of this key at all: all its rejections, if any, are missing with it.
            verdict.note_lost_many(sent[0], claimed, "no row of this key is in the log");
            continue;
        };
        let found = counted.get(&(key.clone(), code.clone())).copied().unwrap_or(0);
        if found < claimed {
            let missing = claimed - found;
            let forgiven = sent.iter().filter(|sent| died_soon_after(sent, &audit.kills)).count() as u64;
            verdict.coalesced_lost_in_crash += missing.min(forgiven);
            if missing > forgiven {
                let what = format!("{claimed} {code} answers without a row of their own, {found} in coalesced rows");
                verdict.note_lost_many(sent[0], missing - forgiven, &what);
            }
        } else if found > claimed + unknown.get(&principal).copied().unwrap_or(0) {
            // Other clients of the same key are not ours to count; told, not judged.
            verdict.coalesced_of_others += found - claimed;
        }
    }
}

fn died_soon_after(sent: &Sent, kills: &[Kill]) -> bool {
    kills.iter().any(|kill| {
        *kill.data_addr == *sent.target
            && (kill.at_us - CRASH_LOSES_US..=kill.at_us + CRASH_LOSES_US).contains(&sent.ended_us)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u128, ours: Option<(u16, u32)>) -> Row {
        Row { id, ours, key: "key".into(), status: 200, outcome: "admitted".into(), count: 1, ..Row::default() }
    }

    #[test]
    fn an_id_with_two_rows_and_a_request_with_two_ids_are_doubled() {
        let mut verdict = Verdict::default();
        doubled(&[row(1, Some((0, 1))), row(2, Some((0, 2))), row(0, None), row(0, None)], &mut verdict);
        assert_eq!(verdict.doubled, 0);
        doubled(&[row(1, Some((0, 1))), row(1, Some((0, 1)))], &mut verdict);
        assert_eq!(verdict.doubled, 1);
        doubled(&[row(1, Some((0, 1))), row(2, Some((0, 1)))], &mut verdict);
        assert_eq!(verdict.doubled, 2);
    }

    #[test]
    fn coalesced_rejections_are_counted_and_a_crash_may_lose_a_second_of_them() {
        let sent = |number: u32, ended_us: i64| Sent {
            thread: 0,
            number,
            principal: 7,
            account: None,
            target: "node".into(),
            status: 429,
            outcome: "429 rate-limited".into(),
            id: u128::from(number) + 100,
            sent_us: 0,
            ended_us,
        };
        let all: Vec<Sent> = (0..10).map(|n| sent(n, 50_000_000)).collect();
        let keys = HashMap::from([(7, Arc::from("key"))]);
        let judge = |count: u64, kills: Vec<Kill>| {
            let audit = Audit { run: 0, sent: all.clone(), kills, before: Default::default(), clock_slack_us: 0 };
            let shares = Shares::from([((7, Arc::from("rate-limited")), all.iter().collect())]);
            let row = Row { count, outcome: "rate-limited".into(), ..row(0, None) };
            let mut verdict = Verdict::default();
            coalesced(&audit, &[row], &keys, shares, &HashMap::new(), &mut verdict);
            (verdict.lost, verdict.coalesced_lost_in_crash)
        };
        let kill = |at_us| vec![Kill { at_us, data_addr: "node".into() }];
        assert_eq!(judge(10, vec![]), (0, 0));
        assert_eq!(judge(9, vec![]), (1, 0));
        assert_eq!(judge(4, kill(50_500_000)), (0, 6));
        assert_eq!(judge(4, kill(99_000_000)), (6, 0));
    }
}
