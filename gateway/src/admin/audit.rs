//! `/v1/audit`: every admin write, done or refused, newest first; the whole as NDJSON; and whether the chain is whole.

use std::fmt::Write;

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::{Value, json};
use store::{
    Store,
    model::{AuditChain, AuditObject, AuditRecord, Revision, Role, Timestamp, audit_link},
};

use super::{
    Shared,
    access::Visitor,
    accounts, answer, keys,
    params::Params,
    problem::{Code, Problem, Result},
    tokens,
};

/// Lines that are read in one go.
const AT_ONCE: usize = 500;

/// A line of the audit log. An account's name and metadata are personal data and not in it.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    revision: Revision,
    line: u32,
    at: Timestamp,
    actor: String,
    role: Option<Role>,
    source: Option<String>,
    request_id: Option<String>,
    action: String,
    kind: String,
    id: String,
    result: String,
    /// How many requests it stands for.
    count: u32,
    before: Option<Value>,
    after: Option<Value>,
    /// Pointers to what differs; of an account's name and metadata nothing else is told.
    changed: Vec<String>,
    /// SHA-256 of the line before this one.
    previous: Option<String>,
}

impl From<AuditRecord> for View {
    fn from(record: AuditRecord) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let shown = |object: Option<AuditObject>| object.map(show);
        let (before, after) = (shown(record.object_before()), shown(record.object_after()));
        let mut changed = differing(before.as_ref(), after.as_ref());
        changed.extend(record.changed.into_iter().flatten());
        Self {
            before,
            after,
            changed,
            count: record.count.unwrap_or(1),
            revision: record.revision,
            line: record.line,
            at: record.at,
            actor: record.actor,
            role: record.role,
            source: some(record.source),
            request_id: some(record.request_id),
            action: record.action,
            kind: record.kind,
            id: record.id,
            result: some(record.result).unwrap_or_else(|| "done".into()),
            previous: some(hex(&record.previous)),
        }
    }
}

/// An object as its resource shows it, without what the audit does not keep.
fn show(object: AuditObject) -> Value {
    match object {
        AuditObject::Account(account) => accounts::audited(*account),
        AuditObject::Key(key) => keys::audited(*key),
        AuditObject::Tier(tier) => json!(tier),
        AuditObject::Route(route) => json!(route),
        AuditObject::Upstream(upstream) => json!(upstream),
        AuditObject::Token(token) => tokens::audited(*token),
    }
}

/// Pointers to the fields that tell two objects apart; none when there is only one.
fn differing(before: Option<&Value>, after: Option<&Value>) -> Vec<String> {
    // Which changes with every write, and what stands for the name and the metadata.
    const BESIDE: [&str; 2] = ["revision", "profile"];
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (before, after) else { return Vec::new() };
    let names = after.keys().chain(before.keys().filter(|name| !after.contains_key(*name)));
    let names = names.filter(|name| !BESIDE.contains(&name.as_str()) && before.get(*name) != after.get(*name));
    names.map(|name| format!("/{name}")).collect()
}

/// Why a chain that is not broken is not whole: its beginning is missing, and not because its time was over.
fn cut(chain: &AuditChain, now: Timestamp) -> Option<String> {
    let (revision, line, at) = chain.first.filter(|_| !chain.anchor.is_empty())?;
    (!AuditRecord::is_over(at, now)).then(|| {
        format!(
            "the first line is {revision}-{line} of {at}, which names a line before it: lines are kept {} days, and that one is missing",
            AuditRecord::KEPT_DAYS
        )
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a text cannot fail");
        hex
    })
}

/// Which lines.
#[derive(Debug, Default)]
struct Filter {
    actor: Option<String>,
    kind: Option<String>,
    id: Option<String>,
    result: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Filter {
    fn read(params: &mut Params) -> Self {
        Self {
            actor: params.short("actor"),
            kind: params.short("kind"),
            id: params.short("id"),
            result: params.short("result"),
            since: params.time("since"),
            until: params.time("until"),
        }
    }

    fn takes(&self, line: &AuditRecord) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let result = if line.result.is_empty() { "done" } else { &line.result };
        is(&self.actor, &line.actor)
            && is(&self.kind, &line.kind)
            && is(&self.id, &line.id)
            && is(&self.result, result)
            && self.since.is_none_or(|since| line.at >= since)
            && self.until.is_none_or(|until| line.at < until)
    }
}

/// `GET /v1/audit`
pub(crate) async fn list(visitor: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    visitor.caller().require_everywhere()?;
    let page = params.page();
    let mut before = page.after.as_ref().and_then(|after| place(after));
    if page.after.is_some() && before.is_none() {
        params.refuse("cursor", "is not valid: use a next_cursor as it was given");
    }
    let filter = Filter::read(&mut params);
    params.finish()?;
    // A filter that lets few through walks over all.
    let found = tokio::task::spawn_blocking(move || {
        let mut found: Vec<AuditRecord> = Vec::new();
        while found.len() <= page.limit {
            let lines = admin.store.audit(before, AT_ONCE.max(page.limit + 1))?;
            let Some(last) = lines.last() else { break };
            before = Some((last.revision, last.line));
            found.extend(lines.into_iter().filter(|line| filter.takes(line)));
        }
        let next = page.cut(&mut found, |line| format!("{}-{}", line.revision, line.line));
        Ok::<_, Problem>((found, next))
    });
    let (found, next) = found.await.map_err(|_| Problem::new(Code::Internal, "the list could not be made"))??;
    let views: Vec<View> = found.into_iter().map(View::from).collect();
    Ok(answer::list(views, next))
}

/// `revision-line`
fn place(text: &str) -> Option<(Revision, u32)> {
    let (revision, line) = text.split_once('-')?;
    Some((revision.parse().ok()?, line.parse().ok()?))
}

/// `GET /v1/audit/export`: every line, oldest first, as NDJSON. `entry` is the line as it is stored, base64; its SHA-256 is
/// `sha256` and the next line's `previous`.
pub(crate) async fn export(visitor: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    visitor.caller().require_everywhere()?;
    let after = params.text("after");
    let place = after.as_deref().and_then(place);
    if after.is_some() && place.is_none() {
        params.refuse("after", "does not fit; expected the last line that is known, as revision-line");
    }
    params.finish()?;
    let store = admin.store.clone();
    let lines = futures_util::stream::try_unfold(place, move |after| {
        let store = store.clone();
        async move {
            let read = tokio::task::spawn_blocking(move || chunk(&store, after)).await;
            read.map_err(std::io::Error::other)?.map_err(std::io::Error::other)
        }
    });
    let mut response = Body::from_stream(lines).into_response();
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

type Chunk = Option<(Bytes, Option<(Revision, u32)>)>;

fn chunk(store: &Store, after: Option<(Revision, u32)>) -> std::result::Result<Chunk, String> {
    let lines = store.audit_lines(after, AT_ONCE).map_err(|error| error.to_string())?;
    let (mut text, mut last) = (String::new(), after);
    for stored in &lines {
        // One line follows nothing: it is read alone.
        let record = AuditChain::default().follow(stored).map_err(|error| error.to_string())?;
        last = Some((record.revision, record.line));
        let mut view = json!(View::from(record));
        view["entry"] = STANDARD.encode(stored).into();
        view["sha256"] = hex(&audit_link(stored)).into();
        text.push_str(&view.to_string());
        text.push('\n');
    }
    Ok((!lines.is_empty()).then(|| (Bytes::from(text), last)))
}

/// `GET /v1/audit/verify`: follows the chain over this node's whole audit.
pub(crate) async fn verify(visitor: Visitor, State(admin): Shared, params: Params) -> Result<Response> {
    visitor.caller().require_everywhere()?;
    params.finish()?;
    let followed = tokio::task::spawn_blocking(move || {
        let (mut chain, mut after) = (AuditChain::default(), None);
        loop {
            let lines = admin.store.audit_lines(after, AT_ONCE)?;
            for line in &lines {
                match chain.follow(line) {
                    Ok(record) => after = Some((record.revision, record.line)),
                    Err(error) => return Ok((chain, Some(error.to_string()))),
                }
            }
            if lines.is_empty() {
                return Ok::<_, Problem>((chain, None));
            }
        }
    });
    let (chain, broken) = followed.await.map_err(|_| Problem::new(Code::Internal, "the audit could not be read"))??;
    let broken = broken.or_else(|| cut(&chain, Timestamp::now()));
    Ok(answer::plain(&json!({
        "whole": broken.is_none(),
        "lines": chain.lines,
        "revision": chain.revision,
        "head": Some(hex(&chain.head)).filter(|head| !head.is_empty()),
        "broken": broken,
        "starts_at": chain.first.map(|(revision, line, _)| format!("{revision}-{line}")),
        "anchor": Some(hex(&chain.anchor)).filter(|anchor| !anchor.is_empty()),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_who_where_and_why() {
        let record = AuditRecord {
            revision: 7,
            line: 2,
            actor: "tok_1".into(),
            role: Some(Role::Viewer),
            source: "10.0.0.1".into(),
            action: "PUT".into(),
            kind: "request".into(),
            id: "/v1/tiers/free".into(),
            result: "role-too-low".into(),
            ..AuditRecord::default()
        };
        let view = json!(View::from(record.clone()));
        assert_eq!((&view["role"], &view["source"]), (&json!("viewer"), &json!("10.0.0.1")));
        assert_eq!(
            (&view["result"], &view["before"], &view["previous"]),
            (&json!("role-too-low"), &Value::Null, &Value::Null)
        );
        let done = AuditRecord { result: String::new(), ..record.clone() };
        assert_eq!(json!(View::from(done.clone()))["result"], "done");
        let filter = Filter { result: Some("done".into()), actor: Some("tok_1".into()), ..Filter::default() };
        assert!(filter.takes(&done) && !filter.takes(&record));
    }

    #[test]
    fn a_line_names_the_fields_that_were_changed_and_no_value_of_an_account() {
        let account = |tier: &str, profile: &str, revision: u64| json!({ "id": "a", "tier": tier, "profile": profile, "revision": revision });
        let (before, after) = (account("free", "s1", 3), account("gold", "s2", 4));
        assert_eq!(differing(Some(&before), Some(&after)), ["/tier"]);
        assert_eq!(differing(None, Some(&after)), Vec::<String>::new());
        let changed = Some(vec!["/name".to_owned(), "/metadata/crm".to_owned()]);
        let view = View::from(AuditRecord { kind: "account".into(), changed, ..AuditRecord::default() });
        assert_eq!((view.changed, view.count), (vec!["/name".to_owned(), "/metadata/crm".to_owned()], 1));
    }

    #[test]
    fn a_beginning_that_is_missing_is_told_unless_its_time_was_over() {
        let at = Timestamp(1_700_000_000_000_000);
        let chain = AuditChain { first: Some((7, 0, at)), anchor: vec![1; 32], ..AuditChain::default() };
        assert!(cut(&chain, at).is_some_and(|told| told.contains("7-0")));
        assert_eq!(cut(&chain, at.plus_seconds(AuditRecord::KEPT_DAYS * 86_400)), None);
        assert_eq!(cut(&AuditChain { anchor: Vec::new(), ..chain }, at), None);
    }

    #[test]
    fn places_read_back() {
        assert_eq!(place("17-3"), Some((17, 3)));
        assert_eq!((place("17"), place("a-b"), place("")), (None, None, None));
    }
}
