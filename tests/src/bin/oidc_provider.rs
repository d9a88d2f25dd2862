//! A small OpenID Connect provider: discovery, keys, authorization code with PKCE, signed ID tokens; for tests.
//!
//! Everybody who is named by `login_hint` is let in at once. People whose names begin with `wrong-` get ID tokens that must not
//! be believed. It prints its issuer on the first line, and answers until its stdin ends.

use std::{
    collections::HashMap,
    io::Read,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Form, Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use clap::Parser;
use openidconnect::{
    PrivateSigningKey,
    core::{CoreEdDsaPrivateSigningKey, CoreJwsSigningAlgorithm},
    url,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A small OpenID Connect provider.
#[derive(Parser)]
struct Args {
    /// The one client.
    #[arg(long, default_value = "tollgate")]
    client_id: String,
    /// A file with its secret.
    #[arg(long)]
    client_secret_file: std::path::PathBuf,
    /// Where people may be sent back to.
    #[arg(long)]
    redirect_url: String,
    /// A person and their groups: `alice=platform,dev`.
    #[arg(long)]
    user: Vec<String>,
}

struct Provider {
    args: Args,
    secret: String,
    issuer: String,
    key: CoreEdDsaPrivateSigningKey,
    other_key: CoreEdDsaPrivateSigningKey,
    users: HashMap<String, Vec<String>>,
    /// By code.
    granted: Mutex<HashMap<String, Granted>>,
}

struct Granted {
    user: String,
    nonce: String,
    challenge: String,
}

type Shared = State<Arc<Provider>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let issuer = format!("http://{}", listener.local_addr()?);
    let users = args.user.iter().filter_map(|user| {
        let (name, groups) = user.split_once('=')?;
        Some((name.to_owned(), groups.split(',').map(str::to_owned).collect()))
    });
    let provider = Provider {
        secret: std::fs::read_to_string(&args.client_secret_file)?.trim().to_owned(),
        issuer: issuer.clone(),
        key: key("1")?,
        other_key: key("1")?,
        users: users.collect(),
        granted: Mutex::default(),
        args,
    };
    println!("{issuer}");
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/jwks", get(jwks))
        .route("/authorize", get(authorize))
        .route("/token", post(token))
        .with_state(Arc::new(provider));
    tokio::spawn(async move { axum::serve(listener, router).await });
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

/// A fresh Ed25519 key, in the form that RFC 8410 gives it.
fn key(id: &str) -> anyhow::Result<CoreEdDsaPrivateSigningKey> {
    let mut der = vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    der.extend(seed);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
    CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, Some(openidconnect::JsonWebKeyId::new(id.to_owned())))
        .map_err(|error| anyhow::anyhow!("a key: {error}"))
}

async fn discovery(State(provider): Shared) -> Json<Value> {
    let at = |path: &str| format!("{}{path}", provider.issuer);
    Json(json!({
        "issuer": provider.issuer,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "jwks_uri": at("/jwks"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "scopes_supported": ["openid", "profile", "groups"],
    }))
}

async fn jwks(State(provider): Shared) -> Json<Value> {
    Json(json!({ "keys": [provider.key.as_verification_key()] }))
}

async fn authorize(State(provider): Shared, Query(asked): Query<HashMap<String, String>>) -> Response {
    let get = |name: &str| asked.get(name).cloned().unwrap_or_default();
    let right = get("client_id") == provider.args.client_id
        && get("redirect_uri") == provider.args.redirect_url
        && get("response_type") == "code"
        && get("code_challenge_method") == "S256"
        && get("scope").split(' ').any(|scope| scope == "openid");
    if !right {
        return (StatusCode::BAD_REQUEST, "not a request of the client").into_response();
    }
    let (user, state) = (get("login_hint"), get("state"));
    if !provider.users.contains_key(&user) {
        return Redirect::to(&format!("{}?error=access_denied&state={state}", provider.args.redirect_url))
            .into_response();
    }
    let mut code = [0; 16];
    getrandom::fill(&mut code).expect("the system has randomness");
    let code = URL_SAFE_NO_PAD.encode(code);
    let granted = Granted { user, nonce: get("nonce"), challenge: get("code_challenge") };
    provider.granted.lock().expect("no holder panics").insert(code.clone(), granted);
    Redirect::to(&format!("{}?code={code}&state={state}", provider.args.redirect_url)).into_response()
}

async fn token(State(provider): Shared, headers: HeaderMap, Form(form): Form<HashMap<String, String>>) -> Response {
    let refuse = |code: &str| (StatusCode::BAD_REQUEST, Json(json!({ "error": code }))).into_response();
    // Both halves as forms write them (RFC 6749 §2.3.1).
    let half = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let expected = STANDARD.encode(format!("{}:{}", half(&provider.args.client_id), half(&provider.secret)));
    let expected = format!("Basic {expected}");
    if headers.get("authorization").is_none_or(|value| value.as_bytes() != expected.as_bytes()) {
        return refuse("invalid_client");
    }
    let get = |name: &str| form.get(name).cloned().unwrap_or_default();
    // A code works once.
    let granted = provider.granted.lock().expect("no holder panics").remove(&get("code"));
    let verifier = URL_SAFE_NO_PAD.encode(Sha256::digest(get("code_verifier")));
    let Some(granted) = granted.filter(|granted| granted.challenge == verifier) else { return refuse("invalid_grant") };
    if get("redirect_uri") != provider.args.redirect_url || get("grant_type") != "authorization_code" {
        return refuse("invalid_grant");
    }
    let id_token = id_token(&provider, &granted);
    Json(json!({ "access_token": "none", "token_type": "Bearer", "expires_in": 60, "id_token": id_token }))
        .into_response()
}

/// A signed ID token; a wrong one for people of that kind.
fn id_token(provider: &Provider, granted: &Granted) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let is = |kind: &str| granted.user == format!("wrong-{kind}");
    let claims = json!({
        "iss": if is("issuer") { "http://127.0.0.1:1" } else { provider.issuer.as_str() },
        "aud": if is("audience") { "another" } else { provider.args.client_id.as_str() },
        "sub": format!("id-of-{}", granted.user),
        "iat": now,
        "exp": if is("time") { now - 3_600 } else { now + 300 },
        "nonce": if is("nonce") { "another" } else { granted.nonce.as_str() },
        "preferred_username": granted.user,
        "groups": provider.users.get(&granted.user),
    });
    let algorithm = if is("algorithm") { "none" } else { "EdDSA" };
    let head = json!({ "alg": algorithm, "kid": "1", "typ": "JWT" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&head), part(&claims));
    let key = if is("signature") { &provider.other_key } else { &provider.key };
    let signature = match is("algorithm") {
        true => Vec::new(),
        false => key.sign(&CoreJwsSigningAlgorithm::EdDsa, signed.as_bytes()).expect("an Ed25519 key signs"),
    };
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
