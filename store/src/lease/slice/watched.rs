//! What the ledger is to notice about a quota's period, as a slice keeps it.

use std::sync::Arc;

use crate::{
    model::{PeriodBounds, Watch},
    view::QuotaPolicy,
};

/// A [`Watch`] in the making: kept here, so that a request compares it with its policy's without following a pointer.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) limit: u64,
    period_end: i64,
    shadow: bool,
    thresholds: Arc<[u16]>,
}

impl Watched {
    pub(super) fn new(policy: &QuotaPolicy, bounds: PeriodBounds) -> Self {
        let (limit, shadow, period_end) = (policy.limit, policy.shadow, bounds.end.unix_seconds());
        Self { limit, period_end, shadow, thresholds: policy.thresholds.clone() }
    }

    pub(super) fn is_of(&self, policy: &QuotaPolicy, bounds: PeriodBounds) -> bool {
        self.limit == policy.limit
            && self.period_end == bounds.end.unix_seconds()
            && self.shadow == policy.shadow
            && (Arc::ptr_eq(&self.thresholds, &policy.thresholds) || self.thresholds == policy.thresholds)
    }

    pub(super) fn watch(&self) -> Watch {
        let thresholds = self.thresholds.to_vec();
        Watch { limit: self.limit, thresholds, shadow: self.shadow, period_end: self.period_end }
    }
}
