//! Gathered columns turned into bytes.

use std::net::IpAddr;

use super::{
    EncodeError, MAX_TEXT_BYTES,
    gather::Gather,
    head::{Section, Writer},
    ints,
    names::{self, Parts},
    wire::{put_varint, zigzag},
    zip,
};

/// The block's bytes.
pub(super) fn block(g: &Gather<'_>) -> Result<Vec<u8>, EncodeError> {
    let min_ts = g.ts.iter().copied().min().ok_or(EncodeError::NoRows)?;
    let max_ts = g.ts.iter().copied().max().ok_or(EncodeError::NoRows)?;
    let names = [&g.accounts, &g.keys, &g.tiers, &g.routes, &g.methods, &g.nodes, &g.regions, &g.quotas];
    let names = names.map(|dictionary| dictionary.names.as_slice());
    check_heap("names", names.iter().copied().flatten().map(Parts::len))?;
    check_heap("paths", g.paths.texts.iter().map(|path| path.len()))?;
    check_heap("decisions", g.decisions.texts.iter().map(|text| text.len()))?;
    check_heap("client request ids", g.client_ids.iter().flatten().map(|id| id.len()))?;

    let mut out = Writer::default();
    out.section(Section::Names, |out| names::put(out, names));
    out.section(Section::Principals, |out| put_tuples(out, &g.principals.values));
    out.section(Section::Principal, |out| put_codes(out, &g.principal, g.principals.values.len()));
    out.section(Section::Shapes, |out| put_tuples(out, &g.shapes.values));
    out.section(Section::Shape, |out| put_codes(out, &g.shape, g.shapes.values.len()));
    out.section(Section::Paths, |out| put_texts(out, &g.paths.texts));
    out.section(Section::Path, |out| put_codes(out, &g.path, g.paths.texts.len()));
    let ts: Vec<u64> = g.ts.iter().map(|ts| ts.wrapping_sub(min_ts) as u64).collect();
    out.section(Section::Ts, |out| ints::put_sorted(out, &ts));
    put_ids(&mut out, g);
    out.section(Section::Cost, |out| ints::put(out, &g.cost));
    out.section(Section::BytesIn, |out| ints::put(out, &g.bytes_in));
    out.section(Section::BytesOut, |out| ints::put(out, &g.bytes_out));
    out.section(Section::Upstream, |out| ints::put(out, &g.upstream_us));
    let rest: Vec<u64> =
        g.duration_us.iter().zip(&g.upstream_us).map(|(all, up)| zigzag(all.wrapping_sub(*up) as i64)).collect();
    out.section(Section::Rest, |out| ints::put(out, &rest));
    let count: Vec<u64> = g.count.iter().map(|count| u64::from(count.wrapping_sub(1))).collect();
    out.section(Section::Count, |out| ints::put(out, &count));
    if g.ips.values != [None] {
        out.section(Section::Ips, |out| put_ips(out, &g.ips.values));
        out.section(Section::Ip, |out| put_codes(out, &g.ip, g.ips.values.len()));
    }
    if g.client_ids.iter().any(Option::is_some) {
        out.section(Section::ClientIds, |out| put_client_ids(out, &g.client_ids));
    }
    if g.traces.iter().any(|trace| *trace != 0) {
        out.section(Section::Traces, |out| put_traces(out, &g.traces));
    }
    if g.lists.values != [vec![]] {
        out.section(Section::Lists, |out| put_lists(out, g));
        out.section(Section::List, |out| put_codes(out, &g.list, g.lists.values.len()));
    }
    if g.decisions.texts != [""] {
        out.section(Section::Decisions, |out| put_texts(out, &g.decisions.texts));
        out.section(Section::Decision, |out| put_codes(out, &g.decision, g.decisions.texts.len()));
    }
    Ok(out.finish(g.rows(), min_ts, max_ts))
}

fn check_heap(heap: &'static str, lengths: impl Iterator<Item = usize>) -> Result<(), EncodeError> {
    let bytes = lengths.sum();
    if bytes > MAX_TEXT_BYTES {
        return Err(EncodeError::TooMuchText { heap, bytes, max: MAX_TEXT_BYTES });
    }
    Ok(())
}

fn put_texts(out: &mut Vec<u8>, texts: &[&str]) {
    put_varint(out, texts.len() as u64);
    put_lengths_and_heap(out, texts.iter().map(|text| text.len() as u64), texts.iter().copied());
}

fn put_lengths_and_heap<'a>(
    out: &mut Vec<u8>,
    lengths: impl Iterator<Item = u64>,
    texts: impl Iterator<Item = &'a str>,
) {
    ints::put(out, &lengths.collect::<Vec<_>>());
    let heap = texts.fold(Vec::new(), |mut heap, text| {
        heap.extend_from_slice(text.as_bytes());
        heap
    });
    zip::put_heap(out, &heap);
}

/// A table of tuples: how many, then field by field.
fn put_tuples<const FIELDS: usize>(out: &mut Vec<u8>, tuples: &[[u64; FIELDS]]) {
    put_varint(out, tuples.len() as u64);
    for field in 0..FIELDS {
        ints::put(out, &tuples.iter().map(|tuple| tuple[field]).collect::<Vec<_>>());
    }
}

/// Codes into a dictionary: 0 for "the next one, not seen yet", else the code + 1. With one value there is nothing to say.
fn put_codes(out: &mut Vec<u8>, codes: &[u64], values: usize) {
    if values == 1 {
        return out.push(0);
    }
    let mut seen = 0;
    let coded: Vec<u64> = codes
        .iter()
        .map(|&code| {
            let fresh = code == seen;
            seen += u64::from(fresh);
            if fresh { 0 } else { code + 1 }
        })
        .collect();
    ints::put(out, &coded);
}

/// Request ids: kind 0 is a UUIDv7 (its milliseconds, 42 bits, 32 bits), 1 is nil, 2 anything else (128 bits).
fn put_ids(out: &mut Writer, g: &Gather<'_>) {
    let (mut kinds, mut ms) = (Vec::with_capacity(g.rows()), Vec::with_capacity(g.rows()));
    let (mut high, mut low) = (Vec::with_capacity(g.rows()), Vec::with_capacity(g.rows()));
    let (mut other_high, mut other_low) = (Vec::new(), Vec::new());
    for (&id, ts) in g.ids.iter().zip(&g.ts) {
        if id == 0 {
            kinds.push(1);
        } else if id >> 76 & 0xf == 7 && id >> 62 & 3 == 2 {
            kinds.push(0);
            ms.push(zigzag(((id >> 80) as i64).wrapping_sub(ts.div_euclid(1000))));
            // RFC 9562: 12 bits of rand_a, then 30 of rand_b's 62. Where a generator keeps a counter it is here.
            high.push((id >> 64 & 0xfff) as u64 * (1 << 30) + (id >> 32 & 0x3fff_ffff) as u64);
            low.push(id as u64 & 0xffff_ffff);
        } else {
            kinds.push(2);
            other_high.push((id >> 64) as u64);
            other_low.push(id as u64);
        }
    }
    out.section(Section::IdKind, |out| ints::put(out, &kinds));
    out.section(Section::IdMs, |out| ints::put(out, &ms));
    out.section(Section::IdHigh, |out| ints::put(out, &high));
    out.section(Section::IdLow, |out| ints::put(out, &low));
    out.section(Section::IdOtherHigh, |out| ints::put(out, &other_high));
    out.section(Section::IdOtherLow, |out| ints::put(out, &other_low));
}

/// Addresses: how many, their kinds (0 none, 1 IPv4, 2 IPv6), the IPv4 ones as numbers, the IPv6 ones in halves.
fn put_ips(out: &mut Vec<u8>, ips: &[Option<IpAddr>]) {
    let (mut kinds, mut v4, mut high, mut low) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for ip in ips {
        match ip {
            None => kinds.push(0),
            Some(IpAddr::V4(ip)) => {
                kinds.push(1);
                v4.push(u64::from(ip.to_bits()));
            }
            Some(IpAddr::V6(ip)) => {
                kinds.push(2);
                high.push((ip.to_bits() >> 64) as u64);
                low.push(ip.to_bits() as u64);
            }
        }
    }
    put_varint(out, ips.len() as u64);
    for column in [&kinds, &v4, &high, &low] {
        ints::put(out, column);
    }
}

/// Length + 1 of each row's text, 0 for none; then the texts.
fn put_client_ids(out: &mut Vec<u8>, ids: &[Option<&str>]) {
    let lengths = ids.iter().map(|id| id.map_or(0, |text| text.len() as u64 + 1));
    put_lengths_and_heap(out, lengths, ids.iter().flatten().copied());
}

/// Which rows have one, then those in halves.
fn put_traces(out: &mut Vec<u8>, traces: &[u128]) {
    let there = |trace: &&u128| **trace != 0;
    ints::put(out, &traces.iter().map(|trace| u64::from(*trace != 0)).collect::<Vec<_>>());
    ints::put(out, &traces.iter().filter(there).map(|trace| (trace >> 64) as u64).collect::<Vec<_>>());
    ints::put(out, &traces.iter().filter(there).map(|trace| *trace as u64).collect::<Vec<_>>());
}

/// Distinct lists of (quota, period start): how many, their lengths, quotas, starts; then the units of every row's charges,
/// as what they differ from the row's cost.
fn put_lists(out: &mut Vec<u8>, g: &Gather<'_>) {
    let lists = &g.lists.values;
    put_varint(out, lists.len() as u64);
    ints::put(out, &lists.iter().map(|list| list.len() as u64).collect::<Vec<_>>());
    ints::put(out, &lists.iter().flatten().map(|(quota, _)| *quota).collect::<Vec<_>>());
    ints::put(out, &lists.iter().flatten().map(|(_, start)| zigzag(*start)).collect::<Vec<_>>());
    let units = g.units.iter().zip(&g.unit_costs);
    ints::put(out, &units.map(|(units, cost)| zigzag(units.wrapping_sub(*cost) as i64)).collect::<Vec<_>>());
}
