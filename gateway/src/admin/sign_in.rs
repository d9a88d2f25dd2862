//! `/sign-in`: people come in by their identity provider and leave with an admin token of their own, which ends by itself.

use std::{net::SocketAddr, num::NonZeroU16, sync::Arc};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    response::{IntoResponse, Redirect, Response},
};
use http::{Extensions, HeaderMap, HeaderValue, header, request::Parts};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use store::model::{AuditNote, Expect, MetaOp, MetaWrite, Name, Role, Secret, SecretKind, Timestamp, Token};

use super::{
    Admin, Shared,
    access::source,
    params::Params,
    problem::{Code, Problem, Result},
    request_id::AdminRequestId,
    tokens,
};
use crate::operator::sign_in::{Begun, Person, SignIn, SignInError, port_of};

/// What the browser keeps between the two visits; with the prefix nobody but this host can have set it (RFC 6265bis §4.1.3).
const COOKIE: &str = "tollgate_sign_in";
const SECURE_PREFIX: &str = "__Host-";
/// For so long.
const COOKIE_SECONDS: u32 = 600;
/// Sign-ins that a person has at once; one more ends the oldest.
const MAX_OF_A_PERSON: usize = 5;
/// Sign-ins of all people at once; one more is refused.
const MAX_OF_ALL: usize = 10_000;
/// Sign-ins that are over, which one that begins takes away.
const MAX_TAKEN_AWAY: usize = 100;

impl From<SignInError> for Problem {
    fn from(error: SignInError) -> Self {
        let code = match &error {
            SignInError::Provider { .. } => return Self::busy(error.to_string()),
            SignInError::Stranger | SignInError::Unproven(_) => Code::SignInFailed,
        };
        Self::new(code, error.to_string())
    }
}

/// `GET /sign-in`: to the provider's page. `cli_port` is where a command line waits for what the browser brings back.
pub(crate) async fn begin(State(admin): Shared, request: Request) -> Result<Response> {
    let (mut parts, _) = request.into_parts();
    let mut params = Params::from_request_parts(&mut parts, &()).await?;
    let port = params.parsed::<NonZeroU16>("cli_port", "a port, 1 to 65535").map(NonZeroU16::get);
    params.finish()?;
    let Begun { url, kept } = ask(&admin, &parts.extensions, move |sign_in| sign_in.begin(port)).await?;
    let mut response = Redirect::to(&url).into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie(&admin, &kept, COOKIE_SECONDS)?);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `GET /sign-in/callback`: back from it.
pub(crate) async fn finish(State(admin): Shared, request: Request) -> Result<Response> {
    let (mut parts, _) = request.into_parts();
    let mut params = Params::from_request_parts(&mut parts, &()).await?;
    let (code, state, error) = (params.text("code"), params.text("state"), params.text("error"));
    let cookie_kept = kept(&parts.headers, &cookie_name(&admin));
    if let (None, Some(state)) = (&cookie_kept, &state)
        && let Some(port) = port_of(state)
    {
        return on_to_command_line(&admin, port, code.as_deref(), error.as_deref(), state);
    }
    // Providers add parameters of their own.
    if let Some(error) = error {
        return Err(Problem::new(Code::SignInFailed, format!("the identity provider says {error:?}")));
    }
    let (Some(code), Some(state)) = (code, state) else {
        return Err(Problem::new(Code::SignInFailed, "there is no code in this answer of the identity provider"));
    };
    let kept = cookie_kept.ok_or(SignInError::Stranger)?;
    let person = ask(&admin, &parts.extensions, move |sign_in| sign_in.finish(&code, &state, &kept)).await?;
    let (token, secret) = let_in(&admin, &person, &parts).await?;
    let wants_json =
        parts.headers.get(header::ACCEPT).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let mut response = if wants_json {
        let mut view = tokens::audited(token);
        view["secret"] = json!(secret.expose());
        axum::Json(view).into_response()
    } else {
        page(&person, &token, &secret)
    };
    response.headers_mut().insert(header::SET_COOKIE, cookie(&admin, "", 0)?);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Sends a browser to the command line that has begun the sign-in, on the browser's own machine: never anywhere else. What it
/// brings there is of use to that command line alone, which has the verifier.
fn on_to_command_line(
    admin: &Admin,
    port: u16,
    code: Option<&str>,
    error: Option<&str>,
    state: &str,
) -> Result<Response> {
    if admin.operator.sign_in().is_none() {
        return Err(nowhere());
    }
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let of =
        |name: &str, value: Option<&str>| value.map_or(String::new(), |value| format!("{name}={}&", encoded(value)));
    let query = format!("{}{}state={}", of("code", code), of("error", error), encoded(state));
    let mut response = Redirect::to(&format!("http://127.0.0.1:{port}/?{query}")).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

async fn ask<T: Send + 'static>(
    admin: &Arc<Admin>,
    of: &Extensions,
    ask: impl FnOnce(&SignIn) -> std::result::Result<T, SignInError> + Send + 'static,
) -> Result<T> {
    let admin = admin.clone();
    let sign_in = admin.operator.sign_in().ok_or_else(nowhere)?;
    if let Some(Err(after)) = of.get::<ConnectInfo<SocketAddr>>().map(|from| sign_in.count_visit(from.0.ip())) {
        let detail = "this address has visited the sign-in too often: oidc_visits_per_minute says how often it may";
        return Err(Problem::new(Code::TooManySignIns, detail).after(after));
    }
    // A few at once: each may wait for the provider, for longer than its client does.
    let Ok(turn) = admin.signing_in.clone().try_acquire_owned() else {
        return Err(Problem::busy("many people are signing in at once"));
    };
    let asked = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        Ok::<_, Problem>(ask(admin.operator.sign_in().ok_or_else(nowhere)?)?)
    });
    asked.await.map_err(|_| Problem::new(Code::Internal, "the sign-in could not be made"))?
}

fn nowhere() -> Problem {
    Problem::not_found("page", "/sign-in")
}

/// Makes the person's token, in their own name.
async fn let_in(admin: &Admin, person: &Person, parts: &Parts) -> Result<(Token, Secret)> {
    let request_id = parts.extensions.get::<AdminRequestId>().map(ToString::to_string).unwrap_or_default();
    let from = source(&parts.extensions);
    let now = Timestamp::now();
    let actor = format!("oidc:{}", person.subject);
    let Some(role) = person.role else {
        let note = AuditNote {
            at: now,
            actor,
            role: None,
            source: from,
            request_id,
            action: "GET".into(),
            id: "/sign-in/callback".into(),
            result: "role-too-low".into(),
            count: None,
        };
        admin.store.note(vec![note]).await?;
        let detail = format!("none of {}'s groups has a role here: oidc_roles says which have", person.name);
        return Err(Problem::new(Code::RoleTooLow, detail));
    };
    let secret = Secret::generate(SecretKind::Admin);
    let session = admin.operator.sign_in().map_or(0, |sign_in| sign_in.session().as_secs());
    let token = Token {
        id: tokens::new_id(),
        name: person.name.chars().filter(|c| !c.is_control()).take(200).collect::<String>().into(),
        hash: secret.hash(),
        role,
        created_at: now,
        expires_at: Some(now.plus_seconds(i64::try_from(session).unwrap_or(i64::MAX / 2_000_000))),
        accounts: person.accounts.clone(),
        subject: Some(person.subject.as_str().into()),
        ..Token::default()
    };
    let ended = ended(admin.store.tokens()?, &person.subject, now)?;
    let mut ops: Vec<_> = ended.into_iter().map(|id| MetaOp::DeleteToken { id, expect: Expect::Any }).collect();
    ops.push(MetaOp::PutToken { token: token.clone(), expect: Expect::Absent });
    let write = MetaWrite { at: now, actor, role: Some(role), source: from, request_id, ops, ..MetaWrite::default() };
    let written = admin.store.write(write).await?;
    Ok((Token { revision: written.revision, ..token }, secret))
}

/// The sign-ins that end when a person begins one: those that are over, and the person's oldest beyond their number.
fn ended(tokens: Vec<Token>, subject: &str, now: Timestamp) -> Result<Vec<Name>> {
    let signed_in = tokens.into_iter().filter(|token| token.subject.is_some());
    let (over, open): (Vec<_>, Vec<_>) = signed_in.partition(|token| token.expires_at.is_some_and(|at| at <= now));
    let others = open.len();
    let mut own: Vec<_> = open.into_iter().filter(|token| token.subject.as_deref() == Some(subject)).collect();
    if others - own.len() >= MAX_OF_ALL {
        let detail =
            format!("{MAX_OF_ALL} people are signed in: some must sign out (tollgate token delete), or time end it");
        return Err(Problem::new(Code::TooManySignIns, detail));
    }
    own.sort_by_key(|token| token.created_at);
    let beyond = (own.len() + 1).saturating_sub(MAX_OF_A_PERSON);
    Ok(over.into_iter().take(MAX_TAKEN_AWAY).chain(own.into_iter().take(beyond)).map(|token| token.id).collect())
}

fn is_secure(admin: &Admin) -> bool {
    admin.operator.sign_in().is_some_and(SignIn::is_secure)
}

fn cookie_name(admin: &Admin) -> String {
    format!("{}{COOKIE}", if is_secure(admin) { SECURE_PREFIX } else { "" })
}

fn cookie(admin: &Admin, kept: &str, seconds: u32) -> Result<HeaderValue> {
    let (name, secure) = (cookie_name(admin), if is_secure(admin) { "; Secure" } else { "" });
    let text = format!("{name}={kept}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).map_err(|_| Problem::new(Code::Internal, "the cookie cannot be written"))
}

fn kept(headers: &HeaderMap, cookie: &str) -> Option<String> {
    let texts = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == cookie).map(|(_, value)| value.to_owned())
}

/// The one time that the token is shown.
fn page(person: &Person, token: &Token, secret: &Secret) -> Response {
    let role = match token.role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    };
    let until = token.expires_at.map(|at| at.to_string()).unwrap_or_default();
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tollgate</title>\
         <body style=\"font-family:sans-serif;max-width:40em;margin:4em auto\"><h1>Signed in</h1>\
         <p>{} is <b>{role}</b> until {until}. This token is shown this once:</p><pre>{}</pre>\
         <p>Put it into a file and name the file with <code>--admin-token-file</code>, or into <code>TOLLGATE_ADMIN_TOKEN</code>.</p>",
        escaped(&person.name),
        escaped(secret.expose()),
    );
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, body).into_response()
}

fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\'' => "&#39;".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others_and_names_are_escaped() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; tollgate_sign_in=xyz; c=d"));
        assert_eq!(kept(&headers, COOKIE).as_deref(), Some("xyz"));
        assert_eq!(kept(&HeaderMap::new(), COOKIE), None);
        assert_eq!(escaped("<b>\"A&B\"</b>"), "&lt;b&gt;&quot;A&amp;B&quot;&lt;/b&gt;");
    }

    #[test]
    fn sign_ins_that_are_over_and_a_persons_oldest_end_when_one_begins() {
        let now = Timestamp::from_unix_seconds(1_000_000_000);
        let token = |id: &str, subject: Option<&str>, made: i64, ends: i64| Token {
            id: id.into(),
            created_at: now.plus_seconds(made),
            expires_at: Some(now.plus_seconds(ends)),
            subject: subject.map(Name::from),
            ..Token::default()
        };
        let mut tokens = vec![
            token("of-nobody", None, -9, -1),
            token("over", Some("bob"), -9, 0),
            token("of-bob", Some("bob"), -100, 50),
        ];
        tokens.extend((0..4).map(|i| token(&format!("own-{i}"), Some("alice"), i - 20, 50)));
        assert_eq!(ended(tokens.clone(), "alice", now).expect("few").join(" "), "over");
        tokens.insert(0, token("own-4", Some("alice"), -16, 50));
        assert_eq!(ended(tokens.clone(), "alice", now).expect("few").join(" "), "over own-0");
        tokens.extend((0..MAX_OF_ALL).map(|i| token(&format!("n-{i}"), Some("others"), 0, 50)));
        let refused = ended(tokens, "alice", now).expect_err("too many");
        assert_eq!(refused.code(), Code::TooManySignIns);
    }
}
