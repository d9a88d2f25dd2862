//! A block read whole: its rows.

use std::net::IpAddr;

use super::{Block, BlockError, Charges, Column, Principal, Shape, texts::Built};
use crate::model::{Name, RequestId, Row, Timestamp};

/// Every column of a block.
struct Columns {
    principals: Column<Principal>,
    shapes: Column<Shape>,
    paths: Column<Name>,
    decisions: Column<Name>,
    ips: Column<Option<IpAddr>>,
    charges: Charges,
    ts: Vec<Timestamp>,
    ids: Vec<RequestId>,
    cost: Vec<u64>,
    bytes_in: Vec<u64>,
    bytes_out: Vec<u64>,
    upstream_us: Vec<u64>,
    duration_us: Vec<u64>,
    count: Vec<u32>,
    client_ids: Vec<Option<Box<str>>>,
    traces: Vec<u128>,
}

impl Columns {
    fn row(&self, row: usize) -> Row {
        let (principal, shape) = (self.principals.get(row), self.shapes.get(row));
        Row {
            retention_days: 0,
            request_id: self.ids[row],
            ts: self.ts[row],
            account: principal.account.clone(),
            key_id: principal.key_id.clone(),
            tier: principal.tier.clone(),
            route: shape.route.clone(),
            method: shape.method.clone(),
            path: self.paths.get(row).clone(),
            decided_by: self.decisions.get(row).clone(),
            status: shape.status,
            outcome: shape.outcome,
            cost: self.cost[row],
            bytes_in: self.bytes_in[row],
            bytes_out: self.bytes_out[row],
            upstream_us: self.upstream_us[row],
            duration_us: self.duration_us[row],
            client_ip: *self.ips.get(row),
            client_request_id: self.client_ids[row].clone(),
            trace_id: self.traces[row],
            node: shape.node.clone(),
            region: shape.region.clone(),
            completion: shape.completion,
            count: self.count[row],
            settles: shape.settles,
            charges: self.charges.to_vec(row),
        }
    }
}

impl Block<'_> {
    /// All rows, in order.
    ///
    /// # Errors
    /// A damaged column, as in all that follow.
    pub fn rows_iter(&self) -> Result<impl Iterator<Item = Row>, BlockError> {
        let columns = self.columns()?;
        Ok((0..self.rows()).map(move |row| columns.row(row)))
    }

    /// Some rows by number, in the order asked. Reads the whole block once.
    pub fn rows_at(&self, rows: &[u32]) -> Result<Vec<Row>, BlockError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        if rows.iter().any(|row| *row as usize >= self.rows()) {
            return Err(BlockError::Damaged("no row of that number"));
        }
        let columns = self.columns()?;
        Ok(rows.iter().map(|row| columns.row(*row as usize)).collect())
    }

    /// One row; none beyond the end. Reads the whole block: for many rows ask [`Self::rows_at`] or [`Self::rows_iter`].
    pub fn row(&self, row: usize) -> Result<Option<Row>, BlockError> {
        if row >= self.rows() { Ok(None) } else { Ok(self.rows_at(&[row as u32])?.pop()) }
    }

    /// Every column, each read once.
    fn columns(&self) -> Result<Columns, BlockError> {
        let names = self.names()?;
        let cost = self.costs()?;
        let upstream_us = self.upstream_us()?;
        Ok(Columns {
            principals: self.principals_over(&names, &mut Built)?,
            shapes: self.shapes_over(&names, &mut Built)?,
            paths: self.paths()?,
            decisions: self.decisions()?,
            ips: self.client_ips()?,
            charges: self.charges_over(&names, &cost, &mut Built)?,
            ts: self.timestamps()?,
            ids: self.request_ids()?,
            cost,
            bytes_in: self.bytes_in()?,
            bytes_out: self.bytes_out()?,
            duration_us: self.durations_over(&upstream_us)?,
            upstream_us,
            count: self.counts()?,
            client_ids: self.client_request_ids()?,
            traces: self.trace_ids()?,
        })
    }
}
