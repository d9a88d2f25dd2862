//! A row of the log, as the admin API shows it, with what the audit wants of it.

use std::sync::Arc;

use serde_json::Value;

use crate::client::uuid;

/// A row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// The gateway's id; 0 for coalesced rejections.
    pub(crate) id: u128,
    /// Our thread and number, when it is a request of this run.
    pub(crate) ours: Option<(u16, u32)>,
    /// When it arrived, microseconds since 1970.
    pub(crate) ts_us: i64,
    /// From arrival to the end of the answer.
    pub(crate) duration_us: i64,
    /// Of that, the upstream.
    pub(crate) upstream_us: i64,
    /// Whose.
    pub(crate) account: Arc<str>,
    /// With which key.
    pub(crate) key: Arc<str>,
    /// By which tier.
    pub(crate) tier: Arc<str>,
    /// Which route; empty for none.
    pub(crate) route: Arc<str>,
    /// The answer.
    pub(crate) status: u16,
    /// `admitted`, or why not.
    pub(crate) outcome: Arc<str>,
    /// How many requests it stands for.
    pub(crate) count: u64,
    /// Cost units.
    pub(crate) cost: u64,
    /// Bytes of the request.
    pub(crate) bytes_in: u64,
    /// Bytes of the answer.
    pub(crate) bytes_out: u64,
    /// Its answer is still being streamed.
    pub(crate) is_open: bool,
}

/// Texts that many rows share, once each.
#[derive(Debug, Default)]
pub(crate) struct Texts(std::collections::HashSet<Arc<str>>);

impl Texts {
    /// The one copy of a text.
    pub(crate) fn of(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.0.insert(new.clone());
        new
    }
}

impl Row {
    /// From its JSON; `run` tells our requests from others'. Nothing when it has no readable time.
    pub(crate) fn read(row: &Value, run: u32, texts: &mut Texts) -> Option<Self> {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        let number = |name: &str| row[name].as_u64().unwrap_or(0);
        let signed = |name: &str| i64::try_from(number(name)).unwrap_or(i64::MAX / 4);
        let ts: jiff::Timestamp = text("ts").parse().ok()?;
        Some(Self {
            id: uuid(text("request_id")).unwrap_or(0),
            ours: ours(text("client_request_id"), run),
            ts_us: ts.as_microsecond(),
            duration_us: signed("duration_us"),
            upstream_us: signed("upstream_us"),
            account: texts.of(text("account")),
            key: texts.of(text("key_id")),
            tier: texts.of(text("tier")),
            route: texts.of(text("route")),
            status: u16::try_from(number("status")).unwrap_or(0),
            outcome: texts.of(text("outcome")),
            count: number("count").max(1),
            cost: number("cost"),
            bytes_in: number("bytes_in"),
            bytes_out: number("bytes_out"),
            is_open: text("completion") == "open",
        })
    }

    /// Whether it stands for several rejections.
    pub(crate) fn is_coalesced(&self) -> bool {
        self.id == 0
    }

    /// Whether it took units of limits and quotas for good. An upstream that could not be connected to gives them back.
    pub(crate) fn is_admitted(&self) -> bool {
        matches!(&*self.outcome, "admitted" | "upstream-timeout")
    }

    /// Counted as rejected in usage.
    pub(crate) fn is_rejected(&self) -> bool {
        !matches!(&*self.outcome, "admitted" | "upstream-timeout" | "upstream-unreachable")
    }

    /// The latest instant at which it can have been admitted.
    pub(crate) fn admitted_by_us(&self) -> i64 {
        self.ts_us + (self.duration_us - self.upstream_us).max(0)
    }
}

/// Thread and number of our own id.
fn ours(text: &str, run: u32) -> Option<(u16, u32)> {
    let mut parts = text.strip_prefix("lt-")?.split('-');
    if u32::from_str_radix(parts.next()?, 16).ok()? != run {
        return None;
    }
    let thread = u16::from_str_radix(parts.next()?, 16).ok()?;
    let number = u32::from_str_radix(parts.next()?, 16).ok()?;
    Some((thread, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::client_id;

    #[test]
    fn our_ids_are_told_from_others() {
        assert_eq!(ours(&client_id(0xbeef, 3, 77), 0xbeef), Some((3, 77)));
        assert_eq!(ours(&client_id(0xbeef, 3, 77), 0xbee0), None);
        assert_eq!(ours("01a1fcbf-ddfa-7afd-b03e-aa2842c0410f", 0xbeef), None);
    }
}
