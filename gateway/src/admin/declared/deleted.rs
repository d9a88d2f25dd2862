//! What was deleted after a document was made.
//!
//! What is not there has no revision that a document's could be compared with, and a document that is older than its deletion
//! would bring it back: an account that has left, and with it keys that were revoked. The audit knows when it went.

use std::collections::HashMap;

use store::{
    Store,
    model::{AuditRecord, Revision},
};

use crate::admin::problem::{Code, FieldError, Problem, Result};

/// Lines that are read at once.
const AT_ONCE: usize = 1_000;
/// Lines that are looked through, some seconds of a thread; a document that is older is refused.
const MAX_LINES: usize = 1_000_000;

/// An object that a document would make; of a key, its account.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) pointer: String,
    pub(super) kind: String,
    pub(super) id: String,
}

/// Those of them that were deleted after an entry, each told.
///
/// # Errors
/// The disk; or there are too many lines since.
pub(super) fn after(store: &Store, since: Revision, made: Vec<Made>) -> Result<Vec<FieldError>> {
    let page = |before| Ok(store.audit(before, AT_ONCE)?);
    among(since, made, page, MAX_LINES)
}

fn among(
    since: Revision,
    made: Vec<Made>,
    page: impl Fn(Option<(Revision, u32)>) -> Result<Vec<AuditRecord>>,
    max_lines: usize,
) -> Result<Vec<FieldError>> {
    if made.is_empty() {
        return Ok(Vec::new());
    }
    let mut by_id: HashMap<(String, String), Vec<String>> = HashMap::new();
    for Made { pointer, kind, id } in made {
        by_id.entry((kind, id)).or_default().push(pointer);
    }
    let (mut told, mut read, mut before) = (Vec::new(), 0, None);
    // Newest first, so that each is told of by its last deletion.
    loop {
        let lines = page(before)?;
        let Some(last) = lines.last() else { return Ok(told) };
        (before, read) = (Some((last.revision, last.line)), read + lines.len());
        for line in lines {
            if line.revision <= since || by_id.is_empty() {
                return Ok(told);
            }
            if line.action != "delete" {
                continue;
            }
            let detail = format!("{} {:?} was deleted at revision {}: create", line.kind, line.id, line.revision);
            let pointers = by_id.remove(&(line.kind, line.id)).unwrap_or_default();
            told.extend(pointers.into_iter().map(|pointer| FieldError { pointer, detail: detail.clone() }));
        }
        if read >= max_lines {
            let detail = format!(
                "the document's revision {since} is more than {max_lines} lines of the audit ago, too many to tell what \
                 was deleted since: export or diff again, then repeat"
            );
            return Err(Problem::new(Code::PreconditionFailed, detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(revision: Revision, action: &str, id: &str) -> AuditRecord {
        AuditRecord { revision, action: action.into(), kind: "account".into(), id: id.into(), ..AuditRecord::default() }
    }

    fn told(since: Revision, ids: &[&str], max_lines: usize) -> Result<Vec<String>> {
        // Pages of two lines, newest first.
        let audit = [
            line(9, "put", "back"),
            line(8, "delete", "back"),
            line(7, "DELETE", "refused"),
            line(6, "delete", "gone"),
            line(5, "delete", "gone"),
            line(4, "delete", "long-gone"),
        ];
        let page = |before: Option<(Revision, u32)>| {
            let older = audit.iter().filter(|line| before.is_none_or(|(revision, _)| line.revision < revision));
            Ok(older.take(2).cloned().collect())
        };
        let made = |id: &&str| Made { pointer: format!("/{id}"), kind: "account".into(), id: (*id).into() };
        let found = among(since, ids.iter().map(made).collect(), page, max_lines)?;
        Ok(found.into_iter().map(|error| format!("{} {}", error.pointer, error.detail)).collect())
    }

    #[test]
    fn only_what_was_deleted_since_is_told_and_by_its_last_deletion() {
        let ids = ["gone", "never", "long-gone", "refused", "back"];
        assert_eq!(
            told(4, &ids, 100),
            Ok(vec![
                "/back account \"back\" was deleted at revision 8: create".to_owned(),
                "/gone account \"gone\" was deleted at revision 6: create".to_owned(),
            ])
        );
        assert_eq!(told(9, &ids, 100), Ok(Vec::new()));
        assert_eq!(told(0, &[], 0), Ok(Vec::new()));
    }

    #[test]
    fn a_document_that_is_too_old_to_tell_is_refused() {
        let problem = told(0, &["never"], 4).expect_err("refused");
        assert_eq!(problem.code(), Code::PreconditionFailed);
    }
}
