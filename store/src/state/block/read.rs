//! A block that is read, column by column.

mod sections;
mod strings;

pub(super) use self::strings::Strings;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    BlockError, Charges, Column, MAX_CHARGES, Principal, Shape,
    head::{self, Head, Section},
    ints,
    names::{Dictionary, Names},
    texts::{Built, Texts},
    wire::unzigzag,
};
use crate::model::{Completion, Name, Outcome, RequestId, Timestamp};

/// A block's bytes with their head read and their checksum proven. Opening decompresses nothing; each accessor reads the
/// columns that it names, every time that it is called, and fails when one of them is damaged.
#[derive(Debug, Clone)]
pub struct Block<'a> {
    bytes: &'a [u8],
    head: Head,
}

impl<'a> Block<'a> {
    /// Reads the head and proves the checksum.
    ///
    /// # Errors
    /// No block, a newer version's, or damaged.
    pub fn open(bytes: &'a [u8]) -> Result<Self, BlockError> {
        Ok(Self { bytes, head: head::read(bytes)? })
    }

    /// Number of rows, at least 1.
    pub fn rows(&self) -> usize {
        self.head.rows
    }

    /// The earliest arrival.
    pub fn min_ts(&self) -> Timestamp {
        Timestamp(self.head.min_ts)
    }

    /// The latest arrival.
    pub fn max_ts(&self) -> Timestamp {
        Timestamp(self.head.max_ts)
    }

    /// Account, key and tier.
    pub fn principals(&self) -> Result<Column<Principal>, BlockError> {
        self.principals_over(&self.names()?, &mut Built)
    }

    pub(in crate::state) fn principals_over(
        &self,
        names: &Names,
        texts: &mut impl Texts,
    ) -> Result<Column<Principal>, BlockError> {
        let values = self.principal_values(names, texts)?;
        let codes = self.principal_codes(values.len())?;
        Ok(Column { values, codes })
    }

    /// Route, method, node, region, status, outcome, completion, settles.
    pub fn shapes(&self) -> Result<Column<Shape>, BlockError> {
        self.shapes_over(&self.names()?, &mut Built)
    }

    pub(in crate::state) fn shapes_over(
        &self,
        names: &Names,
        texts: &mut impl Texts,
    ) -> Result<Column<Shape>, BlockError> {
        let values = self.shape_values(names, texts)?;
        let codes = self.shape_codes(values.len())?;
        Ok(Column { values, codes })
    }

    /// Paths.
    pub fn paths(&self) -> Result<Column<Name>, BlockError> {
        let (texts, codes) = self.path_texts()?;
        Ok(Column { values: texts.iter().map(Name::from).collect(), codes })
    }

    /// The distinct paths, and each row's.
    pub(super) fn path_texts(&self) -> Result<(Strings, Vec<u32>), BlockError> {
        let mut from = self.section(Section::Paths);
        let count = from.count(self.rows(), "more paths than rows")?;
        let lengths = ints::read(&mut from, count)?;
        let texts = Strings::read(&mut from, lengths.into_iter().map(Some))?;
        from.end()?;
        Ok((texts, self.codes(Section::Path, count)?))
    }

    /// What decided, as rows keep it; empty for nothing.
    pub fn decisions(&self) -> Result<Column<Name>, BlockError> {
        let (texts, codes) = self.decision_texts()?;
        Ok(Column { values: texts.iter().map(Name::from).collect(), codes })
    }

    /// The distinct texts of what decided, and each row's.
    pub(super) fn decision_texts(&self) -> Result<(Strings, Vec<u32>), BlockError> {
        let mut from = self.section(Section::Decisions);
        if from.left() == 0 {
            return Ok((Strings::nothing(), self.codes(Section::Decision, 1)?));
        }
        let count = from.count(self.rows(), "more decisions than rows")?;
        let lengths = ints::read(&mut from, count)?;
        let texts = Strings::read(&mut from, lengths.into_iter().map(Some))?;
        from.end()?;
        Ok((texts, self.codes(Section::Decision, count)?))
    }

    /// Arrivals; each is within [`Self::min_ts`] and [`Self::max_ts`].
    pub fn timestamps(&self) -> Result<Vec<Timestamp>, BlockError> {
        let span = self.head.max_ts.wrapping_sub(self.head.min_ts) as u64;
        let since = self.ints(Section::Ts, self.rows())?;
        if since.iter().any(|since| *since > span) {
            return Err(BlockError::Damaged("a time outside its head's bounds"));
        }
        Ok(since.into_iter().map(|since| Timestamp(self.head.min_ts.wrapping_add(since as i64))).collect())
    }

    /// Request ids; nil for coalesced rejections.
    pub fn request_ids(&self) -> Result<Vec<RequestId>, BlockError> {
        let kinds = self.ints(Section::IdKind, self.rows())?;
        let v7 = kinds.iter().filter(|kind| **kind == 0).count();
        let nil = kinds.iter().filter(|kind| **kind == 1).count();
        let ms = self.ints(Section::IdMs, v7)?;
        let high = self.ints(Section::IdHigh, v7)?;
        let low = self.ints(Section::IdLow, v7)?;
        let other_high = self.ints(Section::IdOtherHigh, self.rows() - v7 - nil)?;
        let other_low = self.ints(Section::IdOtherLow, self.rows() - v7 - nil)?;
        let mut v7 = ms.into_iter().zip(high.into_iter().zip(low));
        let mut other = other_high.into_iter().zip(other_low);
        let id = |(kind, ts): (u64, Timestamp)| {
            let id = match kind {
                0 => {
                    let (ms, (high, low)) = v7.next()?;
                    let ms = unzigzag(ms).wrapping_add(ts.0.div_euclid(1000)) as u64;
                    if ms >> 48 != 0 || high >> 42 != 0 || low >> 32 != 0 {
                        return None;
                    }
                    let (a, b) = (u128::from(high >> 30), u128::from(high & 0x3fff_ffff));
                    u128::from(ms) << 80 | 7 << 76 | a << 64 | 2 << 62 | b << 32 | u128::from(low)
                }
                1 => 0,
                2 => other.next().map(|(high, low)| u128::from(high) << 64 | u128::from(low))?,
                _ => return None,
            };
            Some(RequestId(id))
        };
        let ids: Option<Vec<RequestId>> = kinds.into_iter().zip(self.timestamps()?).map(id).collect();
        ids.ok_or(BlockError::Damaged("a request id of no known form"))
    }

    /// Cost units.
    pub fn costs(&self) -> Result<Vec<u64>, BlockError> {
        self.ints(Section::Cost, self.rows())
    }

    /// Bytes of the requests' bodies.
    pub fn bytes_in(&self) -> Result<Vec<u64>, BlockError> {
        self.ints(Section::BytesIn, self.rows())
    }

    /// Bytes of the responses' bodies.
    pub fn bytes_out(&self) -> Result<Vec<u64>, BlockError> {
        self.ints(Section::BytesOut, self.rows())
    }

    /// Times of the upstream.
    pub fn upstream_us(&self) -> Result<Vec<u64>, BlockError> {
        self.ints(Section::Upstream, self.rows())
    }

    /// From arrival to the end of the answer.
    pub fn durations_us(&self) -> Result<Vec<u64>, BlockError> {
        self.durations_over(&self.upstream_us()?)
    }

    pub(super) fn durations_over(&self, upstream_us: &[u64]) -> Result<Vec<u64>, BlockError> {
        let rest = self.ints(Section::Rest, self.rows())?;
        Ok(rest.iter().zip(upstream_us).map(|(rest, up)| up.wrapping_add(unzigzag(*rest) as u64)).collect())
    }

    /// 1, or the number of coalesced rejections.
    pub fn counts(&self) -> Result<Vec<u32>, BlockError> {
        let count = |less: u64| u32::try_from(less).map(|less| less.wrapping_add(1));
        let counts: Result<Vec<u32>, _> = self.ints(Section::Count, self.rows())?.into_iter().map(count).collect();
        counts.map_err(|_| BlockError::Damaged("a count of more than 32 bits"))
    }

    /// Clients' addresses.
    pub fn client_ips(&self) -> Result<Column<Option<IpAddr>>, BlockError> {
        let mut from = self.section(Section::Ips);
        if from.left() == 0 {
            return Ok(Column { values: vec![None], codes: self.codes(Section::Ip, 1)? });
        }
        let count = from.count(self.rows(), "more addresses than rows")?;
        let kinds = ints::read(&mut from, count)?;
        let v4 = ints::read(&mut from, kinds.iter().filter(|kind| **kind == 1).count())?;
        let v6 = kinds.iter().filter(|kind| **kind == 2).count();
        let high = ints::read(&mut from, v6)?;
        let low = ints::read(&mut from, v6)?;
        from.end()?;
        let (mut v4, mut v6) = (v4.into_iter(), high.into_iter().zip(low));
        let ip = |kind| match kind {
            0 => Some(None),
            1 => Some(Some(IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(v4.next()?).ok()?)))),
            2 => {
                v6.next().map(|(high, low)| Some(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()))
            }
            _ => None,
        };
        let values: Option<Vec<Option<IpAddr>>> = kinds.into_iter().map(ip).collect();
        let values = values.ok_or(BlockError::Damaged("an address of no known form"))?;
        let codes = self.codes(Section::Ip, values.len())?;
        Ok(Column { values, codes })
    }

    /// Clients' own request ids.
    pub fn client_request_ids(&self) -> Result<Vec<Option<Box<str>>>, BlockError> {
        let texts = self.client_id_texts()?;
        Ok(texts.map_or_else(|| vec![None; self.rows()], |texts| texts.options().map(|id| id.map(Box::from)).collect()))
    }

    /// The same as texts of one heap; none when no row has one.
    pub(super) fn client_id_texts(&self) -> Result<Option<Strings>, BlockError> {
        let mut from = self.section(Section::ClientIds);
        if from.left() == 0 {
            return Ok(None);
        }
        let lengths = ints::read(&mut from, self.rows())?;
        let texts = Strings::read(&mut from, lengths.into_iter().map(|length| length.checked_sub(1)))?;
        from.end()?;
        Ok(Some(texts))
    }

    /// W3C trace ids; 0 for none.
    pub fn trace_ids(&self) -> Result<Vec<u128>, BlockError> {
        let mut from = self.section(Section::Traces);
        if from.left() == 0 {
            return Ok(vec![0; self.rows()]);
        }
        let there = ints::read(&mut from, self.rows())?;
        let count = there.iter().filter(|there| **there != 0).count();
        let high = ints::read(&mut from, count)?;
        let low = ints::read(&mut from, count)?;
        from.end()?;
        let mut traces = high.into_iter().zip(low).map(|(high, low)| u128::from(high) << 64 | u128::from(low));
        Ok(there.iter().map(|there| if *there == 0 { 0 } else { traces.next().unwrap_or(0) }).collect())
    }

    /// What the rows take from quotas.
    pub fn charges(&self) -> Result<Charges, BlockError> {
        self.charges_over(&self.names()?, &self.costs()?, &mut Built)
    }

    pub(in crate::state) fn charges_over(
        &self,
        names: &Names,
        costs: &[u64],
        texts: &mut impl Texts,
    ) -> Result<Charges, BlockError> {
        let RawCharges { lists, codes, units, starts } = self.raw_charges(costs)?;
        let names = texts.names(names, Dictionary::Quota);
        let named = |list: Vec<(u64, i64)>| {
            list.into_iter().map(|(quota, start)| Ok((pick(&names, quota)?, start))).collect::<Result<Vec<_>, _>>()
        };
        let values = lists.into_iter().map(named).collect::<Result<_, BlockError>>()?;
        Ok(Charges { lists: Column { values, codes }, units, starts })
    }

    /// The charges with quotas as codes.
    pub(super) fn raw_charges(&self, costs: &[u64]) -> Result<RawCharges, BlockError> {
        let mut from = self.section(Section::Lists);
        if from.left() == 0 {
            let codes = self.codes(Section::List, 1)?;
            return Ok(RawCharges { lists: vec![Vec::new()], codes, units: Vec::new(), starts: vec![0; self.rows()] });
        }
        let too_many = BlockError::Damaged("more charges than a block holds");
        let count = from.count(self.rows(), "more charge lists than rows")?;
        let lengths = ints::read(&mut from, count)?;
        let sum = |lengths: &mut dyn Iterator<Item = u64>| {
            let sum = lengths.fold(0u64, u64::saturating_add);
            if sum > MAX_CHARGES as u64 { Err(too_many) } else { Ok(sum as usize) }
        };
        let distinct = sum(&mut lengths.iter().copied())?;
        let quotas = ints::read(&mut from, distinct)?;
        let periods = ints::read(&mut from, distinct)?;
        let mut flat = quotas.into_iter().zip(periods.into_iter().map(unzigzag));
        let lists = lengths.iter().map(|&length| flat.by_ref().take(length as usize).collect()).collect();
        let codes = self.codes(Section::List, count)?;
        let all = sum(&mut codes.iter().map(|code| lengths[*code as usize]))?;
        let more = ints::read(&mut from, all)?;
        from.end()?;
        let (mut units, mut starts) = (Vec::with_capacity(all), Vec::with_capacity(self.rows()));
        for (row, &code) in codes.iter().enumerate() {
            starts.push(units.len() as u32);
            let end = units.len() + lengths[code as usize] as usize;
            let cost = costs[row];
            units.extend(more[units.len()..end].iter().map(|more| cost.wrapping_add(unzigzag(*more) as u64)));
        }
        Ok(RawCharges { lists, codes, units, starts })
    }

    fn principal_values(&self, names: &Names, texts: &mut impl Texts) -> Result<Vec<Principal>, BlockError> {
        let (accounts, keys, tiers) = (texts.accounts(names), texts.keys(names), texts.names(names, Dictionary::Tier));
        let [account, key, tier] = self.principal_tuples()?;
        let value = |row: usize| {
            Ok(Principal {
                account: pick(&accounts, account[row])?,
                key_id: pick(&keys, key[row])?,
                tier: pick(&tiers, tier[row])?,
            })
        };
        (0..account.len()).map(value).collect()
    }

    /// account, key, tier
    pub(in crate::state) fn principal_tuples(&self) -> Result<[Vec<u64>; 3], BlockError> {
        self.tuples(Section::Principals)
    }

    pub(super) fn principal_codes(&self, values: usize) -> Result<Vec<u32>, BlockError> {
        self.codes(Section::Principal, values)
    }

    fn shape_values(&self, names: &Names, texts: &mut impl Texts) -> Result<Vec<Shape>, BlockError> {
        let [routes, methods, nodes, regions] =
            [Dictionary::Route, Dictionary::Method, Dictionary::Node, Dictionary::Region]
                .map(|of| texts.names(names, of));
        let [route, method, node, region, status, outcome, completion, settles] = self.shape_tuples()?;
        let unknown = BlockError::Damaged("a status, outcome or completion that is unknown");
        let value = |row: usize| {
            let small = |number: u64| u8::try_from(number).map_err(|_| unknown);
            Ok(Shape {
                route: pick(&routes, route[row])?,
                method: pick(&methods, method[row])?,
                node: pick(&nodes, node[row])?,
                region: pick(&regions, region[row])?,
                status: u16::try_from(status[row]).map_err(|_| unknown)?,
                outcome: Outcome::from_u8(small(outcome[row])?).ok_or(unknown)?,
                completion: Completion::from_u8(small(completion[row])?).ok_or(unknown)?,
                settles: settles[row] != 0,
            })
        };
        (0..route.len()).map(value).collect()
    }

    /// route, method, node, region, status, outcome, completion, settles
    pub(super) fn shape_tuples(&self) -> Result<[Vec<u64>; 8], BlockError> {
        self.tuples(Section::Shapes)
    }

    pub(super) fn shape_codes(&self, values: usize) -> Result<Vec<u32>, BlockError> {
        self.codes(Section::Shape, values)
    }
}

/// Charges with quotas as codes of the names section.
pub(super) struct RawCharges {
    pub(super) lists: Vec<Vec<(u64, i64)>>,
    /// Each row's list.
    pub(super) codes: Vec<u32>,
    pub(super) units: Vec<u64>,
    /// Where each row's units start.
    pub(super) starts: Vec<u32>,
}

pub(super) fn pick<T: Clone>(names: &[T], code: u64) -> Result<T, BlockError> {
    let name = usize::try_from(code).ok().and_then(|code| names.get(code));
    name.cloned().ok_or(BlockError::Damaged("a name outside its dictionary"))
}
