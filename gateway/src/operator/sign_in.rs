//! Sign-in of people by an OpenID Connect provider (authorization code flow with PKCE): who somebody is and which groups they
//! are in is the provider's word, which role that gives, and over which accounts, is this node's configuration.
//!
//! What must be remembered between the two visits (state, nonce, verifier) is in a cookie of the browser, so any node can
//! finish what another began. The provider is asked at each sign-in; nothing of it is kept.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use openidconnect::{
    AdditionalClaims, AuthenticationFlow, AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken,
    EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IdTokenFields,
    IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, StandardErrorResponse,
    StandardTokenResponse, TokenResponse,
    core::{
        CoreAuthDisplay, CoreAuthPrompt, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
        CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreResponseType,
        CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
    },
};
use serde::{Deserialize, Serialize};
use store::model::{Name, Role};

use super::throttle::Throttle;
use crate::tls::{self, ClientFiles};

/// How long the provider may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Most bytes of one of its answers.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Groups of one person that are looked at.
const MAX_GROUPS: usize = 10_000;
/// Most bytes of the provider's id of a person.
const MAX_SUBJECT_BYTES: usize = 255;
/// Account selectors of one person, from all of their groups; a token has no more.
const MAX_SELECTORS: usize = 100;

/// What the members of a group may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The group, as the provider names it.
    pub group: String,
    /// Its role.
    pub role: Role,
    /// Accounts that the role is limited to: ids, or beginnings of ids that end in `*`. Empty for all.
    pub accounts: Vec<Name>,
}

/// What a node is told of its provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its URL, as it stands in its tokens.
    pub issuer: String,
    /// This gateway's id there.
    pub client_id: String,
    /// A file with this gateway's secret there; empty for a public client.
    pub client_secret_file: PathBuf,
    /// Where the provider sends people back to: `/sign-in/callback` of the admin listener, as browsers reach it.
    pub redirect_url: String,
    /// Scopes that are asked for besides `openid`.
    pub scopes: Vec<String>,
    /// The claim that holds a person's groups.
    pub groups_claim: String,
    /// What groups may do.
    pub roles: Vec<Grant>,
    /// PEM file of authorities that vouch for the provider; empty for those that browsers know.
    pub ca_file: PathBuf,
    /// How long a sign-in lasts.
    pub session: Duration,
    /// Visits of the sign-in's two pages that an address has a minute.
    pub visits_per_minute: u32,
}

/// A person whom the provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The provider's own id of them.
    pub subject: String,
    /// What people call them.
    pub name: String,
    /// The highest role of their groups; none when no group has one.
    pub role: Option<Role>,
    /// Accounts that it is limited to, those of all groups that give this role together; empty for all.
    pub accounts: Vec<Name>,
}

/// A sign-in that has begun: where the browser goes, and what it keeps.
#[derive(Debug)]
pub struct Begun {
    /// The provider's page.
    pub url: String,
    /// For the cookie.
    pub kept: String,
}

/// Why a sign-in came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The provider cannot be asked.
    #[error("the identity provider {issuer} cannot be asked: {reason}")]
    Provider {
        /// Which one.
        issuer: String,
        /// Why.
        reason: String,
    },
    /// The browser did not bring what it was given, or brought another's.
    #[error("this sign-in was not begun in this browser, or was begun too long ago: begin again at /sign-in")]
    Stranger,
    /// The provider's word does not hold.
    #[error("the identity provider's answer does not hold: {0}")]
    Unproven(String),
}

/// What the browser keeps for a while.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    state: String,
    nonce: String,
    verifier: String,
}

/// Claims that the protocol does not name.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Claims {
    #[serde(flatten)]
    all: serde_json::Map<String, serde_json::Value>,
}

impl AdditionalClaims for Claims {}

type Fields = IdTokenFields<
    Claims,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
type ClientOf = Client<
    Claims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// Asks one provider.
#[derive(Debug)]
pub struct SignIn {
    provider: Provider,
    secret: Option<ClientSecret>,
    agent: ureq::Agent,
    throttle: Throttle,
}

impl SignIn {
    /// Reads the files that a provider's settings name.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(provider: Provider) -> Result<Self, String> {
        let secret = match &*provider.client_secret_file {
            path if path.as_os_str().is_empty() => None,
            path => Some(ClientSecret::new(read("oidc_client_secret_file", path)?.trim().to_owned())),
        };
        let ca = Some(provider.ca_file.clone()).filter(|path| !path.as_os_str().is_empty());
        // A provider on this host alone may speak plainly, and then no authority is looked for.
        let tls = if provider.issuer.starts_with("https:") {
            tls::for_agents(&ClientFiles { ca, identity: None }).map_err(|error| error.to_string())?
        } else {
            ureq::tls::TlsConfig::builder().build()
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A provider that sends elsewhere could send to what only this host reaches.
            .max_redirects(0)
            .timeout_global(Some(ANSWER_WITHIN))
            .proxy(None)
            .tls_config(tls)
            .build()
            .new_agent();
        let throttle = Throttle::new(provider.visits_per_minute);
        Ok(Self { provider, secret, agent, throttle })
    }

    /// Counts a visit of an address.
    ///
    /// # Errors
    /// It has had as many as it may: after how long it may come again.
    pub fn count_visit(&self, from: IpAddr) -> Result<(), Duration> {
        self.throttle.count(from, Instant::now())
    }

    /// How long a sign-in lasts.
    pub fn session(&self) -> Duration {
        self.provider.session
    }

    /// Whether the browser must keep its cookie to encrypted connections.
    pub fn is_secure(&self) -> bool {
        self.provider.redirect_url.starts_with("https:")
    }

    /// Begins a sign-in; with a port, one of a command line that waits on that port of its own loopback. Asks the provider, and
    /// waits for it: on a thread that may.
    ///
    /// # Errors
    /// The provider cannot be asked.
    pub fn begin(&self, port: Option<u16>) -> Result<Begun, SignInError> {
        let metadata = self.discover()?;
        let client = ClientOf::from_provider_metadata(metadata, self.client_id(), self.secret.clone());
        let client = client.set_redirect_uri(self.redirect_url()?);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let mut request =
            client.authorize_url(flow, move || state_of(port), Nonce::new_random).set_pkce_challenge(challenge);
        for scope in &self.provider.scopes {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        let (url, state, nonce) = request.url();
        let kept =
            Kept { state: state.secret().clone(), nonce: nonce.secret().clone(), verifier: verifier.secret().clone() };
        let kept = serde_json::to_vec(&kept).expect("texts serialise");
        Ok(Begun { url: url.to_string(), kept: URL_SAFE_NO_PAD.encode(kept) })
    }

    /// Finishes a sign-in with what the provider has sent the browser back with. Waits for the provider.
    ///
    /// # Errors
    /// [`SignInError`].
    pub fn finish(&self, code: &str, state: &str, kept: &str) -> Result<Person, SignInError> {
        let kept = URL_SAFE_NO_PAD.decode(kept).ok().and_then(|kept| serde_json::from_slice::<Kept>(&kept).ok());
        let kept = kept.filter(|kept| !kept.state.is_empty() && kept.state == state).ok_or(SignInError::Stranger)?;
        let metadata = self.discover()?;
        let client = ClientOf::from_provider_metadata(metadata, self.client_id(), self.secret.clone());
        let client = client.set_redirect_uri(self.redirect_url()?);
        let exchange = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .map_err(|error| self.cannot(&error))?
            .set_pkce_verifier(PkceCodeVerifier::new(kept.verifier));
        let answer = exchange.request(&|request| self.ask(request)).map_err(|error| match error {
            openidconnect::RequestTokenError::ServerResponse(refused) => SignInError::Unproven(refused.to_string()),
            error => self.cannot(&error),
        })?;
        let token = answer.id_token().ok_or_else(|| SignInError::Unproven("it has no ID token".into()))?;
        let nonce = Nonce::new(kept.nonce);
        let claims = token
            .claims(&client.id_token_verifier(), &nonce)
            .map_err(|error| SignInError::Unproven(error.to_string()))?;
        let subject = claims.subject().to_string();
        // OpenID Connect Core 1.0 §2: at most 255 ASCII characters.
        if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES {
            return Err(SignInError::Unproven(format!("its subject is not 1 to {MAX_SUBJECT_BYTES} bytes long")));
        }
        let name = claims
            .preferred_username()
            .map(|name| name.to_string())
            .or_else(|| claims.email().map(|email| email.to_string()))
            .unwrap_or_else(|| subject.clone());
        let groups = claims.additional_claims().all.get(&self.provider.groups_claim);
        let (role, accounts) = self.role_of(&groups_of(groups));
        Ok(Person { role, accounts, subject, name })
    }

    /// The highest role that groups give, and the accounts of all that give it: all accounts where one is not limited.
    fn role_of(&self, groups: &[&str]) -> (Option<Role>, Vec<Name>) {
        let grants = || self.provider.roles.iter().filter(|grant| groups.contains(&grant.group.as_str()));
        let Some(role) = grants().map(|grant| grant.role).max() else { return (None, Vec::new()) };
        let grants = || grants().filter(|grant| grant.role == role);
        if grants().any(|grant| grant.accounts.is_empty()) {
            return (Some(role), Vec::new());
        }
        let mut accounts: Vec<_> = grants().flat_map(|grant| grant.accounts.iter().cloned()).collect();
        accounts.sort();
        accounts.dedup();
        accounts.truncate(MAX_SELECTORS);
        (Some(role), accounts)
    }

    fn client_id(&self) -> ClientId {
        ClientId::new(self.provider.client_id.clone())
    }

    fn redirect_url(&self) -> Result<RedirectUrl, SignInError> {
        RedirectUrl::new(self.provider.redirect_url.clone()).map_err(|error| self.cannot(&error))
    }

    fn discover(&self) -> Result<CoreProviderMetadata, SignInError> {
        let issuer = IssuerUrl::new(self.provider.issuer.clone()).map_err(|error| self.cannot(&error))?;
        CoreProviderMetadata::discover(&issuer, &|request| self.ask(request)).map_err(|error| self.cannot(&error))
    }

    fn ask(&self, request: HttpRequest) -> Result<HttpResponse, Failed> {
        let answer = self.agent.run(request).map_err(|error| Failed(error.to_string()))?;
        let (parts, mut body) = answer.into_parts();
        let body =
            body.with_config().limit(MAX_ANSWER_BYTES).read_to_vec().map_err(|error| Failed(error.to_string()))?;
        Ok(http::Response::from_parts(parts, body))
    }

    fn cannot(&self, error: &dyn std::error::Error) -> SignInError {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        SignInError::Provider { issuer: self.provider.issuer.clone(), reason }
    }
}

/// A state nobody can guess. A command line's has its port behind a dot, which no other has.
fn state_of(port: Option<u16>) -> CsrfToken {
    let random = CsrfToken::new_random();
    match port {
        Some(port) => CsrfToken::new(format!("{}.{port}", random.secret())),
        None => random,
    }
}

/// The port that the command line which has begun a sign-in waits on.
pub fn port_of(state: &str) -> Option<u16> {
    state.split_once('.')?.1.parse().ok().filter(|port| *port > 0)
}

/// The provider did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failed(String);

fn read(key: &str, path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("read {key} {}: {error}", path.display()))
}

/// A claim of groups: texts, or one.
fn groups_of(claim: Option<&serde_json::Value>) -> Vec<&str> {
    match claim {
        Some(serde_json::Value::String(group)) => vec![group],
        Some(serde_json::Value::Array(groups)) => {
            groups.iter().take(MAX_GROUPS).filter_map(serde_json::Value::as_str).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_lines_port_is_in_its_state_and_in_no_other() {
        assert_eq!(port_of(state_of(Some(9_999)).secret()), Some(9_999));
        assert_ne!(state_of(Some(9_999)).secret(), state_of(Some(9_999)).secret());
        assert_eq!(port_of(state_of(None).secret()), None);
        for other in ["", "x.", "x.0", "x.65536", "x.80@evil", "x.1.2", "x.-1"] {
            assert_eq!(port_of(other), None, "{other}");
        }
    }

    #[test]
    fn groups_are_texts_and_the_highest_role_counts() {
        let of = |group: &str, role, accounts: &[&str]| Grant {
            group: group.into(),
            role,
            accounts: accounts.iter().map(|id| Name::from(*id)).collect(),
        };
        let roles = vec![
            of("platform", Role::Admin, &[]),
            of("cn=support", Role::Operator, &[]),
            of("eu", Role::Operator, &["eu-*", "acme"]),
            of("us", Role::Operator, &["us-*", "acme"]),
            of("all", Role::Viewer, &[]),
        ];
        let provider = Provider {
            issuer: "https://id.example.com".into(),
            client_id: "tollgate".into(),
            client_secret_file: PathBuf::new(),
            redirect_url: "https://tollgate.example.com/sign-in/callback".into(),
            scopes: Vec::new(),
            groups_claim: "groups".into(),
            roles,
            ca_file: PathBuf::new(),
            session: Duration::from_secs(60),
            visits_per_minute: 60,
        };
        let sign_in = SignIn::new(provider).expect("no files");
        let role = |claim: serde_json::Value| {
            let (role, accounts) = sign_in.role_of(&groups_of(Some(&claim)));
            (role, accounts.join(" "))
        };
        let is = |role, accounts: &str| (role, accounts.to_owned());
        assert_eq!(role(json!(["all", "eu", "platform"])), is(Some(Role::Admin), ""));
        assert_eq!(role(json!("cn=support")), is(Some(Role::Operator), ""));
        assert_eq!(role(json!(["eu", "all"])), is(Some(Role::Operator), "acme eu-*"));
        assert_eq!(role(json!(["us", "eu"])), is(Some(Role::Operator), "acme eu-* us-*"));
        assert_eq!(role(json!(["us", "cn=support"])), is(Some(Role::Operator), ""));
        for nothing in [json!(["others", 5]), json!({ "platform": true }), json!([])] {
            assert_eq!(role(nothing), is(None, ""));
        }
    }
}
