//! `/v1/log-level`: what this node logs, while it runs. A restart takes the setting again.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{body::Bytes, extract::State, response::Response};
use serde_json::json;
use store::model::Role;

use super::{Shared, access::Visitor, answer, input, params::Params, problem::Result};
use crate::config::is_log_level;

/// Longest level.
const MAX_CHARS: usize = 500;

type Apply = dyn Fn(&str) -> std::result::Result<(), String> + Send + Sync;

/// What the process logs, and how that is changed.
#[derive(Clone)]
pub struct LogLevel {
    level: Arc<Mutex<String>>,
    apply: Arc<Apply>,
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogLevel({})", self.lock())
    }
}

impl LogLevel {
    /// The level as it is now, and what changes it.
    pub fn new(level: &str, apply: impl Fn(&str) -> std::result::Result<(), String> + Send + Sync + 'static) -> Self {
        Self { level: Arc::new(Mutex::new(level.to_owned())), apply: Arc::new(apply) }
    }

    fn get(&self) -> String {
        self.lock().clone()
    }

    fn set(&self, level: &str) -> std::result::Result<(), String> {
        (self.apply)(level)?;
        level.clone_into(&mut self.lock());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `GET /v1/log-level`
pub(crate) async fn get(visitor: Visitor, State(admin): Shared, params: Params) -> Result<Response> {
    visitor.require_staff()?;
    params.finish()?;
    Ok(answer::plain(&json!({ "level": admin.log_level.get() })))
}

/// `PUT /v1/log-level`: of the node that answers, at once.
pub(crate) async fn put(visitor: Visitor, State(admin): Shared, params: Params, body: Bytes) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?;
    writer.caller().require_everywhere()?;
    params.finish()?;
    let level = input::read(input::required(&body)?, |object| {
        let field = object.required("level")?;
        let form = "error, warn, info, debug or trace, also by module like info,store=debug,access=info";
        let fits = |text: &str| text.len() <= MAX_CHARS && text.split(',').all(is_log_level);
        let level = field.text(form, fits)?;
        if let Err(error) = admin.log_level.set(&level) {
            object.tell("level", error);
            return None;
        }
        Some(level)
    })?;
    tracing::info!(level, by = writer.caller().actor, "log level changed");
    Ok(answer::plain(&json!({ "level": level })))
}
