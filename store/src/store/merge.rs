//! Listings over all ledger groups, as if they were one.
//!
//! Rows are in order of (arrival, group, number in the group), all descending. Each group answers from a place of its own
//! that follows from the common one; what lies beyond the place that some group has read to is not known yet and comes on
//! the next page.

use std::cmp::Reverse;

use super::{ReadError, RowPage, RowQuery};
use crate::{
    model::{Alert, AlertPlace, GroupId, Row, Timestamp},
    state::{self, RowPlace, State},
};

/// A row's place among those of all groups; greater is newer.
type Place = (Timestamp, GroupId, u64);

/// A page of the rows of several groups. A cursor of a single group's listing is one too: of the first group.
///
/// # Errors
/// As a listing of one group.
pub(super) fn rows(states: &[(GroupId, std::sync::Arc<State>)], query: &RowQuery) -> Result<RowPage, ReadError> {
    let before = query.cursor.as_deref().map(parse).transpose()?;
    let mut all: Vec<(Place, Row)> = Vec::new();
    let mut known_to: Option<Place> = None;
    for (group, state) in states {
        let page = state.rows_before(query, before.map(|before| in_group(before, *group)))?;
        all.extend(page.rows.into_iter().map(|((ts, seq), row)| ((ts, *group, seq), row)));
        known_to = known_to.max(page.more.map(|(ts, seq)| (ts, *group, seq)));
    }
    let limit = query.limit.clamp(1, state::PAGE_ROWS);
    all.retain(|(place, _)| known_to.is_none_or(|known_to| *place >= known_to));
    all.sort_unstable_by_key(|(place, _)| Reverse(*place));
    let is_full = all.len() > limit || all.len() == limit && known_to.is_some();
    all.truncate(limit);
    let more = if is_full { all.last().map(|(place, _)| *place) } else { known_to };
    Ok(RowPage { rows: all.into_iter().map(|(_, row)| row).collect(), next_cursor: more.map(cursor) })
}

/// From where a group's rows are not listed yet.
fn in_group((ts, listed, seq): Place, group: GroupId) -> RowPlace {
    match group.cmp(&listed) {
        std::cmp::Ordering::Equal => (ts, seq),
        // Of the same instant, its rows come after: none was listed.
        std::cmp::Ordering::Less => (ts, u64::MAX),
        // Its rows of that instant were before.
        std::cmp::Ordering::Greater => (ts, 0),
    }
}

fn cursor((ts, group, seq): Place) -> String {
    format!("{}{:08x}", state::cursor((ts, seq)), group.0)
}

fn parse(text: &str) -> Result<Place, ReadError> {
    let (place, group) = match text.len() {
        40 => text.split_at_checked(32).ok_or(ReadError::Cursor)?,
        _ => (text, "00000001"),
    };
    let (ts, seq) = state::parse_cursor(place)?;
    let is_hex = group.bytes().all(|byte| byte.is_ascii_hexdigit());
    let group = u32::from_str_radix(group, 16).ok().filter(|_| is_hex).ok_or(ReadError::Cursor)?;
    Ok((ts, GroupId(group), seq))
}

/// Alerts of several groups, newest first, before one. Each group's are all looked at: they are few, and not in order of time
/// where clocks differ.
///
/// # Errors
/// The disk.
pub(super) fn alerts(
    states: &[(GroupId, std::sync::Arc<State>)],
    before: Option<AlertPlace>,
    limit: usize,
    takes: &mut dyn FnMut(&Alert) -> bool,
) -> Result<Vec<(AlertPlace, Alert)>, ReadError> {
    type Key = (Timestamp, AlertPlace);
    let before: Option<Key> = match before {
        None => None,
        Some(place) => {
            let of = states.iter().find(|(group, _)| *group == place.group).map(|(_, state)| state);
            // One that is kept no more was the oldest of all.
            let Some(alert) = of.map(|state| state.alert(place)).transpose()?.flatten() else { return Ok(Vec::new()) };
            Some((alert.at, place))
        }
    };
    let mut best: std::collections::BTreeMap<Key, Alert> = std::collections::BTreeMap::new();
    for (_, state) in states {
        state.each_alert(&mut |place, alert| {
            let key = (alert.at, place);
            if before.is_none_or(|before| key < before) && takes(&alert) {
                best.insert(key, alert);
                if best.len() > limit {
                    best.pop_first();
                }
            }
        })?;
    }
    Ok(best.into_iter().rev().map(|((_, place), alert)| (place, alert)).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::{
            Charge, ColdCommand, Command, Completion, LogId, NodeId, Outcome, RequestId, Reservation, RowBatch, Watch,
        },
        state::{Entry, Options, Payload, block},
    };

    /// A group in a directory of its own.
    struct Rig {
        state: Arc<State>,
        entries: u64,
        _dir: tempfile::TempDir,
    }

    impl Rig {
        fn new(group: GroupId) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let options = Options { cache_bytes: 1 << 20, ..Options::default() };
            let state = Arc::new(State::open(dir.path(), group, options).expect("opens"));
            Self { state, entries: 0, _dir: dir }
        }

        fn apply(&mut self, command: impl Into<Command>) {
            self.entries += 1;
            let id = LogId { term: 1, index: self.entries };
            let payload = Payload::Command(command.into().encode());
            self.state.apply(&[Entry { id, payload }]).expect("applied");
        }

        fn rows(&mut self, rows: &[Row]) {
            let block = block::encode(rows).expect("a block").into();
            let (node, rows) = (NodeId(1), u32::try_from(rows.len()).expect("few"));
            self.apply(Command::Rows(RowBatch {
                node,
                incarnation: 1,
                batch: self.entries + 1,
                rows,
                class: 0,
                block,
            }));
        }
    }

    fn rigs() -> Vec<Rig> {
        (1..=3).map(|group| Rig::new(GroupId(group))).collect()
    }

    fn states(rigs: &[Rig]) -> Vec<(GroupId, Arc<State>)> {
        (1..).map(GroupId).zip(rigs.iter().map(|rig| rig.state.clone())).collect()
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_unix_seconds(1_790_000_000 + i64::try_from(second).expect("small"))
    }

    pub(in crate::store) fn row(number: u64, second: u64) -> Row {
        let ts = at(second);
        let ms = u128::try_from(ts.0 / 1_000).expect("after 1970");
        let request_id = RequestId(ms << 80 | 7 << 76 | 2 << 62 | u128::from(number));
        Row {
            request_id,
            ts,
            account: "acme".into(),
            key_id: "key_1".into(),
            tier: "free".into(),
            route: "scan".into(),
            method: "GET".into(),
            path: "/".into(),
            status: 200,
            outcome: Outcome::Admitted,
            cost: 1,
            bytes_in: 0,
            bytes_out: 0,
            upstream_us: 0,
            duration_us: 0,
            client_ip: None,
            client_request_id: None,
            trace_id: 0,
            node: "a".into(),
            region: "".into(),
            completion: Completion::Complete,
            count: 1,
            settles: false,
            decided_by: "".into(),
            retention_days: 0,
            charges: Vec::new(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        /// However rows fall on groups and blocks, also many of one instant: pages show each once, newest first, and what is
        /// added between two pages disturbs no older row.
        #[test]
        fn pages_of_several_groups_are_one_listing(
            batches in prop::collection::vec((0usize..3, prop::collection::vec(0u64..6, 1..9)), 1..9),
            limit in 1usize..7,
        ) {
            let mut rigs = rigs();
            let (mut number, mut all) = (0, Vec::new());
            for (group, seconds) in batches {
                let rows: Vec<Row> = seconds.iter().map(|second| {
                    number += 1;
                    row(number, *second)
                }).collect();
                all.extend(rows.iter().map(|row| (row.ts, row.request_id)));
                rigs[group].rows(&rows);
            }
            let states = states(&rigs);
            let mut query = RowQuery { limit, ..RowQuery::default() };
            let mut listed = Vec::new();
            loop {
                let page = rows(&states, &query).expect("a page");
                prop_assert!(page.rows.len() <= limit);
                listed.extend(page.rows.iter().map(|row| (row.ts, row.request_id)).filter(|(ts, _)| *ts < at(100)));
                let Some(cursor) = page.next_cursor else { break };
                query.cursor = Some(cursor);
                if number < 100 {
                    number += 1;
                    rigs[(number % 3) as usize].rows(&[row(number, 100 + number)]);
                }
            }
            prop_assert!(listed.windows(2).all(|pair| pair[0].0 >= pair[1].0), "newest first");
            listed.sort_unstable();
            all.sort_unstable();
            prop_assert_eq!(listed, all);
        }
    }

    #[test]
    fn cursors_of_one_group_go_on_and_others_are_refused() {
        let mut rigs = rigs();
        rigs[0].rows(&[row(1, 1), row(2, 2)]);
        rigs[1].rows(&[row(3, 1)]);
        let mut query = RowQuery { limit: 1, ..RowQuery::default() };
        let first = rigs[0].state.rows(&query).expect("a page");
        query = RowQuery { limit: 9, cursor: first.next_cursor, ..query };
        assert_eq!(rows(&states(&rigs), &query).expect("a page").rows.len(), 2);
        for bad in ["", "x", &"0".repeat(39), &"g".repeat(40), &format!("{}0000000g", "0".repeat(32))] {
            query.cursor = Some((*bad).to_owned());
            assert!(matches!(rows(&states(&rigs), &query), Err(ReadError::Cursor)), "{bad}");
        }
    }

    #[test]
    fn alerts_of_several_groups_are_in_order_of_time_and_each_is_shown_once() {
        let mut rigs = rigs();
        for (n, rig) in (0u64..).zip(&mut rigs) {
            let watch = Watch { limit: 4, thresholds: vec![25, 50, 75, 100], shadow: false, period_end: i64::MAX };
            let (node, account, quota) = (NodeId(1), "acme".into(), "daily".into());
            let watch = Some(watch);
            rig.apply(ColdCommand::Reserve(vec![Reservation {
                node,
                incarnation: 1,
                account,
                quota,
                period_start: 0,
                units: 4,
                limit: 4,
                watch,
                look_at: None,
            }]));
            for used in 0..4 {
                let charges = vec![Charge { quota: "daily".into(), period_start: 0, units: 1 }];
                rig.rows(&[Row { charges, ..row(n * 10 + used, used * 3 + n / 2) }]);
            }
        }
        let states = states(&rigs);
        let whole = alerts(&states, None, 100, &mut |_| true).expect("reads");
        assert_eq!(whole.len(), 12);
        assert!(whole.windows(2).all(|pair| pair[0].1.at >= pair[1].1.at));
        for limit in 1..5 {
            let (mut paged, mut before) = (Vec::new(), None);
            loop {
                let page = alerts(&states, before, limit, &mut |_| true).expect("reads");
                let Some((last, _)) = page.last() else { break };
                before = Some(*last);
                paged.extend(page);
            }
            assert_eq!(paged, whole, "pages of {limit}");
        }
    }
}
