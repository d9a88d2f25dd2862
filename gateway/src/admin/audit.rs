//! `/v1/audit`: every admin write, newest first.

use std::fmt::Write;

use axum::{extract::State, response::Response};
use serde::Serialize;
use store::model::{AuditRecord, Revision, Timestamp};

use super::{
    Shared,
    access::Visitor,
    answer,
    params::{Page, Params},
    problem::Result,
};

/// Most operations of one write.
const MAX_OPS: usize = 1_000;

/// A line of the audit log. `before` and `after` are SHA-256 of the stored object: the log itself keeps no personal data.
#[derive(Debug, Serialize)]
struct View {
    revision: Revision,
    at: Timestamp,
    actor: String,
    request_id: Option<String>,
    action: String,
    kind: String,
    id: String,
    before: Option<String>,
    after: Option<String>,
}

impl From<AuditRecord> for View {
    fn from(record: AuditRecord) -> Self {
        Self {
            revision: record.revision,
            at: record.at,
            actor: record.actor,
            request_id: Some(record.request_id).filter(|id| !id.is_empty()),
            action: record.action,
            kind: record.kind,
            id: record.id,
            before: digest(&record.before),
            after: digest(&record.after),
        }
    }
}

fn digest(bytes: &[u8]) -> Option<String> {
    let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a text cannot fail");
        hex
    });
    Some(hex).filter(|hex| !hex.is_empty())
}

/// `GET /v1/audit`
pub(crate) async fn list(_: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    let page = params.page();
    let before: Option<Revision> = page.after.as_ref().and_then(|after| after.parse().ok());
    if page.after.is_some() && before.is_none() {
        params.refuse("cursor", "is not valid: use a next_cursor as it was given");
    }
    params.finish()?;
    let mut records = admin.store.audit(before, page.limit + MAX_OPS)?;
    let next = page_end(&records, page.limit).map(|end| {
        records.truncate(end);
        Page::cursor(records[end - 1].revision)
    });
    let views: Vec<View> = records.into_iter().map(View::from).collect();
    Ok(answer::list(views, next))
}

/// Where a page ends that has more after it. Operations of one write share its revision, which is where the next page
/// goes on, so they stay together: a page may have some fewer records than asked for, or some more.
fn page_end(records: &[AuditRecord], limit: usize) -> Option<usize> {
    let cut = records.get(limit)?.revision;
    match records[..limit].iter().position(|record| record.revision == cut) {
        None => Some(limit),
        Some(0) => records.iter().position(|record| record.revision != cut),
        Some(start) => Some(start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(revisions: &[u64], limit: usize) -> Option<usize> {
        let record = |revision: &u64| AuditRecord {
            revision: *revision,
            at: Timestamp(0),
            actor: String::new(),
            request_id: String::new(),
            action: String::new(),
            kind: String::new(),
            id: String::new(),
            before: Vec::new(),
            after: Vec::new(),
        };
        page_end(&revisions.iter().map(record).collect::<Vec<_>>(), limit)
    }

    #[test]
    fn a_page_never_parts_the_operations_of_a_write() {
        assert_eq!(end(&[9, 8, 7], 3), None);
        assert_eq!(end(&[9, 8, 7, 6], 3), Some(3));
        assert_eq!(end(&[9, 8, 7, 7], 3), Some(2));
        assert_eq!(end(&[9, 9, 9, 9, 8], 2), Some(4));
    }
}
