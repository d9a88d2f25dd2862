//! A request as it is sent.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri, header};

/// Everything of a request but its key.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// The method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) uri: Uri,
    /// Headers besides `Host`, key and id.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub(crate) body: Bytes,
}

impl Spec {
    /// From its parts; a body without a type is JSON.
    pub(crate) fn new<'a>(
        method: &str,
        path: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        body: Bytes,
    ) -> Result<Self> {
        let method = Method::from_bytes(method.as_bytes()).with_context(|| format!("{method:?} is not a method"))?;
        let uri: Uri = path.parse().with_context(|| format!("{path:?} is not a path"))?;
        ensure!(
            path.starts_with('/') && uri.authority().is_none(),
            "{path:?} is not a path; expected one like /v3/scan"
        );
        let mut parsed = Vec::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().with_context(|| format!("{name:?} is not a header's name"))?;
            let value = HeaderValue::from_bytes(value.as_bytes())
                .with_context(|| format!("the value of {name} is not allowed"))?;
            // What the connection and the run decide.
            let own = [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
            if !own.contains(&name) {
                parsed.push((name, value));
            }
        }
        if !body.is_empty() && !parsed.iter().any(|(name, _)| *name == header::CONTENT_TYPE) {
            parsed.push((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
        Ok(Self { method, uri, headers: parsed, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_path() {
        assert!(Spec::new("GET", "/a?b=c", [], Bytes::new()).is_ok());
        assert!(Spec::new("GET", "http://other/a", [], Bytes::new()).is_err());
        assert!(Spec::new("GET", "a", [], Bytes::new()).is_err());
        assert!(Spec::new("G T", "/", [], Bytes::new()).is_err());
    }
}
