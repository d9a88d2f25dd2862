//! `/openapi.json`, and `/docs`: a page to read and try it, all of it in the binary.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use http::{HeaderValue, header};
use utoipa_swagger_ui::Config;

use super::{
    Shared,
    problem::{Problem, Result},
};

/// The document and the page's settings.
pub(crate) struct Docs {
    document: Bytes,
    page: Arc<Config<'static>>,
}

impl std::fmt::Debug for Docs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Docs({} bytes)", self.document.len())
    }
}

impl Docs {
    pub(crate) fn new(document: &serde_json::Value) -> Self {
        Self { document: document.to_string().into(), page: Arc::new(Config::new(["/openapi.json"])) }
    }
}

/// `GET /openapi.json`
pub(crate) async fn document(State(admin): Shared) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], admin.docs.document.clone()).into_response()
}

/// `GET /docs`: its assets lie below it.
pub(crate) async fn index() -> Redirect {
    Redirect::permanent("/docs/")
}

/// `GET /docs/`
pub(crate) async fn page(admin: Shared) -> Result<Response> {
    asset(admin, Path("index.html".to_owned())).await
}

/// `GET /docs/{path}`
pub(crate) async fn asset(State(admin): Shared, Path(path): Path<String>) -> Result<Response> {
    let unknown = || Problem::not_found("page", &path);
    let file = utoipa_swagger_ui::serve(&path, admin.docs.page.clone()).ok().flatten().ok_or_else(unknown)?;
    let mut response = Body::from(file.bytes.into_owned()).into_response();
    let kind = HeaderValue::try_from(file.content_type).map_err(|_| unknown())?;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    // The page shows what the node answers and asks nobody else.
    let policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    Ok(response)
}
