//! Rows turned into columns in memory, before they are written: row by row, or block by block when blocks are joined.

use std::net::IpAddr;

use super::{
    BlockError, EncodeError, MAX_CHARGES, MAX_ROWS,
    dictionary::{Names, Table, Texts},
    join::Part,
    names::Dictionary,
    read::pick,
};
use crate::model::Row;

/// Columns that grow. Texts are borrowed from the rows or from the blocks that are joined.
pub(super) struct Gather<'a> {
    pub(super) accounts: Names<'a>,
    pub(super) keys: Names<'a>,
    pub(super) tiers: Names<'a>,
    pub(super) routes: Names<'a>,
    pub(super) methods: Names<'a>,
    pub(super) nodes: Names<'a>,
    pub(super) regions: Names<'a>,
    pub(super) quotas: Names<'a>,
    pub(super) paths: Texts<'a>,
    pub(super) decisions: Texts<'a>,
    /// account, key, tier
    pub(super) principals: Table<[u64; 3]>,
    /// route, method, node, region, status, outcome, completion, settles
    pub(super) shapes: Table<[u64; 8]>,
    pub(super) ips: Table<Option<IpAddr>>,
    /// Lists of (quota, period start).
    pub(super) lists: Table<Vec<(u64, i64)>>,
    pub(super) principal: Vec<u64>,
    pub(super) shape: Vec<u64>,
    pub(super) path: Vec<u64>,
    pub(super) decision: Vec<u64>,
    pub(super) ip: Vec<u64>,
    pub(super) list: Vec<u64>,
    pub(super) ts: Vec<i64>,
    pub(super) ids: Vec<u128>,
    pub(super) cost: Vec<u64>,
    pub(super) bytes_in: Vec<u64>,
    pub(super) bytes_out: Vec<u64>,
    pub(super) upstream_us: Vec<u64>,
    pub(super) duration_us: Vec<u64>,
    pub(super) count: Vec<u32>,
    pub(super) client_ids: Vec<Option<&'a str>>,
    pub(super) traces: Vec<u128>,
    /// Of all charges, row after row; `unit_costs` are their rows' costs.
    pub(super) units: Vec<u64>,
    pub(super) unit_costs: Vec<u64>,
    scratch: Vec<(u64, i64)>,
}

impl Default for Gather<'_> {
    fn default() -> Self {
        Self {
            accounts: Names::new("account"),
            keys: Names::new("key_id"),
            tiers: Names::new("tier"),
            routes: Names::new("route"),
            methods: Names::new("method"),
            nodes: Names::new("node"),
            regions: Names::new("region"),
            quotas: Names::new("charges.quota"),
            paths: Texts::new("path"),
            decisions: Texts::new("decided_by"),
            principals: Table::default(),
            shapes: Table::default(),
            ips: Table::default(),
            lists: Table::default(),
            principal: Vec::new(),
            shape: Vec::new(),
            path: Vec::new(),
            decision: Vec::new(),
            ip: Vec::new(),
            list: Vec::new(),
            ts: Vec::new(),
            ids: Vec::new(),
            cost: Vec::new(),
            bytes_in: Vec::new(),
            bytes_out: Vec::new(),
            upstream_us: Vec::new(),
            duration_us: Vec::new(),
            count: Vec::new(),
            client_ids: Vec::new(),
            traces: Vec::new(),
            units: Vec::new(),
            unit_costs: Vec::new(),
            scratch: Vec::new(),
        }
    }
}

impl<'a> Gather<'a> {
    /// With room for so many rows, and for as many distinct values as they usually have.
    pub(super) fn for_rows(rows: usize) -> Self {
        let mut gather = Self::default();
        let rows = rows.min(MAX_ROWS);
        for column in [
            &mut gather.principal,
            &mut gather.shape,
            &mut gather.path,
            &mut gather.decision,
            &mut gather.ip,
            &mut gather.list,
            &mut gather.cost,
            &mut gather.bytes_in,
            &mut gather.bytes_out,
            &mut gather.upstream_us,
            &mut gather.duration_us,
            &mut gather.units,
            &mut gather.unit_costs,
        ] {
            column.reserve(rows);
        }
        gather.ts.reserve(rows);
        gather.ids.reserve(rows);
        gather.count.reserve(rows);
        gather.client_ids.reserve(rows);
        gather.traces.reserve(rows);
        let distinct = (rows / 2).min(1_024);
        gather.accounts.reserve(distinct);
        gather.keys.reserve(distinct);
        gather.paths.reserve(distinct);
        gather.principals.reserve(distinct);
        gather.ips.reserve(distinct);
        gather
    }

    pub(super) fn rows(&self) -> usize {
        self.ts.len()
    }

    /// Checks the bounds that grow with `rows` and `charges` more.
    fn room_for(&self, rows: usize, charges: usize) -> Result<(), EncodeError> {
        let (rows, charges) = (self.rows() + rows, self.units.len() + charges);
        if rows > MAX_ROWS {
            return Err(EncodeError::TooManyRows { rows, max: MAX_ROWS });
        }
        if charges > MAX_CHARGES {
            return Err(EncodeError::TooManyCharges { charges, max: MAX_CHARGES });
        }
        Ok(())
    }

    /// One row more.
    pub(super) fn push(&mut self, row: &'a Row) -> Result<(), EncodeError> {
        self.room_for(1, row.charges.len())?;
        let principal = [self.accounts.code(&row.account)?, self.keys.code(&row.key_id)?, self.tiers.code(&row.tier)?];
        let shape = [
            self.routes.code(&row.route)?,
            self.methods.code(&row.method)?,
            self.nodes.code(&row.node)?,
            self.regions.code(&row.region)?,
            u64::from(row.status),
            row.outcome as u64,
            row.completion as u64,
            u64::from(row.settles),
        ];
        let path = self.paths.code(&row.path)?;
        let decision = self.decisions.code(&row.decided_by)?;
        let client_id = row.client_request_id.as_deref();
        if let Some(text) = client_id.filter(|text| text.len() > super::MAX_TEXT) {
            let field = "client_request_id";
            return Err(EncodeError::TextTooLong { field, bytes: text.len(), max: super::MAX_TEXT });
        }
        self.scratch.clear();
        for charge in &row.charges {
            self.scratch.push((self.quotas.code(&charge.quota)?, charge.period_start));
            self.units.push(charge.units);
            self.unit_costs.push(row.cost);
        }

        self.principal.push(self.principals.code(&principal));
        self.shape.push(self.shapes.code(&shape));
        self.path.push(path);
        self.decision.push(decision);
        self.ip.push(self.ips.code(&row.client_ip));
        self.list.push(self.lists.code(self.scratch.as_slice()));
        self.ts.push(row.ts.0);
        self.ids.push(row.request_id.0);
        self.cost.push(row.cost);
        self.bytes_in.push(row.bytes_in);
        self.bytes_out.push(row.bytes_out);
        self.upstream_us.push(row.upstream_us);
        self.duration_us.push(row.duration_us);
        self.count.push(row.count);
        self.client_ids.push(client_id);
        self.traces.push(row.trace_id);
        Ok(())
    }

    /// A block's rows more. Every dictionary is in order of first appearance, so the codes come out as if row by row.
    pub(super) fn append(&mut self, part: &'a Part) -> Result<(), JoinedError> {
        self.room_for(part.ts.len(), part.units.len())?;
        let principals = self.principals_of(part)?;
        let shapes = self.shapes_of(part)?;
        let paths: Vec<_> = part.paths.iter().map(|path| self.paths.code(path)).collect::<Result<_, _>>()?;
        let decisions: Vec<_> =
            part.decisions.iter().map(|text| self.decisions.code(text)).collect::<Result<_, _>>()?;
        let ips: Vec<_> = part.ips.values.iter().map(|ip| self.ips.code(ip)).collect();
        let lists = self.lists_of(part)?;

        recode(&mut self.principal, &principals, &part.principal);
        recode(&mut self.shape, &shapes, &part.shape);
        recode(&mut self.path, &paths, &part.path);
        recode(&mut self.decision, &decisions, &part.decision);
        recode(&mut self.ip, &ips, &part.ips.codes);
        recode(&mut self.list, &lists, &part.list);
        self.ts.extend(part.ts.iter().map(|ts| ts.0));
        self.ids.extend(part.ids.iter().map(|id| id.0));
        self.cost.extend_from_slice(&part.cost);
        self.bytes_in.extend_from_slice(&part.bytes_in);
        self.bytes_out.extend_from_slice(&part.bytes_out);
        self.upstream_us.extend_from_slice(&part.upstream_us);
        self.duration_us.extend_from_slice(&part.duration_us);
        self.count.extend_from_slice(&part.count);
        match &part.client_ids {
            Some(ids) => self.client_ids.extend(ids.options()),
            None => self.client_ids.resize(self.ts.len(), None),
        }
        self.traces.extend_from_slice(&part.traces);
        self.units.extend_from_slice(&part.units);
        for (&cost, &list) in part.cost.iter().zip(&part.list) {
            let charges = part.lists[list as usize].len();
            self.unit_costs.extend(std::iter::repeat_n(cost, charges));
        }
        Ok(())
    }

    fn principals_of(&mut self, part: &'a Part) -> Result<Vec<u64>, JoinedError> {
        let accounts = codes(&mut self.accounts, part, Dictionary::Account)?;
        let keys = codes(&mut self.keys, part, Dictionary::Key)?;
        let tiers = codes(&mut self.tiers, part, Dictionary::Tier)?;
        let [account, key, tier] = &part.principals;
        let code = |of: usize| {
            let tuple = [pick(&accounts, account[of])?, pick(&keys, key[of])?, pick(&tiers, tier[of])?];
            Ok(self.principals.code(&tuple))
        };
        (0..account.len()).map(code).collect()
    }

    fn shapes_of(&mut self, part: &'a Part) -> Result<Vec<u64>, JoinedError> {
        let routes = codes(&mut self.routes, part, Dictionary::Route)?;
        let methods = codes(&mut self.methods, part, Dictionary::Method)?;
        let nodes = codes(&mut self.nodes, part, Dictionary::Node)?;
        let regions = codes(&mut self.regions, part, Dictionary::Region)?;
        let [route, method, node, region, rest @ ..] = &part.shapes;
        let [status, outcome, completion, settles] = rest;
        let code = |of: usize| {
            let tuple = [
                pick(&routes, route[of])?,
                pick(&methods, method[of])?,
                pick(&nodes, node[of])?,
                pick(&regions, region[of])?,
                status[of],
                outcome[of],
                completion[of],
                u64::from(settles[of] != 0),
            ];
            Ok(self.shapes.code(&tuple))
        };
        (0..route.len()).map(code).collect()
    }

    fn lists_of(&mut self, part: &'a Part) -> Result<Vec<u64>, JoinedError> {
        let quotas = codes(&mut self.quotas, part, Dictionary::Quota)?;
        let mut codes = Vec::with_capacity(part.lists.len());
        for list in &part.lists {
            self.scratch.clear();
            for (quota, period_start) in list {
                self.scratch.push((pick(&quotas, *quota)?, *period_start));
            }
            codes.push(self.lists.code(self.scratch.as_slice()));
        }
        Ok(codes)
    }
}

/// Why a block's rows were not taken.
pub(super) enum JoinedError {
    /// The block is damaged.
    Block(BlockError),
    /// There is no room for them.
    Encode(EncodeError),
}

impl From<BlockError> for JoinedError {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

impl From<EncodeError> for JoinedError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

/// The codes here of a block's names.
fn codes<'a>(to: &mut Names<'a>, part: &'a Part, of: Dictionary) -> Result<Vec<u64>, EncodeError> {
    part.names.parts(of).map(|name| to.code_of(name)).collect()
}

fn recode(to: &mut Vec<u64>, codes: &[u64], from: &[u32]) {
    to.extend(from.iter().map(|&code| codes[code as usize]));
}
