//! What must hold for every block, and what a damaged or forged one must not do.

use std::net::IpAddr;

use proptest::{collection::vec, option, prelude::*};

use super::{Block, BlockError, EncodeError, Filter, MAX_TEXT, encode, head, join};
use crate::model::{Charge, Completion, Name, Outcome, RequestId, Row, Timestamp};

/// Frozen by hand-off to disks: these bytes are read for ever, and format 1 writes no others.
const SMALL: &str = include_str!("testdata/small.hex");
/// Has zipped columns. Read for ever; another zstd may write it otherwise.
const ZIPPED: &str = include_str!("testdata/zipped.hex");
/// Format 2: rows that a policy has decided. Frozen as the first.
const DECIDED: &str = include_str!("testdata/decided.hex");

fn plain(i: u64) -> Row {
    let ts = 1_790_000_000_000_000 + i as i64 * 731;
    Row {
        retention_days: 0,
        request_id: RequestId(u128::from(ts as u64 / 1000) << 80 | 7 << 76 | 2 << 62 | u128::from(i * 7919)),
        ts: Timestamp(ts),
        account: ["acct_01J9ZQ3K5V8W2X4Y6Z7A8B9C0D", "acme"][i as usize % 2].into(),
        key_id: format!("key_01J9ZQ3K5V8W2X4Y6Z7A8B9C0{}", i % 7).into(),
        tier: "pro".into(),
        route: ["items", "orders", ""][i as usize % 3].into(),
        method: "GET".into(),
        path: format!("/v1/items/{}", i % 40).into(),
        status: [200, 429, 404][i as usize % 3],
        outcome: [Outcome::Admitted, Outcome::RateLimited, Outcome::NoRoute][i as usize % 3],
        cost: i % 3,
        bytes_in: i,
        bytes_out: i * 1000,
        upstream_us: 5_000 + i * 37 % 1_000,
        duration_us: 5_200 + i * 37 % 1_000,
        client_ip: [None, Some([10, 0, 0, 1].into()), Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, i as u16 % 5].into())]
            [i as usize % 3],
        client_request_id: (i % 4 == 1).then(|| format!("req-{i}").into()),
        trace_id: if i % 5 == 2 { u128::from(i) << 100 | 3 } else { 0 },
        node: "gw-1".into(),
        region: "eu".into(),
        completion: if i % 6 == 5 { Completion::Open } else { Completion::Complete },
        count: 1 + u32::from(i % 9 == 8),
        settles: i % 11 == 10,
        charges: (0..i % 3)
            .map(|c| Charge { quota: "monthly".into(), period_start: 86_400 * c as i64, units: i })
            .collect(),
        decided_by: Name::default(),
    }
}

/// As plain rows, and some of them decided by a policy.
fn decided_rows(count: u64) -> Vec<Row> {
    let texts = ["", "per-second=5/s burst 15", "", "~daily=10000/day, per-second=5/s burst 15"];
    (0..count).map(|i| Row { decided_by: texts[i as usize % 4].into(), ..plain(i) }).collect()
}

fn plain_rows(count: u64) -> Vec<Row> {
    (0..count).map(plain).collect()
}

fn rows_of(bytes: &[u8]) -> Result<Vec<Row>, BlockError> {
    Ok(Block::open(bytes)?.rows_iter()?.collect())
}

/// Puts the right checksum into changed bytes, as a forger would.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() > head::CHECKED_FROM {
        let checksum = head::checksum(&bytes);
        bytes[2..head::CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    }
    bytes
}

/// Asks for everything; what comes back does not matter, that it comes back does.
fn ask_everything(bytes: &[u8]) -> bool {
    let Ok(block) = Block::open(bytes) else { return false };
    let rows = rows_of(bytes);
    let last = block.rows() as u32 - 1;
    let _ =
        (block.row(0), block.rows_at(&[last, 0]), block.rows_at(&[last + 1]), block.charges(), block.durations_us());
    for filter in filters(&plain(1)) {
        let _ = block.matching(&filter);
    }
    let _ = join(&[bytes, bytes]);
    rows.is_ok()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.as_bytes().chunks(120).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect()
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]{0,2}",
        1 => "acct_[0-7][0-9A-HJKMNP-TV-Z]{25}",
        1 => "[0-9A-Z]{26}",
        1 => "\\PC{0,40}",
    ]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..300u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn request_id() -> impl Strategy<Value = u128> {
    let v7 = |(ms, random): (u64, u128)| {
        u128::from(ms >> 16) << 80 | 7 << 76 | (random >> 64 & 0xfff) << 64 | 2 << 62 | random & ((1 << 62) - 1)
    };
    prop_oneof![4 => (any::<u64>(), any::<u128>()).prop_map(v7), 1 => Just(0), 1 => any::<u128>()]
}

prop_compose! {
    fn any_row()(
        names in (name(), name(), name(), name(), name(), name(), name(), "\\PC{0,60}"),
        decided_by in prop_oneof![3 => Just(String::new()), 1 => name()],
        ts in prop_oneof![4 => 0..5_000_000i64, 1 => any::<i64>()],
        id in request_id(),
        numbers in (number(), number(), number(), number(), number()),
        status in any::<u16>(), outcome in 0..19u8, completion in 0..5u8, settles in any::<bool>(),
        count in prop_oneof![3 => Just(1u32), 1 => Just(0), 1 => any::<u32>()],
        ip in option::of(prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]),
        client_id in option::of("\\PC{0,20}"),
        trace in prop_oneof![2 => Just(0), 1 => any::<u128>()],
        charges in vec((name(), prop_oneof![Just(0i64), any::<i64>()], number()), 0..4),
    ) -> Row {
        Row {
            retention_days: 0,
            request_id: RequestId(id), ts: Timestamp(ts),
            account: names.0.into(), key_id: names.1.into(), tier: names.2.into(), route: names.3.into(),
            method: names.4.into(), node: names.5.into(), region: names.6.into(), path: names.7.into(),
            status, outcome: Outcome::ALL[outcome as usize], completion: Completion::from_u8(completion).unwrap(),
            cost: numbers.0, bytes_in: numbers.1, bytes_out: numbers.2, upstream_us: numbers.3, duration_us: numbers.4,
            client_ip: ip, client_request_id: client_id.map(String::into_boxed_str), trace_id: trace, count, settles,
            charges: charges
                .into_iter()
                .map(|(quota, period_start, units)| Charge { quota: quota.into(), period_start, units })
                .collect(),
            decided_by: decided_by.into(),
        }
    }
}

/// Filters that ask for what this row has, one condition at a time and all at once.
fn filters(row: &Row) -> Vec<Filter> {
    let all = Filter {
        account: Some(row.account.clone()),
        key: Some(row.key_id.clone()),
        route: Some(row.route.clone()),
        status: Some(row.status),
        outcome: Some(row.outcome),
        since: Some(row.ts),
        until: Some(Timestamp(row.ts.0.saturating_add(1))),
        request_id: Some(row.request_id),
    };
    vec![
        Filter::default(),
        Filter { account: all.account.clone(), ..Filter::default() },
        Filter { key: all.key.clone(), ..Filter::default() },
        Filter { route: all.route.clone(), ..Filter::default() },
        Filter { status: all.status, ..Filter::default() },
        Filter { outcome: all.outcome, ..Filter::default() },
        Filter { since: all.since, ..Filter::default() },
        Filter { until: Some(row.ts), ..Filter::default() },
        Filter { request_id: all.request_id, ..Filter::default() },
        Filter { account: Some("nobody".into()), ..Filter::default() },
        Filter { route: all.route.clone(), since: all.since, account: all.account.clone(), ..Filter::default() },
        all,
    ]
}

fn naive(rows: &[Row], f: &Filter) -> Vec<u32> {
    let holds = |row: &Row| {
        f.account.as_ref().is_none_or(|account| *account == row.account)
            && f.key.as_ref().is_none_or(|key| *key == row.key_id)
            && f.route.as_ref().is_none_or(|route| *route == row.route)
            && f.status.is_none_or(|status| status == row.status)
            && f.outcome.is_none_or(|outcome| outcome == row.outcome)
            && f.since.is_none_or(|since| row.ts >= since)
            && f.until.is_none_or(|until| row.ts < until)
            && f.request_id.is_none_or(|id| id == row.request_id)
    };
    (0..rows.len() as u32).filter(|i| holds(&rows[*i as usize])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn rows_come_back_as_they_were(rows in vec(any_row(), 1..90)) {
        let bytes = encode(&rows).unwrap();
        let block = Block::open(&bytes).unwrap();
        prop_assert_eq!(block.rows(), rows.len());
        prop_assert_eq!(Some(block.min_ts()), rows.iter().map(|row| row.ts).min());
        prop_assert_eq!(Some(block.max_ts()), rows.iter().map(|row| row.ts).max());
        prop_assert_eq!(rows_of(&bytes).unwrap(), rows);
    }

    #[test]
    fn joined_blocks_are_the_block_of_all_rows(rows in vec(any_row(), 3..60), cuts in (1..20usize, 1..40usize)) {
        let (first, rest) = rows.split_at(cuts.0.min(rows.len() - 2));
        let (second, third) = rest.split_at((cuts.1 % rest.len()).max(1));
        let parts: Vec<Vec<u8>> = [first, second, third].iter().map(|rows| encode(rows).unwrap()).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let joined = join(&parts).unwrap();
        prop_assert_eq!(&rows_of(&joined).unwrap(), &rows);
        prop_assert_eq!(joined, encode(&rows).unwrap());
    }

    #[test]
    fn a_filter_finds_what_looking_at_every_row_finds(rows in vec(any_row(), 1..40), which in any::<prop::sample::Index>()) {
        let bytes = encode(&rows).unwrap();
        for filter in filters(which.get(&rows)) {
            prop_assert_eq!(Block::open(&bytes).unwrap().matching(&filter).unwrap(), naive(&rows, &filter), "{:?}", filter);
        }
    }

    #[test]
    fn forged_bytes_never_panic(
        count in prop_oneof![1..4u64, 60..130u64],
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = encode(&decided_rows(count)).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        (bytes[0], bytes[1]) = (head::MAGIC, head::VERSION);
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        ask_everything(&sealed(bytes));
    }

    #[test]
    fn noise_with_a_right_head_never_panics(noise in vec(any::<u8>(), 0..200)) {
        let mut bytes = vec![head::MAGIC, head::VERSION, 0, 0, 0, 0];
        bytes.extend(noise);
        ask_everything(&sealed(bytes));
    }
}

#[test]
fn every_single_byte_forged_never_panics() {
    let good = encode(&decided_rows(3)).unwrap();
    let mut still_read = 0;
    for at in head::CHECKED_FROM..good.len() {
        for change in (0..8).map(|bit| 1 << bit).chain([0x0f, 0x55, 0x7f, 0xff]) {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            still_read += u32::from(ask_everything(&sealed(bytes)));
        }
    }
    assert!(still_read > 100, "forged values that make sense are read, or this test asks nothing: {still_read}");
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_error() {
    let good = encode(&plain_rows(5)).unwrap();
    for length in 0..good.len() {
        assert!(Block::open(&good[..length]).is_err(), "cut to {length} bytes");
    }
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Block::open(&bytes).is_err(), "bit {bit} flipped");
    }
    assert!(Block::open(&[&good[..], &[0]].concat()).is_err(), "one byte more");
}

#[test]
fn a_row_outside_the_heads_times_is_damage_that_a_query_by_time_cannot_miss() {
    let rows = [0, 5].map(|ts| Row { ts: Timestamp(ts), ..plain(0) });
    let mut bytes = encode(&rows).unwrap();
    assert_eq!(bytes[6..9], [2, 0, 5], "rows, min_ts, span");
    bytes[8] = 4;
    let bytes = sealed(bytes);
    let block = Block::open(&bytes).unwrap();
    assert_eq!(block.timestamps(), Err(BlockError::Damaged("a time outside its head's bounds")));
    assert!(block.matching(&Filter { since: Some(Timestamp(3)), ..Filter::default() }).is_err());
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let mut bytes = encode(&plain_rows(1)).unwrap();
    bytes[1] = 9;
    let error = Block::open(&bytes).unwrap_err();
    assert_eq!(error, BlockError::NewerVersion { version: 9, newest: head::VERSION });
    assert!(error.to_string().contains("written by a newer version"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_by_its_field() {
    assert_eq!(encode(&[]), Err(EncodeError::NoRows));
    let long = "x".repeat(MAX_TEXT + 1);
    let mut row = plain(1);
    row.path = Name::from(long.as_str());
    let refused = |field| Err(EncodeError::TextTooLong { field, bytes: MAX_TEXT + 1, max: MAX_TEXT });
    assert_eq!(encode(&[row]), refused("path"));
    assert_eq!(
        encode(&[Row { client_request_id: Some(long.as_str().into()), ..plain(1) }]),
        refused("client_request_id")
    );
    assert_eq!(encode(&[Row { account: long.as_str().into(), ..plain(1) }]), refused("account"));
    let longest = Row { path: "x".repeat(MAX_TEXT).into(), ..plain(1) };
    assert_eq!(rows_of(&encode(std::slice::from_ref(&longest)).unwrap()).unwrap(), [longest]);
}

#[test]
fn equal_rows_give_equal_bytes_wherever_their_texts_lie() {
    let rows = plain_rows(300);
    // A reader's rows share their texts, `plain` makes each anew.
    let shared = rows_of(&encode(&rows).unwrap()).unwrap();
    let elsewhere = std::thread::spawn(|| encode(&plain_rows(300))).join().unwrap().unwrap();
    assert_eq!(encode(&rows).unwrap(), encode(&shared).unwrap());
    assert_eq!(encode(&rows).unwrap(), elsewhere, "another thread hashes from another start");
}

#[test]
fn columns_agree_with_rows() {
    let rows = plain_rows(200);
    let bytes = encode(&rows).unwrap();
    let block = Block::open(&bytes).unwrap();
    let (charges, shapes, principals) =
        (block.charges().unwrap(), block.shapes().unwrap(), block.principals().unwrap());
    for (i, row) in rows.iter().enumerate() {
        let units: Vec<Charge> = charges
            .of(i)
            .map(|(quota, period_start, units)| Charge { quota: quota.clone(), period_start, units })
            .collect();
        assert_eq!(units, row.charges);
        assert_eq!((&shapes.get(i).route, shapes.get(i).status), (&row.route, row.status));
        assert_eq!(principals.get(i).account, row.account);
        assert_eq!(block.row(i).unwrap().as_ref(), Some(row));
    }
    assert_eq!(block.row(200).unwrap(), None);
    assert_eq!(block.rows_at(&[7, 3]).unwrap(), [rows[7].clone(), rows[3].clone()]);
}

#[test]
fn one_row_costs_little_beyond_its_texts() {
    let row = plain(1);
    let texts = [&row.tier, &row.route, &row.method, &row.path, &row.node, &row.region];
    let texts: usize = texts.iter().map(|text| text.len()).sum::<usize>() + row.account.len() + row.key_id.len();
    let bytes = encode(&[row]).unwrap().len();
    assert!(bytes <= texts + 115, "{bytes} bytes, {texts} of them texts");
}

#[test]
fn the_small_block_is_frozen() {
    let bytes = encode(&plain_rows(3)).unwrap();
    assert_eq!(rows_of(&from_hex(SMALL)).unwrap(), plain_rows(3), "format 1 is not read any more");
    assert_eq!(to_hex(&bytes), SMALL, "format 1 is written otherwise: raise the version");
}

#[test]
fn the_decided_block_is_frozen() {
    let bytes = encode(&decided_rows(4)).unwrap();
    assert_eq!(bytes[1], 2, "its format");
    if std::env::var_os("TOLLGATE_WRITE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/state/block/testdata/decided.hex");
        std::fs::write(path, to_hex(&bytes)).unwrap();
    }
    assert_eq!(rows_of(&from_hex(DECIDED)).unwrap(), decided_rows(4), "format 2 is not read any more");
    assert_eq!(to_hex(&bytes), DECIDED, "format 2 is written otherwise: raise the version");
    let mut older = bytes;
    older[1] = 1;
    assert_eq!(
        rows_of(&sealed(older)),
        Err(BlockError::Damaged("a column that its format does not know")),
        "format 1 has no such column"
    );
}

#[test]
fn the_zipped_block_is_read_for_ever() {
    assert_eq!(rows_of(&from_hex(ZIPPED)).unwrap(), plain_rows(100));
}
