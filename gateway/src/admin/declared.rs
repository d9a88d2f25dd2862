//! The declarative file: a whole configuration as one document, applied as one change.
//!
//! `POST /v1/apply` lays a document over what is stored and says what would be or was changed; `GET /v1/export` writes such a
//! document. Objects are whole: what the document leaves out has its default. A kind whose list is left out is not touched;
//! with `prune`, what a list does not name is removed. Secrets are never in it: a key is declared by its SHA-256, so an
//! environment can be built anew and its clients' keys go on working.

mod deleted;
mod differences;
mod document;
mod export;
mod plan;
mod references;
mod schema;

use axum::{body::Bytes, extract::State, response::Response};
use http::StatusCode;
use serde_json::{Value, json};
use store::model::Role;

pub(crate) use export::get as export;
pub(crate) use schema::{document as schema, get as get_schema};

use super::{
    Shared,
    access::Visitor,
    answer, change,
    draft::{Draft, Effect},
    freshness, input,
    params::Params,
    problem::{Problem, Result},
};

/// Largest document: some 40,000 accounts with a key each.
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// `POST /v1/apply`
pub(crate) async fn apply(visitor: Visitor, State(admin): Shared, mut params: Params, body: Bytes) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?.without_key();
    writer.caller().require_everywhere()?;
    let dry_run = params.flag("dry_run");
    let prune = params.flag("prune");
    params.finish()?;
    let mut unchanged = 0;
    // Read anew for each try rather than kept beside what is made of it: values take many times the memory of their text.
    let plan = |draft: &mut Draft<'_>| tokio::task::block_in_place(|| plan::lay(draft, input::required(&body)?, prune));
    let (effects, revision) = if dry_run {
        let planned = || plan(&mut Draft::new(&admin.store, writer.caller()));
        (freshness::caught_up(&admin.store, planned).await?, None)
    } else {
        let outcome = change::run(&admin, &writer, &body, |draft| Ok(plan(draft)?)).await;
        let outcome = outcome.map_err(|refusal| refusal.problem)?;
        (outcome.effects, outcome.revision)
    };
    let changes: Vec<Value> = effects
        .into_iter()
        .filter_map(|effect| match effect.view {
            Value::Object(mut change) => {
                change.shift_remove("revision");
                Some(Value::Object(change))
            }
            _ => {
                unchanged += 1;
                None
            }
        })
        .collect();
    let revision = if changes.is_empty() { None } else { revision };
    Ok(answer::plain(&json!({
        "dry_run": dry_run,
        "revision": revision,
        "unchanged": unchanged,
        "changes": changes,
    })))
}

/// What an object of the document comes to: a change that is told, or nothing.
fn effect(kind: super::draft::Kind, id: &str, change: Option<Value>) -> Effect {
    Effect { status: StatusCode::OK, kind, id: id.to_owned(), view: change.unwrap_or_default(), is_written: true }
}

/// A document that was made of an older state than there is now.
fn overtaken(since: u64, errors: Vec<super::problem::FieldError>) -> Problem {
    let detail = format!(
        "{} of what the document would change were changed or deleted after its revision {since}: export or diff again, then repeat",
        errors.len()
    );
    Problem::new(super::problem::Code::PreconditionFailed, detail).with_places(errors)
}
