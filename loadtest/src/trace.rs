//! Traces: what was asked when, as NDJSON, read and written as streams. Neither a file's length nor a line's place in it
//! makes a difference to memory.
//!
//! ```text
//! {"tollgate_trace":1,"start":"2026-11-21T06:25:38Z","source":"nginx combined log"}
//! {"t":0,"m":"POST","p":"/v3/scan","k":"k_5f2a","a":"a_77","b":250,"s":200,"d":3100000}
//! ```
//! `t` is nanoseconds since the start, `m` and `p` method and path, `k` and `a` pseudonyms of key and account, `b` the
//! body or its bytes, `h` headers, `s` the status that was seen and `d` the nanoseconds that it took. Only `t`, `m` and
//! `p` must be there. The JSON Schema is `schema/trace.schema.json`.

mod bad;
mod convert;
mod files;
mod formats;
mod order;
mod pseudonym;
mod reader;
mod record;
mod recording;
mod spread;
mod target;
mod writer;

pub(crate) use bad::{Bad, Tolerant};
pub(crate) use convert::{ConvertSettings, Format, convert, records};
pub(crate) use files::{create, open};
pub(crate) use order::{Ordered, WINDOW};
pub(crate) use pseudonym::Pseudonyms;
pub(crate) use reader::Reader;
pub(crate) use record::{Body, Header, Record};
pub(crate) use recording::{Recording, record};
pub(crate) use writer::Writer;

/// Reads bytes in each format, for fuzzing.
pub(crate) fn read_all_for_fuzz<R: std::io::BufRead + Send + 'static>(input: impl Fn() -> R, har: bool) {
    let names = || Pseudonyms::new(None);
    let drain = |source: formats::Source| source.take(100).for_each(drop);
    if let Ok(reader) = Reader::new(input(), "fuzz") {
        reader.take(100).for_each(drop);
    }
    drain(formats::combined::read(input(), "fuzz", names()));
    drain(formats::nginx_json::read(input(), "fuzz", names()));
    drain(formats::vegeta::read(input(), "fuzz", names(), 100.0));
    drain(formats::gor::read(input(), "fuzz", names()));
    drain(formats::table::read(input(), "fuzz", names()));
    if har {
        drain(formats::har::read(input(), "fuzz", names()));
    }
}

/// The published schema of a line.
pub(crate) const SCHEMA: &str = include_str!("../schema/trace.schema.json");
