//! What is new since the last look, and its form between a worker and its coordinator.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    Class, Hdr, Label, Labels,
    hdr::{self, decode, encode},
};

/// Why a request was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The generator was later than `--send-within`.
    Late,
    /// As many requests as `--max-in-flight` were waiting for their answers.
    Full,
}

/// Counts and histograms; of one second of the schedule (the second in which its requests were due).
#[derive(Debug, Clone, Default)]
pub(crate) struct Second {
    /// Requests that the schedule has.
    pub(crate) planned: u64,
    /// Requests sent, retries among them.
    pub(crate) sent: u64,
    /// Not sent: too late.
    pub(crate) unsent_late: u64,
    /// Not sent: too many in flight.
    pub(crate) unsent_full: u64,
    /// Sent again by a retry profile.
    pub(crate) retries: u64,
    /// Sent again within a try: the target had said that it did nothing of it, or it had not left.
    pub(crate) resent: u64,
    /// From the intended send to the end of the answer, by class.
    pub(crate) corrected: BTreeMap<Class, Hdr>,
    /// From the actual send.
    pub(crate) service: BTreeMap<Class, Hdr>,
    /// From the intended to the actual send: the generator's own lag, of all requests that were due.
    pub(crate) lag: Option<Hdr>,
    /// How many of each tier and outcome.
    pub(crate) counts: BTreeMap<(Label, Label), u64>,
    /// Of these, the ones that a retry followed: not the end of their request.
    pub(crate) superseded: BTreeMap<(Label, Label), u64>,
    /// The first intended send, microseconds since the start.
    pub(crate) first_due_us: Option<u64>,
    /// The end of the last answer, likewise.
    pub(crate) last_end_us: u64,
}

impl Second {
    /// Adds another's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.planned += other.planned;
        self.sent += other.sent;
        self.unsent_late += other.unsent_late;
        self.unsent_full += other.unsent_full;
        self.retries += other.retries;
        self.resent += other.resent;
        for (of, to) in [(&other.corrected, &mut self.corrected), (&other.service, &mut self.service)] {
            for (class, hdr) in of {
                hdr::add(to.entry(*class).or_insert_with(hdr::empty), hdr);
            }
        }
        if let Some(lag) = &other.lag {
            hdr::add(self.lag.get_or_insert_with(hdr::empty), lag);
        }
        for (of, to) in [(&other.counts, &mut self.counts), (&other.superseded, &mut self.superseded)] {
            for (key, count) in of {
                *to.entry(*key).or_default() += count;
            }
        }
        self.first_due_us = [self.first_due_us, other.first_due_us].into_iter().flatten().min();
        self.last_end_us = self.last_end_us.max(other.last_end_us);
    }

    /// Requests that ended.
    pub(crate) fn finished(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Of the planned ones, those whose last answer is known.
    pub(crate) fn settled(&self) -> u64 {
        self.finished().saturating_sub(self.superseded.values().sum())
    }

    /// Requests that are due or sent and have not ended.
    pub(crate) fn outstanding(&self) -> u64 {
        (self.planned + self.retries).saturating_sub(self.unsent_late + self.unsent_full + self.finished())
    }
}

/// Seconds with something new.
#[derive(Debug, Clone, Default)]
pub(crate) struct Delta {
    /// By number of the second since the start.
    pub(crate) seconds: BTreeMap<u32, Second>,
}

/// A second on its way between processes: names instead of numbers, histograms as text.
#[derive(Debug, Serialize, Deserialize)]
struct Wire {
    second: u32,
    planned: u64,
    sent: u64,
    unsent_late: u64,
    unsent_full: u64,
    retries: u64,
    #[serde(default)]
    resent: u64,
    corrected: BTreeMap<Class, String>,
    service: BTreeMap<Class, String>,
    lag: Option<String>,
    counts: Vec<(String, String, u64)>,
    superseded: Vec<(String, String, u64)>,
    first_due_us: Option<u64>,
    last_end_us: u64,
}

impl Delta {
    /// Adds another's.
    pub(crate) fn add(&mut self, other: &Self) {
        for (number, second) in &other.seconds {
            self.seconds.entry(*number).or_default().add(second);
        }
    }

    /// As JSON.
    pub(crate) fn to_json(&self, labels: &Labels) -> serde_json::Value {
        let named = |counts: &BTreeMap<(Label, Label), u64>| {
            let counts = counts.iter();
            counts.map(|((tier, outcome), count)| (labels.name(*tier), labels.name(*outcome), *count)).collect()
        };
        let wires = self.seconds.iter().map(|(number, second)| Wire {
            second: *number,
            planned: second.planned,
            sent: second.sent,
            unsent_late: second.unsent_late,
            unsent_full: second.unsent_full,
            retries: second.retries,
            resent: second.resent,
            corrected: second.corrected.iter().map(|(class, hdr)| (*class, encode(hdr))).collect(),
            service: second.service.iter().map(|(class, hdr)| (*class, encode(hdr))).collect(),
            lag: second.lag.as_ref().map(encode),
            counts: named(&second.counts),
            superseded: named(&second.superseded),
            first_due_us: second.first_due_us,
            last_end_us: second.last_end_us,
        });
        serde_json::to_value(wires.collect::<Vec<_>>()).expect("a list of plain values")
    }

    /// From JSON.
    pub(crate) fn from_json(value: serde_json::Value, labels: &Labels) -> Result<Self> {
        let mut delta = Self::default();
        for wire in serde_json::from_value::<Vec<Wire>>(value)? {
            let histograms = |texts: BTreeMap<Class, String>| -> Result<BTreeMap<Class, Hdr>> {
                texts.into_iter().map(|(class, text)| Ok((class, decode(&text)?))).collect()
            };
            let numbered = |counts: Vec<(String, String, u64)>| {
                let counts = counts.into_iter();
                counts.map(|(tier, outcome, count)| ((labels.label(&tier), labels.label(&outcome)), count)).collect()
            };
            let second = Second {
                planned: wire.planned,
                sent: wire.sent,
                unsent_late: wire.unsent_late,
                unsent_full: wire.unsent_full,
                retries: wire.retries,
                resent: wire.resent,
                corrected: histograms(wire.corrected)?,
                service: histograms(wire.service)?,
                lag: wire.lag.as_deref().map(decode).transpose()?,
                counts: numbered(wire.counts),
                superseded: numbered(wire.superseded),
                first_due_us: wire.first_due_us,
                last_end_us: wire.last_end_us,
            };
            delta.seconds.entry(wire.second).or_default().add(&second);
        }
        Ok(delta)
    }
}
