//! A column of integers: frame of reference or deltas, then byte planes.
//!
//! Planes put the bytes of one weight side by side: the low ones of a duration are noise and stay as they are, the high ones
//! are few values and shrink. Which is which is told by counting collisions in a sample, in integers alone, so that the
//! bytes do not depend on a platform's logarithm.

use super::{
    BlockError,
    wire::{Reader, put_varint, unzigzag, zigzag},
    zip,
};

/// Tag byte: bits 0-3 the width in bytes (0 to 8), then these.
const DELTAS: u8 = 0x10;
const BASE: u8 = 0x20;
const ZIPPED: u8 = 0x40;
const WIDTH: u8 = 0x0f;

/// Fewer values stay unzipped.
const LEAST_ZIPPED: usize = 48;
/// Values looked at to tell noise from signal.
const SAMPLE: usize = 256;

/// Appends the column. All zeros, or no values at all, are the single byte 0.
pub(super) fn put(out: &mut Vec<u8>, values: &[u64]) {
    let (least, most) = values.iter().fold((u64::MAX, 0), |(least, most), &v| (least.min(v), most.max(v)));
    // A frame of reference that is no narrower only costs its own bytes.
    let saved = (width_of(most) - width_of(most.saturating_sub(least))) * values.len();
    let least = if saved > varint_bytes(least) { least } else { 0 };
    put_planes(out, values.len(), 0, least, most - least, |i| values[i] - least);
}

/// The same with deltas where they are narrower: for what is nearly sorted.
pub(super) fn put_sorted(out: &mut Vec<u8>, values: &[u64]) {
    let (least, most) = values.iter().fold((u64::MAX, 0), |(least, most), &v| (least.min(v), most.max(v)));
    let delta = |i: usize| zigzag(values[i + 1].wrapping_sub(values[i]) as i64);
    let count = values.len().saturating_sub(1);
    let widest = (0..count).map(delta).fold(0, u64::max);
    if width_of(widest) < width_of(most.wrapping_sub(least)) {
        put_planes(out, count, DELTAS, values[0], widest, delta);
    } else {
        put(out, values);
    }
}

fn varint_bytes(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

fn width_of(value: u64) -> usize {
    (8 - value.leading_zeros() as usize / 8).min(8)
}

fn put_planes(out: &mut Vec<u8>, count: usize, tag: u8, base: u64, widest: u64, value: impl Fn(usize) -> u64) {
    let width = width_of(widest);
    let tag_at = out.len();
    out.push(tag | width as u8);
    if base != 0 {
        out[tag_at] |= BASE;
        put_varint(out, base);
    }
    let mask_at = out.len();
    let mut signal = Vec::new();
    let mut mask = 0u8;
    for plane in 0..width {
        let start = out.len();
        out.extend((0..count).map(|i| (value(i) >> (8 * plane)) as u8));
        if count >= LEAST_ZIPPED && has_signal(&out[start..]) {
            mask |= 1 << plane;
            signal.extend_from_slice(&out[start..]);
            out.truncate(start);
        }
    }
    if mask == 0 {
        return;
    }
    if zip::put_frame(out, &signal) {
        out[tag_at] |= ZIPPED;
        out.insert(mask_at, mask);
        return;
    }
    // It did not pay after all: every plane as it is.
    out.truncate(mask_at);
    for plane in 0..width {
        out.extend((0..count).map(|i| (value(i) >> (8 * plane)) as u8));
    }
}

/// Whether pairs of equal bytes are more than twice as frequent as in noise.
fn has_signal(plane: &[u8]) -> bool {
    let mut seen = [0u16; 256];
    let step = plane.len().div_ceil(SAMPLE);
    let (mut pairs, mut sampled) = (0u32, 0u32);
    for &byte in plane.iter().step_by(step) {
        let times = &mut seen[usize::from(byte)];
        pairs += u32::from(*times);
        *times += 1;
        sampled += 1;
    }
    pairs * 256 > sampled * sampled.saturating_sub(1)
}

/// Reads a column of `count` values, which the caller has bounded.
pub(super) fn read(from: &mut Reader<'_>, count: usize) -> Result<Vec<u64>, BlockError> {
    let tag = from.byte()?;
    let width = usize::from(tag & WIDTH);
    if width > 8 || tag & !(WIDTH | DELTAS | BASE | ZIPPED) != 0 {
        return Err(BlockError::Damaged("an unknown kind of integer column"));
    }
    let base = if tag & BASE != 0 { from.varint()? } else { 0 };
    let deltas = tag & DELTAS != 0;
    let stored = if deltas { count.saturating_sub(1) } else { count };
    let mask = if tag & ZIPPED != 0 { from.byte()? } else { 0 };
    if usize::from(mask) >> width != 0 {
        return Err(BlockError::Damaged("a zipped plane beyond the width"));
    }
    let noise = from.take((width - mask.count_ones() as usize) * stored)?;
    let signal =
        if tag & ZIPPED != 0 { zip::read_frame(from, mask.count_ones() as usize * stored)? } else { Vec::new() };

    // A delta column's first value is the base itself.
    let mut values = vec![if deltas { 0 } else { base }; count];
    let at = count - stored;
    let (mut noise, mut signal) = (noise, signal.as_slice());
    for plane in 0..width {
        let source = if mask & (1 << plane) != 0 { &mut signal } else { &mut noise };
        let (bytes, rest) = source.split_at(stored);
        *source = rest;
        for (value, &byte) in values[at..].iter_mut().zip(bytes) {
            *value = value.wrapping_add(u64::from(byte) << (8 * plane));
        }
    }
    if deltas {
        let mut last = base;
        for (i, value) in values.iter_mut().enumerate() {
            last = if i == 0 { base } else { last.wrapping_add(unzigzag(*value) as u64) };
            *value = last;
        }
    }
    Ok(values)
}
