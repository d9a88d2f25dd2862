//! What the audit found.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{row::Row, sent::Sent};

/// Examples of one kind that are kept; all are counted.
const KEPT: usize = 5;

/// An example of something that must not be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// lost, doubled, mismatch, over-admitted, usage, under-admitted.
    pub(crate) kind: String,
    /// The whole story of it.
    pub(crate) what: String,
    /// When, microseconds since 1970; the earliest one of a kind is its smallest example.
    pub(crate) at_us: i64,
    /// Whether it fails the audit.
    pub(crate) fails: bool,
}

/// The judgement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// Requests that were sent.
    pub(crate) requests: u64,
    /// Of these, the ones whose outcome the clients know, so that the log must have it.
    #[serde(default)]
    pub(crate) judged: u64,
    /// Rows of these requests.
    pub(crate) rows: u64,
    /// Answered, and not in the log.
    pub(crate) lost: u64,
    /// Two rows.
    pub(crate) doubled: u64,
    /// Row and answer say different things.
    pub(crate) mismatched: u64,
    /// Units admitted beyond limits, quotas and concurrency.
    pub(crate) over_admitted: u64,
    /// Sums that are not the sums of their rows.
    pub(crate) usage_mismatches: u64,
    /// Refused though units were left, by the rows.
    pub(crate) under_admitted: u64,
    /// Requests whose outcome their clients do not know.
    pub(crate) unknown: u64,
    /// Of these, with a row.
    pub(crate) unknown_with_row: u64,
    /// Rejections without a row of their own.
    pub(crate) coalesced: u64,
    /// Of these, lost with a killed node's last second, as the contract says.
    pub(crate) coalesced_lost_in_crash: u64,
    /// More in coalesced rows than our clients saw: other clients of the same keys.
    pub(crate) coalesced_of_others: u64,
    /// Limits that were judged, by account.
    pub(crate) limits_judged: u64,
    /// Quotas.
    pub(crate) quotas_judged: u64,
    /// Accounts whose usage was compared.
    pub(crate) usage_judged: u64,
    /// Examples, the earliest of each kind first.
    pub(crate) findings: Vec<Finding>,
}

impl Verdict {
    /// Whether something was judged and nothing was found.
    pub(crate) fn passes(&self) -> bool {
        self.judged > 0 && self.faults() == 0
    }

    /// What fails it.
    pub(crate) fn faults(&self) -> u64 {
        self.lost + self.doubled + self.mismatched + self.over_admitted + self.usage_mismatches
    }

    /// An answered request is not in the log.
    pub(crate) fn note_lost(&mut self, sent: &Sent, why: &str) {
        self.note_lost_many(sent, 1, why);
    }

    /// So many of them; one is shown.
    pub(crate) fn note_lost_many(&mut self, sent: &Sent, count: u64, why: &str) {
        // The same request may be met twice, as a probe and in the ledger.
        let what = format!("{sent}: {why}");
        if self.findings.iter().any(|finding| finding.what == what) {
            return;
        }
        self.lost += count;
        self.note("lost", what, sent.sent_us, true);
    }

    /// A row too many.
    pub(crate) fn note_doubled(&mut self, row: &Row, what: &str) {
        self.doubled += 1;
        self.note("doubled", what.to_owned(), row.ts_us, true);
    }

    /// Row and answer differ.
    pub(crate) fn note_mismatch(&mut self, sent: &Sent, why: &str) {
        self.mismatched += 1;
        self.note("mismatch", format!("{sent}: {why}"), sent.sent_us, true);
    }

    /// Too much was admitted.
    pub(crate) fn note_over(&mut self, units: u64, at_us: i64, what: &str) {
        self.over_admitted += units;
        self.note("over-admitted", what.to_owned(), at_us, true);
    }

    /// A sum is wrong.
    pub(crate) fn note_usage(&mut self, what: &str) {
        self.usage_mismatches += 1;
        self.note("usage", what.to_owned(), i64::MAX, true);
    }

    /// Refused though units were left.
    pub(crate) fn note_under(&mut self, count: u64, units: f64, at_us: i64, what: &str) {
        self.under_admitted += count;
        self.note("under-admitted", format!("{what}: {units:.1} units were left by the rows"), at_us, false);
    }

    fn note(&mut self, kind: &str, what: String, at_us: i64, fails: bool) {
        let kept = self.findings.iter().filter(|finding| finding.kind == kind).count();
        let finding = Finding { kind: kind.to_owned(), what, at_us, fails };
        if kept < KEPT {
            self.findings.push(finding);
        } else if let Some(latest) =
            self.findings.iter_mut().filter(|kept| kept.kind == kind).max_by_key(|kept| kept.at_us)
            && latest.at_us > at_us
        {
            *latest = finding;
        }
        self.findings.sort_by(|a, b| (&a.kind, a.at_us).cmp(&(&b.kind, b.at_us)));
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.faults(), self.judged) {
            (0, 0) => "proves NOTHING",
            (0, _) => "passed",
            _ => "FAILED",
        };
        writeln!(
            f,
            "audit {word}: {} requests, {} judged, against {} rows of theirs",
            self.requests, self.judged, self.rows
        )?;
        writeln!(
            f,
            "  lost {}  doubled {}  mismatched {}  over-admitted {}  usage {}  (under-admitted {})",
            self.lost, self.doubled, self.mismatched, self.over_admitted, self.usage_mismatches, self.under_admitted
        )?;
        writeln!(
            f,
            "  unknown to their clients {} ({} of them have a row)  coalesced rejections {} ({} lost in a crash)",
            self.unknown, self.unknown_with_row, self.coalesced, self.coalesced_lost_in_crash
        )?;
        write!(
            f,
            "  judged: {} limits, {} quotas, usage of {} accounts",
            self.limits_judged, self.quotas_judged, self.usage_judged
        )?;
        for kind in ["lost", "doubled", "mismatch", "over-admitted", "usage", "under-admitted"] {
            if let Some(first) = self.findings.iter().find(|finding| finding.kind == kind) {
                write!(f, "\n  first {kind}: {}", first.what)?;
            }
        }
        Ok(())
    }
}
