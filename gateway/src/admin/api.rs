//! The API's table: each call is told once, and both the router and the OpenAPI document are made of that.

mod document;
pub(crate) mod inputs;
mod schema;
mod views;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    handler::Handler,
    routing::{MethodFilter, on},
};
use http::Method;
use serde_json::{Map, Value};

pub(crate) use document::complete;
pub(crate) use views::View;

use super::Admin;

/// What a call takes in its query, path and headers besides what all of its kind take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Takes {
    /// `limit`, `cursor`.
    Page,
    /// The same of the audit, and of the request log: their cursors have forms of their own.
    AuditPage,
    RequestPage,
    /// A query parameter: name, schema's name, what it means.
    Query(&'static str, Text, &'static str),
    /// `If-Match`, and of a PUT `If-None-Match`.
    Condition,
    /// `Last-Event-ID`.
    LastEvent,
}

/// The form of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    Any,
    Name,
    Slug,
    Time,
    Status,
    OneOf(&'static [&'static str]),
    Outcome,
    AuditPlace,
    Days,
}

/// A call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// `listAccounts`
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    /// The role that it needs.
    pub(crate) role: &'static str,
    pub(crate) takes: &'static [Takes],
    /// The body's form and an example that works.
    pub(crate) body: Option<Body>,
    /// What it answers when it is done.
    pub(crate) answers: &'static [(u16, Answer)],
}

/// A body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body {
    pub(crate) form: fn() -> Value,
    pub(crate) example: &'static str,
    /// None at all is as good as `{}`.
    pub(crate) may_be_empty: bool,
}

/// An answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing.
    Empty,
    /// An object with an `ETag`.
    Revised(View),
    /// An object without.
    Plain(View),
    /// `{data, next_cursor}`
    List(View),
    /// Server-sent events, each with one of these.
    Events(View),
    /// One of these a line.
    Lines(View),
}

/// The table while it is made.
#[derive(Debug)]
pub(crate) struct Api {
    router: Router<Arc<Admin>>,
    paths: BTreeMap<&'static str, Map<String, Value>>,
    fields: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Api {
    pub(crate) fn new() -> Self {
        Self { router: Router::new(), paths: BTreeMap::new(), fields: BTreeMap::new() }
    }

    /// A call of a path below `/v1`.
    pub(crate) fn call<H, T>(mut self, method: &Method, path: &'static str, handler: H, call: Call) -> Self
    where
        H: Handler<T, Arc<Admin>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("one of axum's methods");
        self.router = self.router.route(path, on(filter, handler));
        self.told(method, path, call)
    }

    /// A call whose body may be larger than others'.
    pub(crate) fn large<H, T>(
        mut self,
        method: &Method,
        path: &'static str,
        handler: H,
        body_bytes: usize,
        call: Call,
    ) -> Self
    where
        H: Handler<T, Arc<Admin>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("one of axum's methods");
        let limit = DefaultBodyLimit::max(body_bytes);
        self.router = self.router.route(path, on(filter, handler).layer(limit));
        self.told(method, path, call)
    }

    fn told(mut self, method: &Method, path: &'static str, call: Call) -> Self {
        if let Some((_, Answer::Revised(view) | Answer::Plain(view) | Answer::List(view))) = call.answers.first()
            && *method == Method::GET
        {
            self.fields.insert(path, view.fields());
        }
        let operation = document::operation(method, path, &call);
        self.paths.entry(path).or_default().insert(method.as_str().to_lowercase(), operation);
        self
    }

    /// The router, the paths of the document, and the fields of what each path shows.
    pub(crate) fn into_parts(self) -> (Router<Arc<Admin>>, Paths, Fields) {
        (self.router, self.paths, Fields(Arc::new(self.fields)))
    }
}

/// Paths below `/v1`, each with its operations.
pub(crate) type Paths = BTreeMap<&'static str, Map<String, Value>>;

/// Fields of what a path shows, for `?fields`.
#[derive(Debug, Clone)]
pub(crate) struct Fields(pub(crate) Arc<BTreeMap<&'static str, BTreeSet<String>>>);
