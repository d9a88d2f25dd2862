//! Alerts that quotas' use has raised, as they are read.

use std::ops::Bound;

use bytes::Bytes;

use super::{ReadError, State, StateError, codec, ledger::alert_key, tables::Table, view::Range};
use crate::model::{Alert, AlertPlace};

impl State {
    /// Alerts, newest first, before one, each with its place.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn alerts(
        &self,
        before: Option<AlertPlace>,
        limit: usize,
        takes: &mut dyn FnMut(&Alert) -> bool,
    ) -> Result<Vec<(AlertPlace, Alert)>, ReadError> {
        let mut alerts = Vec::new();
        self.walk_alerts(before, &mut |place, alert| {
            if takes(&alert) {
                alerts.push((place, alert));
            }
            alerts.len() < limit
        })?;
        Ok(alerts)
    }

    /// Shows all alerts, those raised last first.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn each_alert(&self, f: &mut dyn FnMut(AlertPlace, Alert)) -> Result<(), ReadError> {
        Ok(self.walk_alerts(None, &mut |place, alert| {
            f(place, alert);
            true
        })?)
    }

    /// One alert; none when it is kept no more.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn alert(&self, place: AlertPlace) -> Result<Option<Alert>, ReadError> {
        let found = self.get(Table::Alerts, &alert_key(place.index, place.number))?;
        let decode = |bytes: Bytes| codec::decode(&bytes);
        Ok(found.map(decode).transpose().map_err(|what| self.value_error(Table::Alerts, what))?)
    }

    fn walk_alerts(
        &self,
        before: Option<AlertPlace>,
        f: &mut dyn FnMut(AlertPlace, Alert) -> bool,
    ) -> Result<(), StateError> {
        let range = match before {
            Some(place) => Range { to: Bound::Excluded(alert_key(place.index, place.number)), ..Range::all() },
            None => Range::all(),
        };
        self.walk(Table::Alerts, &range, true, &mut |key, value| {
            let bad = |what: String| self.value_error(Table::Alerts, what);
            let alert: Alert = codec::decode(value).map_err(bad)?;
            let mut place = codec::Take(key);
            let place = place.array().zip(place.array()).ok_or_else(|| bad("its key is no place".into()))?;
            let (index, number) = (u64::from_be_bytes(place.0), u32::from_be_bytes(place.1));
            Ok(f(AlertPlace { group: self.group, index, number }, alert))
        })
    }
}
