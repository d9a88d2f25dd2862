//! The table of all settings.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use super::entry::{ClientAuth, Entry, List, LogFormat};

/// One setting, for messages and `--help`.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Key in the file; its flag has `-` for `_`.
    pub(super) key: &'static str,
    /// Name in the environment.
    pub(super) variable: &'static str,
    /// What is expected, with an example.
    pub(super) form: String,
    /// The default as text; empty for none.
    pub(super) default: &'static str,
}

macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $(#[arg($($arg:tt)*)])?
        $name:ident, $variable:literal: $type:ty = $default:literal, $unit:literal;
    )+) => {
        /// A node's settings, complete.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings { $(
            $(#[doc = $doc])+
            pub $name: $type,
        )+ }

        /// The settings that one place (the file, the environment, the flags) gives.
        #[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Entries { $(
            $(#[doc = $doc])+
            #[arg(long, value_name = $unit, $($($arg)*)?)]
            pub $name: Option<$type>,
        )+ }

        impl Entries {
            /// These entries, and where they say nothing, the lower ones.
            pub fn over(self, lower: Self) -> Self {
                Self { $( $name: self.$name.or(lower.$name), )+ }
            }

            /// The defaults where nothing is said.
            pub(super) fn with_defaults(self) -> Settings {
                Settings { $(
                    $name: self.$name.unwrap_or_else(|| {
                        read::<$type>($default).expect("a test reads every default")
                    }),
                )+ }
            }

            /// Whether an entry is given.
            pub(super) fn has(&self, key: &str) -> bool {
                match key {
                    $( stringify!($name) => self.$name.is_some(), )+
                    _ => false,
                }
            }

            /// Sets an entry from text; `None` when the key is unknown.
            ///
            /// # Errors
            /// What was expected.
            pub(super) fn set(&mut self, key: &str, text: &str) -> Option<Result<(), String>> {
                match key {
                    $( stringify!($name) => Some(read::<$type>(text).map(|value| self.$name = Some(value))), )+
                    _ => None,
                }
            }
        }

        /// The table.
        pub(super) fn known() -> Vec<Known> {
            vec![ $( Known {
                key: stringify!($name),
                variable: $variable,
                form: form::<$type>($unit, $default),
                default: $default,
            }, )+ ]
        }

        impl Settings {
            /// The settings as the file would have them: key and value, in the table's order.
            pub fn entries(&self) -> Vec<(&'static str, String)> {
                vec![ $( (stringify!($name), self.$name.text()), )+ ]
            }
        }
    };
}

settings! {
    /// Directory for everything the node keeps; required
    data_dir, "TOLLGATE_DATA_DIR": PathBuf = "", "DIR";
    /// Where API clients connect
    data_addr, "TOLLGATE_DATA_ADDR": SocketAddr = "127.0.0.1:8080", "ADDR:PORT";
    /// Where the admin API listens
    admin_addr, "TOLLGATE_ADMIN_ADDR": SocketAddr = "127.0.0.1:8081", "ADDR:PORT";
    /// Where peers connect
    peer_addr, "TOLLGATE_PEER_ADDR": SocketAddr = "127.0.0.1:8082", "ADDR:PORT";
    /// Address that peers are told to connect to; the node's own entry of --join, or peer_addr, when not said
    peer_advertise, "TOLLGATE_PEER_ADVERTISE": String = "", "HOST:PORT";
    /// Name of the node; the host's name when not said
    node_name, "TOLLGATE_NODE_NAME": String = "", "NAME";
    /// Region label of the node
    region, "TOLLGATE_REGION": String = "", "NAME";
    /// Peer addresses of a cluster's nodes, this one's among them; a cluster of one when empty
    join, "TOLLGATE_JOIN": List = "", "HOST:PORT,...";
    /// Voting members that the cluster aims at: 1, 3 or 5; the most that any live node says counts
    voters, "TOLLGATE_VOTERS": u8 = "3", "COUNT";
    /// Ledger groups that a new cluster is made with, 1 to 16, each with its own leader; one that exists keeps its own
    ledger_groups, "TOLLGATE_LEDGER_GROUPS": u8 = "1", "COUNT";
    /// OpenID Connect provider by which people sign in at /sign-in, as its URL stands in its tokens
    oidc_issuer, "TOLLGATE_OIDC_ISSUER": String = "", "URL";
    /// This gateway's id at the provider
    oidc_client_id, "TOLLGATE_OIDC_CLIENT_ID": String = "", "TEXT";
    /// File with this gateway's secret at the provider; a public client without
    oidc_client_secret_file, "TOLLGATE_OIDC_CLIENT_SECRET_FILE": PathBuf = "", "FILE";
    /// Where the provider sends people back to: /sign-in/callback of the admin API, as browsers reach it
    oidc_redirect_url, "TOLLGATE_OIDC_REDIRECT_URL": String = "", "URL";
    /// Scopes to ask the provider for besides openid
    oidc_scopes, "TOLLGATE_OIDC_SCOPES": List = "profile,email", "NAME,...";
    /// Claim of the provider's tokens that holds a person's groups
    oidc_groups_claim, "TOLLGATE_OIDC_GROUPS_CLAIM": String = "groups", "NAME";
    /// Roles of groups, and the accounts they are limited to: platform=admin,support-eu=operator:eu-*|acme; who is in none is not let in
    oidc_roles, "TOLLGATE_OIDC_ROLES": List = "", "GROUP=ROLE[:ACCOUNTS],...";
    /// Authorities that vouch for the provider, in PEM; the system's when not said
    oidc_ca, "TOLLGATE_OIDC_CA": PathBuf = "", "FILE";
    /// How long a sign-in lasts
    oidc_session_minutes, "TOLLGATE_OIDC_SESSION_MINUTES": u64 = "480", "MINUTES";
    /// Visits of the sign-in's pages that an address has a minute
    oidc_visits_per_minute, "TOLLGATE_OIDC_VISITS_PER_MINUTE": u32 = "60", "COUNT";
    /// File with the first admin token (tga_...)
    admin_token_file, "TOLLGATE_ADMIN_TOKEN_FILE": PathBuf = "", "FILE";
    /// Certificate chains of the data listener, PEM: the first for clients that name no host, others by SNI; no TLS when empty
    data_tls_cert, "TOLLGATE_DATA_TLS_CERT": List = "", "FILE,...";
    /// Their private keys, in the same order
    data_tls_key, "TOLLGATE_DATA_TLS_KEY": List = "", "FILE,...";
    /// Authorities of API clients' certificates; they are asked for one when this is set
    data_tls_client_ca, "TOLLGATE_DATA_TLS_CLIENT_CA": PathBuf = "", "FILE";
    /// Whether an API client must show one, where they are asked for: required or optional
    data_tls_client_auth, "TOLLGATE_DATA_TLS_CLIENT_AUTH": ClientAuth = "required", "MODE";
    /// Certificate chains of the admin listener, PEM: the first for clients that name no host, others by SNI; no TLS when empty
    admin_tls_cert, "TOLLGATE_ADMIN_TLS_CERT": List = "", "FILE,...";
    /// Their private keys, in the same order
    admin_tls_key, "TOLLGATE_ADMIN_TLS_KEY": List = "", "FILE,...";
    /// Authorities of admin clients' certificates; they are asked for one when this is set
    admin_tls_client_ca, "TOLLGATE_ADMIN_TLS_CLIENT_CA": PathBuf = "", "FILE";
    /// Whether an admin client must show one, where they are asked for: required or optional (probes have none)
    admin_tls_client_auth, "TOLLGATE_ADMIN_TLS_CLIENT_AUTH": ClientAuth = "required", "MODE";
    /// Certificate chain that this node shows its peers, as server and as client; mutual TLS with peer_tls_key and peer_tls_ca
    peer_tls_cert, "TOLLGATE_PEER_TLS_CERT": PathBuf = "", "FILE";
    /// Its private key
    peer_tls_key, "TOLLGATE_PEER_TLS_KEY": PathBuf = "", "FILE";
    /// Authorities of peers' certificates; better one that issues nothing else
    peer_tls_ca, "TOLLGATE_PEER_TLS_CA": PathBuf = "", "FILE";
    /// Authorities of https:// upstreams; the system's when not said
    upstream_ca, "TOLLGATE_UPSTREAM_CA": PathBuf = "", "FILE";
    /// Certificate chain to show https:// upstreams that ask for one
    upstream_tls_cert, "TOLLGATE_UPSTREAM_TLS_CERT": PathBuf = "", "FILE";
    /// Its private key
    upstream_tls_key, "TOLLGATE_UPSTREAM_TLS_KEY": PathBuf = "", "FILE";
    /// How often the files of certificates are looked at; a change needs no restart (SIGHUP looks at once)
    tls_reload_ms, "TOLLGATE_TLS_RELOAD_MS": u64 = "5000", "MILLISECONDS";
    /// Lets the admin and peer listeners leave loopback without TLS
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    insecure, "TOLLGATE_INSECURE": bool = "false", "BOOL";
    /// How long a row may wait for its quorum; then the answer is 503
    commit_deadline_ms, "TOLLGATE_COMMIT_DEADLINE_MS": u64 = "2000", "MILLISECONDS";
    /// Rows of this node that may wait for their quorum; beyond it, 503
    max_waiting_rows, "TOLLGATE_MAX_WAITING_ROWS": usize = "65536", "COUNT";
    /// Days that request rows are kept when the tier does not say
    log_retention_days, "TOLLGATE_LOG_RETENTION_DAYS": u16 = "30", "DAYS";
    /// Threads of the data plane; one a core for 0
    workers, "TOLLGATE_WORKERS": usize = "0", "COUNT";
    /// Headers that may carry the API key; the first present decides
    key_headers, "TOLLGATE_KEY_HEADERS": List = "x-api-key,authorization", "NAME,...";
    /// Networks of proxies in front whose X-Forwarded-For, -Proto and -Host are believed; nobody's when empty
    trusted_proxies, "TOLLGATE_TRUSTED_PROXIES": List = "", "NETWORK,...";
    /// Compatibility headers to send: x-rate-limit, x-quota
    compat_headers, "TOLLGATE_COMPAT_HEADERS": List = "", "NAME,...";
    /// Client connections at once; one more is told 503 and closed
    max_connections, "TOLLGATE_MAX_CONNECTIONS": usize = "16384", "COUNT";
    /// Of them those that one address may have (IPv6: a /64), trusted proxies left out; no bound for 0
    max_connections_per_address, "TOLLGATE_MAX_CONNECTIONS_PER_ADDRESS": usize = "0", "COUNT";
    /// Largest request body where neither route nor tier says
    max_body_bytes, "TOLLGATE_MAX_BODY_BYTES": u64 = "1073741824", "BYTES";
    /// Largest body of an admin request
    admin_body_bytes, "TOLLGATE_ADMIN_BODY_BYTES": usize = "1048576", "BYTES";
    /// Time for a request's head to arrive, from its first byte
    header_timeout_ms, "TOLLGATE_HEADER_TIMEOUT_MS": u64 = "10000", "MILLISECONDS";
    /// Longest silence in the middle of a request's body; then 408
    body_timeout_ms, "TOLLGATE_BODY_TIMEOUT_MS": u64 = "30000", "MILLISECONDS";
    /// Longest time that a client takes nothing of its answer; then its connection is closed
    write_timeout_ms, "TOLLGATE_WRITE_TIMEOUT_MS": u64 = "60000", "MILLISECONDS";
    /// Longest time between two requests of a client's connection
    keep_alive_ms, "TOLLGATE_KEEP_ALIVE_MS": u64 = "75000", "MILLISECONDS";
    /// Time from the upstream call to the first byte of its answer where the route does not say; then 504
    upstream_timeout_ms, "TOLLGATE_UPSTREAM_TIMEOUT_MS": u64 = "30000", "MILLISECONDS";
    /// Time after SIGTERM that the node goes on to serve, /readyz saying 503 and its leaderships handed over
    drain_delay_seconds, "TOLLGATE_DRAIN_DELAY_SECONDS": u64 = "0", "SECONDS";
    /// Time for requests in flight to finish after that
    drain_seconds, "TOLLGATE_DRAIN_SECONDS": u64 = "30", "SECONDS";
    /// An OpenTelemetry collector that gets traces and metrics by OTLP over HTTP, like http://127.0.0.1:4318; none when empty
    otlp_endpoint, "TOLLGATE_OTLP_ENDPOINT": String = "", "URL";
    /// File with fields for the collector, a `name: value` a line: where it wants a token
    otlp_headers_file, "TOLLGATE_OTLP_HEADERS_FILE": PathBuf = "", "FILE";
    /// Authorities of an https:// collector; the system's when not said
    otlp_ca, "TOLLGATE_OTLP_CA": PathBuf = "", "FILE";
    /// Part of the traces that begin here to be exported, 0 to 1; a client that brings a trace decides for it
    otlp_sample_ratio, "TOLLGATE_OTLP_SAMPLE_RATIO": f64 = "1", "RATIO";
    /// How often the collector gets the metrics; never for 0
    otlp_metrics_seconds, "TOLLGATE_OTLP_METRICS_SECONDS": u64 = "60", "SECONDS";
    /// Form of the log on stderr: text or json
    log_format, "TOLLGATE_LOG_FORMAT": LogFormat = "text", "FORM";
    /// What is logged: error, warn, info, debug or trace, also by module (info,store=debug)
    log_level, "TOLLGATE_LOG_LEVEL": String = "info", "LEVEL";
}

fn read<T: Entry>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("expected {}", T::FORM))
}

/// "a whole number of milliseconds, like 2000".
fn form<T: Entry>(unit: &str, default: &str) -> String {
    let unit = match unit {
        "MILLISECONDS" => " of milliseconds",
        "SECONDS" => " of seconds",
        "MINUTES" => " of minutes",
        "DAYS" => " of days",
        "BYTES" => " of bytes",
        _ => "",
    };
    let like = if default.is_empty() { String::new() } else { format!(", like {default}") };
    format!("{}{unit}{like}", T::FORM)
}

impl Entries {
    /// Adds default and environment name to the help of every flag of `serve`.
    pub fn describe(mut command: clap::Command) -> clap::Command {
        for known in known() {
            command = command.mut_arg(known.key, |arg| {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let default =
                    if known.default.is_empty() { String::new() } else { format!(" [default: {}]", known.default) };
                arg.help(format!("{help}{default} [env: {}]", known.variable))
            });
        }
        command
    }
}

/// The setting whose key is nearest to a mistyped one.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    known()
        .into_iter()
        .map(|known| (strsim::jaro_winkler(key, known.key), known.key))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}
