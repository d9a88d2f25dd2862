//! Was every admitted request admitted rightly, and is every answered one in the log? Every request's id and outcome, as
//! the clients saw them, against the ledger's rows, as the admin API shows them.
//!
//! | law | judged how |
//! |---|---|
//! | lost | an answer to a known key has exactly one row, found by our id and by the gateway's; coalesced rejections by their counts |
//! | doubled | no id has two rows; a request whose outcome is unknown to its client has at most one |
//! | over-admitted | per limit and key of it: in every window of t seconds at most `burst + rate * t`; per quota at most its limit; at most `concurrency` at once |
//! | usage | the usage API's sums over the run's minutes equal the rows' |
//! | under-admitted | refused though units were left: a figure, no verdict, for a failover may admit less |
//!
//! A window is judged soundly: a request counts into it only when it was certainly admitted within it, that is when its row's
//! time and the latest instant at which it can have been let through (row's end less the upstream's time) are both inside.
//! So what is reported is a violation; one that hides in a row's own duration is not seen.

mod fetch;
mod ledger;
mod limits;
mod policy;
mod quotas;
mod row;
mod sent;
mod usage;
mod verdict;
mod window;

use std::collections::BTreeMap;

use anyhow::Result;

pub(crate) use ledger::Kill;
pub(crate) use quotas::Standings;
pub(crate) use sent::Sent;
pub(crate) use verdict::Verdict;

use crate::admin::Admin;

/// What an audit is made of.
#[derive(Debug)]
pub(crate) struct Audit {
    /// Names the run in the requests' ids.
    pub(crate) run: u32,
    /// Everything that was sent.
    pub(crate) sent: Vec<Sent>,
    /// Nodes that were killed meanwhile.
    pub(crate) kills: Vec<Kill>,
    /// Where accounts stood with their quotas before.
    pub(crate) before: Standings,
    /// How far two nodes' clocks may be apart, microseconds.
    pub(crate) clock_slack_us: i64,
}

/// Where these accounts stand with their quotas now. To be asked before anything is sent: what a request takes while this is
/// read would count twice.
///
/// # Errors
/// The cluster does not answer, or (the caller's mistake) does not know an account.
pub(crate) fn standings(admin: &Admin, accounts: &[String]) -> Result<Standings> {
    quotas::standings(admin, accounts)
}

impl Audit {
    /// Asks the cluster and judges.
    ///
    /// # Errors
    /// The cluster does not answer, or not in the form of the contract.
    pub(crate) fn judge(&self, admin: &Admin) -> Result<Verdict> {
        let mut verdict = Verdict { requests: self.sent.len() as u64, ..Verdict::default() };
        if self.sent.is_empty() {
            return Ok(verdict);
        }
        let accounts = fetch::accounts(admin, &self.sent, &mut verdict)?;
        let rows = fetch::settled_rows(admin, &accounts, self)?;
        verdict.rows = rows.iter().filter(|row| row.ours.is_some()).count() as u64;
        ledger::judge(self, admin, &rows, &mut verdict)?;
        let policies: BTreeMap<String, policy::Policies> = accounts
            .iter()
            .map(|account| Ok((account.clone(), policy::Policies::of(admin, account)?)))
            .collect::<Result<_>>()?;
        limits::judge(&rows, &policies, self.clock_slack_us, &mut verdict);
        quotas::judge(admin, &rows, &policies, &self.before, &mut verdict)?;
        usage::judge(admin, &accounts, &rows, self, &mut verdict)?;
        Ok(verdict)
    }
}
