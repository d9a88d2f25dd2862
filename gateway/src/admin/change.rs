//! Carries a draft out: one atomic replicated write, made anew when others were faster, done once under an
//! `Idempotency-Key`.

use std::time::{Duration, Instant};

use axum::response::Response;
use backon::{BackoffBuilder, ExponentialBuilder};
use http::StatusCode;
use serde_json::Value;
use store::{
    Store, WriteError,
    model::{CommandError, Happened, MetaOp, Revision, WriteConflict},
};

use super::{
    Admin,
    access::Writer,
    accounts, answer,
    draft::{Draft, Effect, Kind, Parts},
    etag::Condition,
    freshness, keys,
    once::{Held, REPLAYED, REPLAYED_VALUE},
    problem::{Code, Problem, Result},
    tokens,
};

/// A change whose objects others have changed meanwhile is made anew, when the caller named no revision: this often at
/// least, however long one try takes.
const ATTEMPTS: usize = 8;
/// And for this long, however many others there are: of those that try at once one passes each time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between tries, twice as long each time and by chance up to twice that, so that those that met do not meet again.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// What a change came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) effects: Vec<Effect>,
    /// The entry; none when there was nothing to change.
    pub(crate) revision: Option<Revision>,
    /// It happened before, under the same `Idempotency-Key`.
    pub(crate) replayed: bool,
}

/// Why a write did not happen, and by which of the request's operations.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    pub(crate) operation: Option<usize>,
    /// The caller named no revision: made anew, it may pass.
    again: bool,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, operation: None, again: false }
    }
}

/// A change of one operation, answered as that.
pub(crate) async fn one(
    admin: &Admin,
    writer: &Writer,
    body: &[u8],
    plan: impl Fn(&mut Draft<'_>) -> Result<Effect>,
) -> Result<Response> {
    let plan = |draft: &mut Draft<'_>| Ok(vec![plan(draft)?]);
    let outcome = run(admin, writer, body, plan).await.map_err(|refusal| refusal.problem)?;
    let replayed = outcome.replayed;
    let revision = outcome.revision.unwrap_or_default();
    let Some(effect) = outcome.effects.into_iter().next() else { return Ok(answer::gone()) };
    let revision = effect.view["revision"].as_u64().unwrap_or(revision);
    let mut response = match effect.status {
        StatusCode::CREATED => answer::created(&effect.kind.path(&effect.id), revision, &effect.view),
        StatusCode::NO_CONTENT => answer::gone(),
        status => answer::object(status, revision, &effect.view),
    };
    if replayed {
        response.headers_mut().insert(REPLAYED, REPLAYED_VALUE);
    }
    Ok(response)
}

/// A change of any number of operations.
///
/// # Errors
/// The plan's own problem, or why the write was refused.
pub(crate) async fn run(
    admin: &Admin,
    writer: &Writer,
    body: &[u8],
    plan: impl Fn(&mut Draft<'_>) -> Result<Vec<Effect>, Refusal>,
) -> Result<Outcome, Refusal> {
    let held = match writer.asked() {
        Some(asked) => Some(admin.under_way.begin(writer.caller(), asked, body)?),
        None => None,
    };
    if let Some(held) = &held
        && let Some(happened) = admin.store.happened(&held.once(&[])).map_err(Problem::from)?
    {
        return Ok(replay(&admin.store, held, &happened).await?);
    }
    let began = Instant::now();
    let mut pauses = pauses();
    let mut attempts = 0..;
    while attempts.next().is_some_and(|attempt| attempt < ATTEMPTS || began.elapsed() < PATIENCE) {
        let mut draft = Draft::new(&admin.store, writer.caller());
        let mut effects = match plan(&mut draft) {
            Err(refusal) if refusal.problem.is_behind() => {
                admin.store.barrier().await.map_err(Problem::from)?;
                continue;
            }
            planned => planned?,
        };
        let written = write(admin, writer, draft.into_parts(), held.as_ref(), &effects).await;
        match written {
            Ok(Written::Done(revision)) => {
                if let Some(revision) = revision {
                    let written = effects.iter_mut().filter(|effect| effect.is_written && effect.view.is_object());
                    for effect in written {
                        effect.view["revision"] = revision.into();
                    }
                }
                return Ok(Outcome { effects, revision, replayed: false });
            }
            Ok(Written::Before(happened)) => {
                let held = held.as_ref().expect("only a write with a key can have happened before");
                return Ok(replay(&admin.store, held, &happened).await?);
            }
            Err(refusal) if refusal.again => {
                tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
                admin.store.barrier().await.map_err(Problem::from)?;
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Err(Problem::new(Code::NotPossible, "what is to be changed is being changed by others all the time: try again")
        .into())
}

fn pauses() -> impl Iterator<Item = Duration> {
    let doubling = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
    doubling.without_max_times().with_jitter().build()
}

enum Written {
    Done(Option<Revision>),
    Before(Happened),
}

async fn write(
    admin: &Admin,
    writer: &Writer,
    parts: Parts,
    held: Option<&Held>,
    effects: &[Effect],
) -> Result<Written, Refusal> {
    let Parts { now, mut ops, profiles, changed } = parts;
    if ops.is_empty() && held.is_none() {
        // What is there already may have been written this very moment: it is in force when this is answered too.
        admin.store.settle().await.map_err(Problem::from)?;
        return Ok(Written::Done(None));
    }
    if !profiles.is_empty() {
        let mut wanted = Vec::with_capacity(profiles.len());
        let mut places = Vec::with_capacity(profiles.len());
        for (place, published, profile) in profiles {
            if let (_, _, MetaOp::PutAccount { account, .. }) = &ops[place] {
                wanted.push((account.id.clone(), published, profile));
                places.push(place);
            }
        }
        let stages = admin.store.stage_profiles(wanted).await.map_err(Problem::from)?;
        for (place, stage) in places.into_iter().zip(stages) {
            if let (_, _, MetaOp::PutAccount { account, .. }) = &mut ops[place] {
                account.profile = stage;
            }
        }
    }
    let origins: Vec<(usize, Condition)> = ops.iter().map(|(origin, condition, _)| (*origin, *condition)).collect();
    let ops = ops.into_iter().map(|(_, _, op)| op).collect();
    let once = held.map(|held| held.once(effects));
    let error = match writer.write(&admin.store, now, ops, once, changed).await {
        Ok(revision) => return Ok(Written::Done(Some(revision))),
        Err(WriteError::Refused(CommandError::Happened(happened))) if held.is_some() => {
            return Ok(Written::Before(happened));
        }
        Err(error) => error,
    };
    let WriteError::Refused(CommandError::Conflict { op, conflict, .. }) = &error else {
        return Err(Problem::from(error).into());
    };
    let (operation, condition) = origins.get(*op as usize).copied().unwrap_or((0, Condition::None));
    // An object that was there, or was as it was, when the draft read it.
    let overtaken = matches!(conflict, WriteConflict::Revision { .. } | WriteConflict::Missing);
    let again = overtaken && condition == Condition::None;
    let problem = condition.refused(error.into(), None);
    Err(Refusal { problem, operation: Some(operation), again })
}

/// The answer once more, from what is there now; without secrets, which nobody keeps.
async fn replay(store: &Store, held: &Held, happened: &Happened) -> Result<Outcome> {
    let kept = held.kept(happened)?;
    // Whoever was answered before waited for this; whoever is answered now has to as well.
    store.settle().await?;
    let is_single = kept.len() == 1;
    let mut effects = Vec::with_capacity(kept.len());
    for (status, kind, id) in kept {
        let view = match status {
            StatusCode::NO_CONTENT => None,
            _ => freshness::caught_up(store, || show(store, kind, &id)).await?,
        };
        if view.is_none() && is_single && status != StatusCode::NO_CONTENT {
            return Err(Problem::new(
                Code::NotFound,
                format!("this Idempotency-Key made the {} {id:?}, which was deleted since", kind.noun()),
            ));
        }
        effects.push(Effect { status, kind, id, view: view.unwrap_or_default(), is_written: true });
    }
    Ok(Outcome { effects, revision: Some(happened.revision), replayed: true })
}

/// An object as the API shows it.
pub(crate) fn show(store: &Store, kind: Kind, id: &str) -> Result<Option<Value>> {
    Ok(match kind {
        Kind::Account => accounts::show(store, id)?,
        Kind::Key => keys::show(store, id)?,
        Kind::Tier => store.tier(id)?.map(|tier| serde_json::json!(tier)),
        Kind::Route => store.route(id)?.map(|route| serde_json::json!(route)),
        Kind::Upstream => store.upstream(id)?.map(|upstream| serde_json::json!(upstream)),
        Kind::Token => tokens::show(store, id)?,
    })
}
