//! People sign in by an OpenID Connect provider, a process of its own with keys of its own.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tests::{Admin, Cluster, Options};

/// A gateway, its provider, and what both need.
struct World {
    dir: tempfile::TempDir,
    cluster: Cluster,
    provider: Provider,
    addr: String,
}

impl World {
    /// With these settings besides those of the provider, in its settings file.
    fn start(more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let secret_file = dir.path().join("client-secret");
        std::fs::write(&secret_file, "only the provider and the gateway know\n").expect("written");
        let mut cluster = Cluster::new(1, &Options::default());
        let addr = cluster.nodes[0].admin_addr.clone();
        let redirect_url = format!("http://{addr}/sign-in/callback");
        let provider = Provider::start(&secret_file, &redirect_url);
        let file = dir.path().join("tollgate.toml");
        let settings = format!(
            "oidc_issuer = \"{}\"\noidc_client_id = \"tollgate\"\noidc_client_secret_file = {secret_file:?}\n\
             oidc_redirect_url = \"{redirect_url}\"\n{more}\n",
            provider.issuer,
        );
        std::fs::write(&file, settings).expect("written");
        let args = ["--config", file.to_str().expect("text")].map(str::to_owned);
        cluster.nodes[0].set_options(Options { args: args.to_vec(), ..Options::default() });
        cluster.start_all();
        Self { dir, cluster, provider, addr }
    }
}

struct Provider {
    child: Child,
    issuer: String,
}

impl Provider {
    fn start(secret_file: &std::path::Path, redirect_url: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_oidc-provider"))
            .arg("--client-secret-file")
            .arg(secret_file)
            .args(["--redirect-url", redirect_url])
            .args(["--user", "alice=dev,platform", "--user", "bob=support-eu", "--user", "carol=sales"])
            .args(
                ["issuer", "audience", "time", "nonce", "signature", "algorithm"]
                    .iter()
                    .flat_map(|kind| ["--user".to_owned(), format!("wrong-{kind}=platform")]),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut issuer = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut issuer).expect("a line");
        Self { child, issuer: issuer.trim().to_owned() }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A browser: one cookie, no redirect followed unseen.
struct Browser {
    agent: ureq::Agent,
    cookie: String,
}

struct Seen {
    status: u16,
    location: String,
    body: Value,
    text: String,
    headers: http::HeaderMap,
}

impl Browser {
    fn new() -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
        Self { agent: config.build().into(), cookie: String::new() }
    }

    fn get(&mut self, url: &str, accept: &str) -> Seen {
        let request = self.agent.get(url).header("cookie", &self.cookie).header("accept", accept);
        let mut response = request.call().expect("an answer");
        let head = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (set, location) = (head("set-cookie"), head("location"));
        if let Some((pair, rest)) = set.split_once(';') {
            assert!(rest.contains("HttpOnly") && rest.contains("SameSite=Lax") && rest.contains("Path=/"), "{set}");
            self.cookie = pair.to_owned();
        }
        let headers = response.headers().clone();
        let text = response.body_mut().read_to_string().expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Seen { status: response.status().as_u16(), location, body, text, headers }
    }

    /// All of the way, as somebody.
    fn sign_in(&mut self, admin: &Admin, who: &str, accept: &str) -> Seen {
        let begun = self.get(&admin.url("/sign-in"), accept);
        assert_eq!(begun.status, 303, "{}", begun.text);
        let granted = self.get(&format!("{}&login_hint={who}", begun.location), accept);
        assert_eq!(granted.status, 303, "{}", granted.text);
        self.get(&granted.location, accept)
    }
}

const JSON: &str = "application/json";

#[test]
fn people_sign_in_with_the_role_of_their_groups_and_nobody_else_does() {
    // All of this test's people come from one address.
    let World { dir: _dir, cluster, provider, addr } = World::start(
        "oidc_roles = [\"platform=admin\", \"support-eu=operator:eu-*|acme\"]\noidc_session_minutes = 60\n\
         oidc_visits_per_minute = 1000",
    );
    let root = Admin::new(&addr, cluster.nodes[0].admin().token());
    root.put_tier("open", &json!({}));
    for account in ["acme", "eu-1", "us-1"] {
        root.write("POST", "/v1/accounts", &json!({ "id": account, "name": account, "tier": "open" }));
    }

    let mut alice = Browser::new();
    let seen = alice.sign_in(&root, "alice", JSON);
    assert_eq!((seen.status, &seen.body["role"]), (200, &json!("admin")), "{}", seen.text);
    assert_eq!((&seen.body["name"], seen.headers["cache-control"].as_bytes()), (&json!("alice"), &b"no-store"[..]));
    let of_alice = Admin::new(&addr, seen.body["secret"].as_str().expect("a secret"));
    assert_eq!(of_alice.call("PUT", "/v1/tiers/hers", Some(&json!({}))).status, 201);
    let line = root.get("/v1/audit?kind=token")["data"][0].clone();
    assert_eq!((&line["actor"], &line["id"]), (&json!("oidc:id-of-alice"), &seen.body["id"]), "{line}");
    let line = root.get("/v1/audit?kind=tier")["data"][0].clone();
    assert_eq!(line["actor"], seen.body["id"], "what she does is told by her token");
    assert!(!root.get("/v1/audit").to_string().contains(of_alice.token()), "her secret is nowhere");
    let ends = root.get(&format!("/v1/tokens/{}", seen.body["id"].as_str().expect("an id")))["expires_at"].clone();
    assert!(ends.is_string(), "it ends by itself");

    let bob = Browser::new().sign_in(&root, "bob", JSON);
    assert_eq!(bob.body["role"], "operator");
    let of_bob = Admin::new(&addr, bob.body["secret"].as_str().expect("a secret"));
    assert_eq!(of_bob.call("PUT", "/v1/tiers/his", Some(&json!({}))).status, 403);
    let sees = |account: &str| of_bob.call("GET", &format!("/v1/accounts/{account}"), None).status;
    assert_eq!((sees("acme"), sees("eu-1"), sees("us-1")), (200, 200, 404), "his group is limited to accounts");
    let page = Browser::new().sign_in(&root, "bob", "text/html");
    assert!(page.text.contains("tga_") && page.text.contains("operator"), "{}", page.text);
    assert!(page.headers["content-security-policy"].to_str().is_ok_and(|policy| policy.contains("default-src 'none'")));

    let carol = Browser::new().sign_in(&root, "carol", JSON);
    is_refused(&carol, "role-too-low", 403);
    let noted = root.get("/v1/audit?actor=oidc:id-of-carol")["data"][0].clone();
    assert_eq!(noted["result"], "role-too-low", "{noted}");
    is_refused(&Browser::new().sign_in(&root, "nobody", JSON), "sign-in-failed", 401);
    for kind in ["issuer", "audience", "time", "nonce", "signature", "algorithm"] {
        let seen = Browser::new().sign_in(&root, &format!("wrong-{kind}"), JSON);
        assert_eq!((seen.status, &seen.body["code"]), (401, &json!("sign-in-failed")), "{kind}: {}", seen.text);
    }

    // A person has five sign-ins at once: the oldest ends.
    for _ in 0..4 {
        assert_eq!(of_bob.call("GET", "/v1/accounts", None).status, 200);
        assert_eq!(Browser::new().sign_in(&root, "bob", JSON).status, 200);
    }
    assert_eq!(of_bob.call("GET", "/v1/accounts", None).status, 401);
    let of_bobs = |token: &&Value| token["subject"] == "id-of-bob";
    let all = root.get("/v1/tokens?limit=1000");
    assert_eq!(all["data"].as_array().expect("a list").iter().filter(of_bobs).count(), 5, "{all}");

    // Another's code in this browser, a code twice, and a callback that nobody has begun.
    let begun = alice.get(&root.url("/sign-in"), JSON);
    let granted = alice.get(&format!("{}&login_hint=alice", begun.location), JSON);
    let mut mallory = Browser::new();
    is_refused(&mallory.get(&granted.location, JSON), "sign-in-failed", 401);
    mallory.get(&root.url("/sign-in"), JSON);
    is_refused(&mallory.get(&granted.location, JSON), "sign-in-failed", 401);
    let cookie = alice.cookie.clone();
    assert_eq!(alice.get(&granted.location, JSON).status, 200);
    alice.cookie = cookie;
    is_refused(&alice.get(&granted.location, JSON), "sign-in-failed", 401);

    // The provider is gone: nobody comes in, and those who are in stay in.
    drop(provider);
    let seen = Browser::new().get(&root.url("/sign-in"), JSON);
    assert_eq!((seen.status, &seen.body["code"]), (503, &json!("temporary-reduced-capacity")), "{}", seen.text);
    assert_eq!(of_alice.call("GET", "/v1/tiers", None).status, 200);
}

fn is_refused(seen: &Seen, code: &str, status: u16) {
    assert_eq!((seen.status, seen.body["code"].as_str()), (status, Some(code)), "{}", seen.text);
}

/// `tollgate login` waits on loopback for what the browser brings; its token is used by the next command.
#[test]
fn the_command_line_signs_a_person_in_by_their_browser() {
    let World { dir, cluster: _cluster, provider: _provider, addr } = World::start("oidc_roles = [\"platform=admin\"]");
    let url = format!("http://{addr}");
    let tollgate = || {
        let mut command = tests::command(tests::binary());
        command.env("XDG_CONFIG_HOME", dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    // The command, and the page that it sends its user to.
    let login = || {
        let mut child = tollgate().args(["login", "--admin-url", &url, "-o", "json"]).spawn().expect("starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map(|line| line.expect("text"));
        let page = lines.find(|line| line.trim().starts_with("http")).expect("a page");
        (child, lines, page.trim().to_owned())
    };
    // Its user's browser: from the provider over the gateway to the command.
    let bring = |page: &str, who: &str| {
        let mut browser = Browser::new();
        let granted = browser.get(&format!("{page}&login_hint={who}"), "text/html");
        let back = browser.get(&granted.location, "text/html");
        assert_eq!(back.status, 303, "{}", back.text);
        assert!(back.location.starts_with("http://127.0.0.1:"), "{}", back.location);
        browser.get(&back.location, "text/html")
    };

    let (mut child, lines, page) = login();
    // Another's code is not taken, and what else browsers ask for is not there.
    let port =
        page.split_once("state=").and_then(|(_, rest)| rest.split('&').next()?.rsplit_once('.')).expect("a port").1;
    for other in [format!("?code=x&state=y.{port}"), "favicon.ico".to_owned()] {
        assert_eq!(
            Browser::new().get(&format!("http://127.0.0.1:{port}/{other}"), "*/*").text,
            "There is nothing here."
        );
    }
    let seen = bring(&page, "alice");
    assert!(seen.status == 200 && seen.text.contains("can be closed"), "{}", seen.text);
    let said: Vec<String> = lines.collect();
    assert_eq!(child.wait().expect("ends").code(), Some(0), "{said:?}");
    let out = std::io::read_to_string(child.stdout.take().expect("piped")).expect("text");
    assert!(!out.contains("tga_") && !said.concat().contains("tga_"), "the token is in its file alone: {out} {said:?}");
    let out: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&out["name"], &out["role"], &out["context"]), (&json!("alice"), &json!("admin"), &json!("default")));
    let listed = tollgate().args(["tier", "create", "hers", "--concurrency", "5"]).output().expect("runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));

    let (mut child, lines, page) = login();
    assert!(bring(&page, "nobody").text.contains("Not signed in"));
    let said = lines.collect::<Vec<_>>().concat();
    assert_eq!(child.wait().expect("ends").code(), Some(4), "{said}");
    assert!(said.contains("access_denied"), "{said}");
    let (mut child, lines, page) = login();
    bring(&page, "carol");
    let said = lines.collect::<Vec<_>>().concat();
    assert_eq!(child.wait().expect("ends").code(), Some(4), "{said}");
    assert!(said.contains("role-too-low"), "{said}");
    let bad = Browser::new().get(&format!("{url}/sign-in?cli_port=0"), JSON);
    is_refused(&bad, "malformed-query", 400);
}

#[test]
fn an_address_that_visits_too_often_is_told_when_to_come_again() {
    let world = World::start("oidc_roles = [\"platform=admin\"]\noidc_visits_per_minute = 1");
    let addr = &world.addr;
    let url = format!("http://{addr}/sign-in");
    assert_eq!(Browser::new().get(&url, JSON).status, 303);
    let seen = Browser::new().get(&url, JSON);
    is_refused(&seen, "too-many-sign-ins", 429);
    let after = seen.headers["retry-after"].to_str().ok().and_then(|text| text.parse::<u64>().ok());
    assert!(after.is_some_and(|after| (1..=60).contains(&after)), "{after:?}");
}

#[test]
fn without_a_provider_there_is_no_sign_in() {
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    assert_eq!(Browser::new().get(&admin.url("/sign-in"), JSON).status, 404);
}
