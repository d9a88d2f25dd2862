//! Refused writes, in the audit: who tried what, from where, and why not.
//!
//! A write that happens is in the audit by itself, in its own entry. One that is refused leaves nothing, so this layer adds a
//! line before the refusal is answered. Many that come at once share an entry.

use std::sync::Arc;

use axum::{
    extract::{OriginalUri, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::Method;
use store::{
    Store,
    model::{AuditNote, Timestamp},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Admin,
    access::source,
    problem::{Code, Problem},
    request_id::AdminRequestId,
};
use crate::operator::Caller;

/// Refusals that wait for an entry; at the bound further ones are answered 503 and nothing is noted.
const WAITING: usize = 1_024;
/// Refusals in one entry.
const AT_ONCE: usize = 256;
/// Longest path that is noted.
const MAX_PATH_BYTES: usize = 512;

type Waiting = (AuditNote, oneshot::Sender<Result<(), Problem>>);

/// Writes refusals down.
#[derive(Debug)]
pub(crate) struct Trail(mpsc::Sender<Waiting>);

impl Trail {
    /// Runs as long as somebody holds it.
    pub(crate) fn start(store: Store) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Waiting>(WAITING);
        tokio::spawn(async move {
            let mut some = Vec::new();
            while receiver.recv_many(&mut some, AT_ONCE).await > 0 {
                let (notes, answers): (Vec<_>, Vec<_>) = some.drain(..).unzip();
                let noted = store.note(notes).await.map_err(Problem::from);
                for answer in answers {
                    // Its request may have gone away; the line is there all the same.
                    let _ = answer.send(noted.clone());
                }
            }
        });
        Self(sender)
    }

    async fn note(&self, note: AuditNote) -> Result<(), Problem> {
        let (answer, noted) = oneshot::channel();
        let full = |_| Problem::busy("too many refused requests wait for their place in the audit");
        self.0.try_send((note, answer)).map_err(full)?;
        noted.await.unwrap_or_else(|_| Err(Problem::busy("the node is stopping")))
    }
}

/// Below the layer that knows the caller.
pub(crate) async fn layer(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let caller = request.extensions().get::<Caller>().cloned();
    let reads = reads || request.uri().path() == "/explain";
    let (Some(caller), false) = (caller, reads) else { return next.run(request).await };
    // Routers below see the path without its first part.
    let whole = request.extensions().get::<OriginalUri>().map_or(request.uri(), |whole| &whole.0);
    let mut path = whole.path().to_owned();
    path.truncate(path.floor_char_boundary(MAX_PATH_BYTES));
    let mut note = AuditNote {
        at: Timestamp::now(),
        actor: caller.actor,
        role: Some(caller.role),
        source: source(request.extensions()),
        request_id: request.extensions().get::<AdminRequestId>().map(ToString::to_string).unwrap_or_default(),
        action: request.method().as_str().to_owned(),
        id: path,
        result: String::new(),
    };
    let response = next.run(request).await;
    if !response.status().is_client_error() {
        return response;
    }
    let problem = response.extensions().get::<Problem>();
    note.result = problem.map_or(Code::of_status(response.status()), Problem::code).as_str().to_owned();
    match admin.trail.note(note).await {
        Ok(()) => response,
        Err(problem) => problem.into_response(),
    }
}
