//! Refused writes and reads of what is confidential, in the audit: who asked what, from where, and why not.
//!
//! A write that happens is in the audit by itself, in its own entry. One that is refused leaves nothing, nor does a read, so
//! this layer adds a line before the answer goes out. Many that come at once share an entry.
//!
//! Lines are replicated and kept long, and whoever has a token, a customer's own too, can be refused in a loop. So each
//! caller has a few lines at once and then one a minute; what it does beyond that is counted by method and outcome, and a line
//! a minute says how often. A node that is killed loses the last minute of these counts, never a line that was answered for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

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
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Admin,
    access::source,
    problem::{Code, Problem},
    request_id::AdminRequestId,
};
use crate::operator::Caller;

/// Notes that wait for an entry; at the bound further requests are answered 503 and nothing is noted.
const WAITING: usize = 1_024;
/// Notes in one entry.
const AT_ONCE: usize = 256;
/// Longest path that is noted.
const MAX_PATH_BYTES: usize = 512;
/// Lines that a caller can cause at once on a node.
const BURST: u32 = 20;
/// Until it can cause one more, and between lines that count what had none of its own.
const MINUTE: Duration = Duration::from_secs(60);
/// Callers that are counted; at the bound those of others are answered 503 and nothing is noted.
const MAX_CALLERS: usize = 4_096;

type Waiting = (AuditNote, oneshot::Sender<Result<(), Problem>>);

/// Writes notes down.
#[derive(Debug)]
pub(crate) struct Trail {
    sender: mpsc::Sender<Waiting>,
    callers: Arc<Mutex<Callers>>,
}

/// What each caller has caused.
#[derive(Debug, Default)]
struct Callers(HashMap<String, Caused>);

#[derive(Debug)]
struct Caused {
    /// Lines that it can still have.
    left: u32,
    /// Since when the next one counts.
    since: Instant,
    /// By method and result: the first of those without a line, and how many there are.
    counted: HashMap<(String, String), (AuditNote, u32)>,
}

/// What becomes of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Line,
    Counted,
    Full,
}

impl Callers {
    fn place(&mut self, note: &AuditNote, now: Instant) -> Place {
        if !self.0.contains_key(&note.actor) {
            if self.0.len() >= MAX_CALLERS {
                self.0.retain(|_, caused| !caused.is_over(now));
            }
            if self.0.len() >= MAX_CALLERS {
                return Place::Full;
            }
        }
        let caused = self.0.entry(note.actor.clone()).or_insert_with(|| Caused::new(now));
        caused.refill(now);
        if caused.left > 0 {
            caused.left -= 1;
            return Place::Line;
        }
        let kind = (note.action.clone(), note.result.clone());
        caused.counted.entry(kind).or_insert_with(|| (note.clone(), 0)).1 += 1;
        Place::Counted
    }

    /// What was counted, a note a kind; nothing is counted any more then.
    fn take(&mut self) -> Vec<AuditNote> {
        let counted = self.0.values_mut().flat_map(|caused| caused.counted.drain());
        counted.map(|(_, (note, count))| AuditNote { count: Some(count), ..note }).collect()
    }

    /// Counts what could not be written once more.
    fn put_back(&mut self, notes: Vec<AuditNote>) {
        for note in notes {
            let caused = self.0.entry(note.actor.clone()).or_insert_with(|| Caused::new(Instant::now()));
            let (kind, count) = ((note.action.clone(), note.result.clone()), note.count.unwrap_or(1));
            caused.counted.entry(kind).or_insert_with(|| (note, 0)).1 += count;
        }
    }
}

impl Caused {
    fn new(now: Instant) -> Self {
        Self { left: BURST, since: now, counted: HashMap::new() }
    }

    fn refill(&mut self, now: Instant) {
        let minutes = now.duration_since(self.since).as_secs() / MINUTE.as_secs();
        let minutes = u32::try_from(minutes).unwrap_or(u32::MAX);
        self.since += MINUTE * minutes;
        self.left = self.left.saturating_add(minutes).min(BURST);
    }

    /// As good as never seen.
    fn is_over(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left == BURST && self.counted.is_empty()
    }
}

impl Trail {
    /// Runs as long as somebody holds it.
    pub(crate) fn start(store: Store) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Waiting>(WAITING);
        let callers = Arc::new(Mutex::new(Callers::default()));
        let counted = callers.clone();
        tokio::spawn(async move {
            let mut some = Vec::new();
            let mut minute = tokio::time::interval(MINUTE);
            loop {
                tokio::select! {
                    _ = minute.tick() => write_counted(&store, &counted).await,
                    read = receiver.recv_many(&mut some, AT_ONCE) => {
                        if read == 0 {
                            return write_counted(&store, &counted).await;
                        }
                        let (notes, answers): (Vec<_>, Vec<_>) = some.drain(..).unzip();
                        let noted = store.note(notes).await.map_err(Problem::from);
                        for answer in answers {
                            // Its request may have gone away; the line is there all the same.
                            let _ = answer.send(noted.clone());
                        }
                    }
                }
            }
        });
        Self { sender, callers }
    }

    /// Returns when the note has its line, or is counted.
    async fn note(&self, note: AuditNote) -> Result<(), Problem> {
        let full = || Problem::busy("too many requests wait for their place in the audit");
        let place = lock(&self.callers).place(&note, Instant::now());
        match place {
            Place::Full => return Err(full()),
            Place::Counted => return Ok(()),
            Place::Line => {}
        }
        let (answer, noted) = oneshot::channel();
        self.sender.try_send((note, answer)).map_err(|_| full())?;
        noted.await.unwrap_or_else(|_| Err(Problem::busy("the node is stopping")))
    }
}

async fn write_counted(store: &Store, callers: &Mutex<Callers>) {
    let mut notes = lock(callers).take();
    while !notes.is_empty() {
        let rest = notes.split_off(notes.len().min(AT_ONCE));
        if let Err(error) = store.note(notes.clone()).await {
            tracing::warn!(%error, "counts of refused requests are not in the audit yet");
            notes.extend(rest);
            return lock(callers).put_back(notes);
        }
        notes = rest;
    }
}

fn lock(callers: &Mutex<Callers>) -> MutexGuard<'_, Callers> {
    callers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a read shows hashes of secrets: a key's text can be tried against them.
fn is_confidential(path: &str) -> bool {
    path == "/export" || path == "/tokens" || path.starts_with("/tokens/")
}

/// Below the layer that knows the caller.
pub(crate) async fn layer(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let caller = request.extensions().get::<Caller>().cloned();
    // Routers below see the path without its first part.
    let confidential = reads && is_confidential(request.uri().path());
    let reads = reads || request.uri().path() == "/explain";
    let (Some(caller), true) = (caller, confidential || !reads) else { return next.run(request).await };
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
        count: None,
    };
    let response = next.run(request).await;
    let refused = response.status().is_client_error();
    let is_told = refused || (confidential && response.status().is_success());
    if !is_told {
        return response;
    }
    if refused {
        let problem = response.extensions().get::<Problem>();
        note.result = problem.map_or(Code::of_status(response.status()), Problem::code).as_str().to_owned();
    }
    match admin.trail.note(note).await {
        Ok(()) => response,
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(actor: &str, action: &str, result: &str) -> AuditNote {
        AuditNote { actor: actor.into(), action: action.into(), result: result.into(), ..AuditNote::default() }
    }

    #[test]
    fn a_caller_that_is_refused_in_a_loop_causes_few_lines_and_every_request_is_counted() {
        let (mut callers, start) = (Callers::default(), Instant::now());
        let (mut lines, mut counted) = (0, 0);
        // Ten minutes at a hundred a second, of two kinds.
        for request in 0..60_000u32 {
            let kind = if request % 2 == 0 { "role-too-low" } else { "not-found" };
            match callers.place(&note("tok_1", "PUT", kind), start + Duration::from_millis(u64::from(request) * 10)) {
                Place::Line => lines += 1,
                place => assert_eq!(place, Place::Counted),
            }
            if request % 6_000 == 5_999 {
                let told = callers.take();
                assert_eq!(told.len(), 2, "a line a kind");
                counted += told.iter().filter_map(|note| note.count).sum::<u32>();
            }
        }
        assert_eq!((lines, lines + counted), (BURST + 9, 60_000));
        // Another caller has lines of its own.
        assert_eq!(callers.place(&note("tok_2", "PUT", "x"), start), Place::Line);
    }

    #[test]
    fn what_could_not_be_written_is_counted_once_more() {
        let (mut callers, now) = (Callers::default(), Instant::now());
        for _ in 0..BURST + 3 {
            callers.place(&note("a", "GET", ""), now);
        }
        let told = callers.take();
        callers.put_back(told);
        callers.place(&note("a", "GET", ""), now);
        assert_eq!(callers.take().iter().map(|note| note.count).collect::<Vec<_>>(), [Some(4)]);
    }

    #[test]
    fn callers_are_bounded_and_forgotten_when_they_are_quiet() {
        let (mut callers, now) = (Callers::default(), Instant::now());
        for n in 0..MAX_CALLERS {
            assert_eq!(callers.place(&note(&n.to_string(), "PUT", "x"), now), Place::Line);
        }
        assert_eq!(callers.place(&note("one more", "PUT", "x"), now), Place::Full);
        assert_eq!(callers.place(&note("one more", "PUT", "x"), now + MINUTE), Place::Line);
        assert_eq!(callers.0.len(), 1);
    }

    #[test]
    fn what_shows_hashes_is_confidential() {
        for path in ["/export", "/tokens", "/tokens/tok_1"] {
            assert!(is_confidential(path), "{path}");
        }
        assert!(!is_confidential("/accounts") && !is_confidential("/schema"));
    }
}
