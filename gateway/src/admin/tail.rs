//! `GET /v1/requests/tail`: rows as they are committed, as server-sent events.
//!
//! Each event's `id` is where to go on: a client that comes back with `Last-Event-ID` misses nothing that is still kept. A
//! client that reads slowly is behind and stays correct; nothing is buffered for it here.

use std::{
    convert::Infallible,
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use store::{RecordPlace, RowQuery, Store, model::Timestamp};

use super::{
    Shared,
    access::Visitor,
    accounts,
    params::Params,
    problem::{Problem, Result},
    requests,
};

/// Followers a node has at once; a further one is answered 503.
const MAX_FOLLOWERS: usize = 32;
/// How often a follower that has seen everything looks again.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Silence after which a comment is sent, so that whatever lies between knows that the connection lives.
const COMMENT_EVERY: Duration = Duration::from_secs(10);
/// Rows of one look.
const ROWS_AT_ONCE: usize = 500;

/// Followers under way on this node.
#[derive(Debug, Default)]
pub(crate) struct Followers(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Followers {
    fn join(&self) -> Result<Place> {
        let place = Place(self.0.clone());
        if self.0.fetch_add(1, Ordering::Relaxed) >= MAX_FOLLOWERS {
            return Err(Problem::busy(format!("{MAX_FOLLOWERS} clients follow this node's log already")));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Follower {
    store: Store,
    query: RowQuery,
    next: RecordPlace,
    last_sent: tokio::time::Instant,
    /// Its token's end.
    until: Option<Timestamp>,
    _place: Place,
}

/// `GET /v1/requests/tail`
pub(crate) async fn get(
    visitor: Visitor,
    State(admin): Shared,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    let query = requests::query_of_tail(visitor.caller(), &mut params);
    params.finish()?;
    if let Some(account) = &query.account {
        accounts::existing(&visitor, &admin.store, account)?;
    }
    let last =
        headers.get("last-event-id").map(|value| value.to_str().ok().and_then(|text| text.parse::<RecordPlace>().ok()));
    let next = match last {
        None => admin.store.next_record(),
        Some(Some(last)) => last,
        Some(None) => return Err(Problem::of_header("Last-Event-ID", "expected an id of an event")),
    };
    let place = admin.followers.join()?;
    let store = admin.store.clone();
    let follower = Follower {
        store,
        query,
        next,
        last_sent: tokio::time::Instant::now(),
        until: visitor.expires_at(),
        _place: place,
    };
    let admin = admin.clone();
    let first = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b": following\n\n")) });
    let events = stream::unfold(follower, move |mut follower| {
        let admin = admin.clone();
        async move {
            loop {
                // A node that is told to stop does not wait for its followers; a token that has ended sees nothing more.
                let over = follower.until.is_some_and(|until| until <= Timestamp::now());
                if admin.is_draining() || over {
                    return None;
                }
                if let Some(text) = follower.step().await {
                    return Some((Ok::<_, Infallible>(text), follower));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    });
    let mut response = Body::from_stream(stream::StreamExt::chain(first, events)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

impl Follower {
    /// What is to be sent now, if anything.
    async fn step(&mut self) -> Option<Bytes> {
        if self.next.is_before(&self.store.next_record()) {
            let mut text = String::new();
            match self.store.requests_from(&self.next, self.query.clone(), ROWS_AT_ONCE).await {
                Ok(followed) => {
                    let many = followed.rows.len();
                    for (n, row) in followed.rows.into_iter().enumerate() {
                        // A client that comes back in the middle of a look gets the whole of it again and misses nothing.
                        let id = if n + 1 == many { &followed.next } else { &self.next };
                        let row = json!(requests::View::from(row));
                        write!(text, "event: request\nid: {id}\ndata: {row}\n\n")
                            .expect("writing to a text cannot fail");
                    }
                    self.next = followed.next;
                }
                Err(error) => {
                    tracing::warn!(%error, "follow the log");
                    text = "event: error\ndata: {\"detail\":\"the ledger could not be read\"}\n\n".to_owned();
                }
            }
            if !text.is_empty() {
                self.last_sent = tokio::time::Instant::now();
                return Some(text.into());
            }
        }
        if self.last_sent.elapsed() >= COMMENT_EVERY {
            self.last_sent = tokio::time::Instant::now();
            return Some(Bytes::from_static(b": nothing new\n\n"));
        }
        None
    }
}
