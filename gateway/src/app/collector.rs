//! The exporter to an OpenTelemetry collector, from the node's settings.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use http::{HeaderName, HeaderValue};
use store::Store;
use zeroize::Zeroizing;

use crate::{
    admin::Prometheus,
    config::Settings,
    otlp::{self, Exporter, Tracer},
    tls::ClientFiles,
};

/// Starts it, where a collector is named.
///
/// # Errors
/// A file of the settings cannot be used.
pub(super) fn start(
    settings: &Settings,
    prometheus: &Prometheus,
    store: &Store,
) -> anyhow::Result<Option<(Arc<Tracer>, Exporter)>> {
    if settings.otlp_endpoint.is_empty() {
        return Ok(None);
    }
    let given = |path: &std::path::PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
    let headers = match given(&settings.otlp_headers_file) {
        None => Vec::new(),
        Some(path) => {
            let text = Zeroizing::new(std::fs::read_to_string(&path).context("read otlp_headers_file")?);
            headers(&text).with_context(|| format!("read otlp_headers_file {}", path.display()))?
        }
    };
    let exporting = otlp::Settings {
        endpoint: settings.otlp_endpoint.trim_end_matches('/').to_owned(),
        headers,
        sample_ratio: settings.otlp_sample_ratio,
        metrics_every: (settings.otlp_metrics_seconds > 0).then(|| Duration::from_secs(settings.otlp_metrics_seconds)),
        tls: ClientFiles { ca: given(&settings.otlp_ca), identity: None },
        node: settings.node_name.clone(),
        region: settings.region.clone(),
    };
    let (prometheus, store) = (prometheus.clone(), store.clone());
    let started =
        otlp::start(exporting, move || prometheus.text(&store)).context("start the export to otlp_endpoint")?;
    Ok(Some(started))
}

/// A `name: value` a line; empty lines and those that begin with `#` are left out. No message repeats a value.
fn headers(text: &str) -> anyhow::Result<Vec<(String, Zeroizing<String>)>> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
    {
        let field = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
        match field {
            Some((name, value)) if name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(value).is_ok() => {
                found.push((name.to_owned(), Zeroizing::new(value.to_owned())));
            }
            _ => bail!("line {} is no header: expected a name, a colon and a value", number + 1),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::headers;

    #[test]
    fn headers_are_read_and_what_is_none_is_told_without_its_text() {
        let read = headers("# for the collector\nauthorization: Bearer x:y\n\nx-scope:  7 \n").expect("headers");
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(read, [("authorization", "Bearer x:y"), ("x-scope", "7")]);
        for wrong in ["secret", "se cret: x", "x: se\u{1}cret"] {
            let said = format!("{:#}", headers(wrong).expect_err(wrong));
            assert!(said.contains("line 1") && !said.contains("cret"), "{said}");
        }
    }
}
