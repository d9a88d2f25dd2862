//! A request as its client saw it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::client::{client_id, uuid_text};

/// A request as its client saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// The thread that sent it, among all workers.
    pub(crate) thread: u16,
    /// Its number in the thread: our id is made of both.
    pub(crate) number: u32,
    /// The number of its key.
    pub(crate) principal: u32,
    /// Its account, where the file of keys says so.
    pub(crate) account: Option<std::sync::Arc<str>>,
    /// The target it was sent to.
    pub(crate) target: std::sync::Arc<str>,
    /// 0 without an answer.
    pub(crate) status: u16,
    /// Status and problem code, or why there was no answer.
    pub(crate) outcome: std::sync::Arc<str>,
    /// What the gateway called it; 0 when it did not say.
    #[serde(with = "hex")]
    pub(crate) id: u128,
    /// When it was sent, microseconds since 1970.
    pub(crate) sent_us: i64,
    /// When its end was known.
    pub(crate) ended_us: i64,
}

/// 128 bits on their way between processes: JSON's numbers have fewer.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{id:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(|_| D::Error::custom("expected 128 bits in hexadecimal"))
    }
}

/// What the contract says of a request's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Exactly one.
    Row,
    /// One of its own, or a share of a coalesced one.
    RowOrShare,
    /// At most one: its client does not know what became of it.
    Unknown,
}

/// The outcome of a client that hung up on purpose.
const HUNG_UP: &str = "hung-up";

impl Sent {
    /// What the contract says of its row.
    pub(crate) fn duty(&self) -> Duty {
        let code = self.outcome.split_once(' ').map_or("", |(_, code)| code);
        match (self.status, code) {
            // No answer. Or one without a row: not a known key, not even a request, or the two that say so themselves.
            (0 | 400 | 401 | 408 | 431, _) | (503, "temporary-reduced-capacity") => Duty::Unknown,
            // Who hung up has read the status and no code: a refusal may have been one of those without a row.
            (403 | 404 | 413 | 429 | 503, _) if *self.outcome == *HUNG_UP => Duty::Unknown,
            (
                _,
                "rate-limited"
                | "quota-exceeded"
                | "concurrency-exceeded"
                | "key-disabled"
                | "account-suspended"
                | "ip-not-allowed"
                | "scope-missing"
                | "route-not-in-tier"
                | "no-route"
                | "body-too-large",
            ) => Duty::RowOrShare,
            // An answer that passed names its row. One that failed and has no id may not have come from the gateway at all.
            _ if self.id == 0 && !(200..400).contains(&self.status) => Duty::Unknown,
            _ => Duty::Row,
        }
    }

    /// The outcome that its row must have, as far as the answer tells.
    pub(crate) fn code(&self) -> &str {
        self.outcome.split_once(' ').map_or("", |(_, code)| code)
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = jiff::Timestamp::from_microsecond(self.sent_us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(
            f,
            "request {} (ours: {}) sent {at} to {}, answered {} after {:.1} ms",
            if self.id == 0 { "without an id".to_owned() } else { uuid_text(self.id) },
            client_id(0, self.thread, self.number as usize).replacen("00000000", "*", 1),
            self.target,
            self.outcome,
            (self.ended_us - self.sent_us) as f64 / 1_000.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(status: u16, outcome: &str, id: u128) -> Sent {
        Sent {
            thread: 0,
            number: 0,
            principal: 0,
            account: Some("acme".into()),
            target: "t".into(),
            status,
            outcome: outcome.into(),
            id,
            sent_us: 0,
            ended_us: 0,
        }
    }

    #[test]
    fn a_worker_can_send_it_to_its_coordinator() {
        let sent = sent(200, "200", u128::MAX - 7);
        let there = serde_json::to_value(&sent).expect("plain values");
        assert_eq!(serde_json::from_value::<Sent>(there).expect("its own form"), sent);
    }

    #[test]
    fn the_contracts_duties() {
        for (status, outcome, id, duty) in [
            (200, "200", 1, Duty::Row),
            (404, "404", 1, Duty::Row),
            (404, "404 no-route", 1, Duty::RowOrShare),
            (429, "429 rate-limited", 1, Duty::RowOrShare),
            (503, "503 temporary-reduced-capacity", 1, Duty::Unknown),
            (503, "503", 1, Duty::Row),
            (502, "502 upstream-unreachable", 1, Duty::Row),
            (0, "timeout", 0, Duty::Unknown),
            (200, "hung-up", 1, Duty::Row),
            (503, "hung-up", 1, Duty::Unknown),
            (429, "hung-up", 1, Duty::Unknown),
            (401, "401 unknown-key", 1, Duty::Unknown),
            (200, "200", 0, Duty::Row),
            (204, "hung-up", 0, Duty::Row),
            (502, "502", 0, Duty::Unknown),
        ] {
            assert_eq!(sent(status, outcome, id).duty(), duty, "{status} {outcome}");
        }
    }
}
