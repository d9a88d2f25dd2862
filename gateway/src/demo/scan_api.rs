//! The demo's upstream: a small scan API that finds card numbers and social security numbers in texts.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use axum::{
    Json, Router,
    body::Bytes,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::detect;
use crate::error::ScanRefusal;

/// Texts of a request.
const MAX_ITEMS: usize = 50_000;

/// Serves on a free port of loopback.
pub(super) async fn start() -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen for the scan API")?;
    let addr = listener.local_addr().context("read the scan API's address")?;
    let router = Router::new()
        .route("/v3/scan", post(scan))
        .route("/v3/health", get(async || Json(json!({ "status": "ok" }))))
        .fallback(async || refused(ScanRefusal::NoEndpoint));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "serve the scan API");
        }
    });
    Ok(addr)
}

/// `POST /v3/scan` `{"payload": "text"}` or `{"payload": ["text", ...]}`.
async fn scan(body: Bytes) -> Response {
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return refused(ScanRefusal::NotJson);
    };
    match texts(&body["payload"]) {
        Some(texts) => Json(answer(&texts)).into_response(),
        None => refused(ScanRefusal::NoTexts),
    }
}

fn texts(payload: &Value) -> Option<Vec<&str>> {
    match payload {
        Value::String(text) => Some(vec![text]),
        Value::Array(items) if items.len() <= MAX_ITEMS => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// For each text its findings, and the text with them blacked out.
fn answer(texts: &[&str]) -> Value {
    let mut findings = Vec::new();
    let mut redacted = Vec::new();
    for text in texts {
        let found = detect::findings(text);
        redacted.push(detect::redact(text, &found));
        findings.push(found.iter().map(|finding| view(text, finding)).collect::<Vec<_>>());
    }
    json!({ "findings": findings, "redactedPayload": redacted })
}

fn view(text: &str, finding: &detect::Finding) -> Value {
    let characters = |bytes: usize| text[..bytes].chars().count();
    json!({
        "finding": detect::mask(&text[finding.start..finding.end]),
        "detector": { "name": finding.detector.name() },
        "confidence": "VERY_LIKELY",
        "location": {
            "byteRange": { "start": finding.start, "end": finding.end },
            "codepointRange": { "start": characters(finding.start), "end": characters(finding.end) },
        },
    })
}

fn refused(why: ScanRefusal) -> Response {
    let (status, message) = why.parts();
    (status, Json(json!({ "code": status.as_u16(), "message": message }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_have_their_places_and_never_the_number_itself() {
        let answer = answer(&["é 4111 1111 1111 1111", "nothing"]);
        let finding = &answer["findings"][0][0];
        assert_eq!(finding["detector"]["name"], "CREDIT_CARD_NUMBER");
        assert_eq!(finding["location"]["byteRange"], json!({ "start": 3, "end": 22 }));
        assert_eq!(finding["location"]["codepointRange"], json!({ "start": 2, "end": 21 }));
        assert_eq!(finding["finding"], "**** **** **** 1111");
        assert_eq!(answer["findings"][1], json!([]));
        assert_eq!(answer["redactedPayload"], json!(["é [CREDIT_CARD_NUMBER]", "nothing"]));
    }
}
