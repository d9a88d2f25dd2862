//! What a platform team does in a week, by the API, by the command line and by file: the same state after each step.

use std::{fs, process::Output};

use serde_json::{Value, json};
use tests::{Admin, Cluster, Upstream, binary, client, command, get};

/// A cluster, and what one way of working with it needs.
struct Desk {
    cluster: Cluster,
    admin: Admin,
    /// What the file way declares.
    file: Value,
}

impl Desk {
    fn open(upstream: &Upstream) -> Self {
        let cluster = Cluster::start(1);
        let admin = cluster.nodes[0].admin();
        let file = json!({
            "upstreams": [{ "name": "scan", "targets": [{ "url": upstream.url }] }],
            "routes": [{ "name": "scan", "match": { "path_prefix": "/" }, "upstream": "scan" }],
            "tiers": [
                { "name": "free", "limits": [{ "name": "per-day", "rate": "2/d", "burst": 2 }] },
                { "name": "gold", "limits": [{ "name": "per-day", "rate": "1000/d", "burst": 1000 }] },
            ],
        });
        Self { cluster, admin, file }
    }

    /// The command line, with its standard output.
    fn cli(&self, arguments: &[&str]) -> (i32, String) {
        let token = self.cluster.dir().join("token-of-the-desk");
        fs::write(&token, self.admin.token()).expect("write the token");
        let url = format!("http://{}", self.cluster.nodes[0].admin_addr);
        let Output { status, stdout, stderr } = command(binary())
            .args(arguments)
            .env("TOLLGATE_ADMIN_URL", url)
            .env("TOLLGATE_ADMIN_TOKEN_FILE", token)
            .output()
            .expect("run tollgate");
        let text = String::from_utf8_lossy(&stdout).into_owned();
        let code = status.code().expect("an exit code");
        assert!(code == 0 || code == 8, "{arguments:?}: {code} {}", String::from_utf8_lossy(&stderr));
        (code, text)
    }

    /// The same, read as JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let (_, text) = self.cli(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    fn apply(&self) {
        let path = self.cluster.dir().join("tollgate.json");
        fs::write(&path, self.file.to_string()).expect("write the file");
        let path = path.to_str().expect("text");
        assert_eq!(self.cli(&["diff", "-f", path, "--prune"]).0, 8, "there is something to do");
        self.cli(&["apply", "-f", path, "--prune"]);
        assert_eq!(self.cli(&["diff", "-f", path, "--prune"]).0, 0, "and then there is not");
    }

    fn status(&self, key: &str) -> u16 {
        get(&client(), &self.cluster.nodes[0].url("/scan"), key).expect("an answer").status
    }

    /// Everything that is declared, without what every cluster has of its own: the hashes of its keys.
    fn state(&self) -> Value {
        let mut export = self.admin.get("/v1/export");
        let map = export.as_object_mut().expect("an object");
        map.remove("revision");
        map.remove("upstreams");
        for account in map["accounts"].as_array_mut().expect("accounts") {
            for key in account.get_mut("keys").and_then(Value::as_array_mut).into_iter().flatten() {
                for own in ["hash", "last4", "expires_at"] {
                    key.as_object_mut().expect("a key").remove(own);
                }
            }
        }
        export
    }
}

fn secret(made: &Value) -> (String, String) {
    let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("no {name}: {made}")).to_owned();
    (text("id"), text("secret"))
}

/// `sha256:…` of a key, as an export tells it.
fn hash_of(desk: &Desk, last4: &str) -> String {
    let export = desk.admin.get("/v1/export");
    let keys = export["accounts"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|a| a["keys"].as_array().cloned().unwrap_or_default());
    let key = keys.into_iter().find(|key| key["last4"] == last4).expect("the key");
    key["hash"].as_str().expect("a hash").to_owned()
}

#[test]
fn a_customers_week_is_the_same_by_api_by_command_line_and_by_file() {
    let upstream = Upstream::start();
    let (api, cli, mut file) = (Desk::open(&upstream), Desk::open(&upstream), Desk::open(&upstream));
    let same = |api: &Desk, cli: &Desk, file: &Desk, step: &str| {
        assert_eq!(api.state(), cli.state(), "{step}: API and command line");
        assert_eq!(api.state(), file.state(), "{step}: API and file");
    };

    // Set up, and onboard a customer: an account and a key.
    for kind in ["upstreams", "tiers", "routes"] {
        for object in api.file[kind].as_array().expect("a list") {
            api.admin.write("PUT", &format!("/v1/{kind}/{}", object["name"].as_str().expect("a name")), object);
        }
    }
    api.admin.write("POST", "/v1/accounts", &json!({ "id": "acme", "name": "Acme", "tier": "free" }));
    let (api_key, api_secret) = api.admin.create_key("acme", &json!({ "name": "prod" }));
    cli.cli(&["upstream", "create", "scan", "--target", &upstream.url]);
    cli.cli(&["route", "create", "scan", "--path-prefix", "/", "--upstream", "scan"]);
    cli.cli(&["tier", "create", "free", "--rate", "2/d", "--burst", "2"]);
    cli.cli(&["tier", "create", "gold", "--rate", "1000/d", "--burst", "1000"]);
    cli.cli(&["account", "create", "acme", "--name", "Acme", "--tier", "free"]);
    let (cli_key, cli_secret) = secret(&cli.json(&["key", "create", "acme", "--name", "prod"]));
    file.file["accounts"] = json!([{ "id": "acme", "name": "Acme", "tier": "free" }]);
    file.apply();
    let (file_key, file_secret) = file.admin.create_key("acme", &json!({ "name": "prod" }));
    let hash = hash_of(&file, &file_secret[file_secret.len() - 4..]);
    let declared = json!({ "hash": hash, "name": "prod", "last4": &file_secret[file_secret.len() - 4..] });
    file.file["accounts"][0]["keys"] = json!([declared]);
    same(&api, &cli, &file, "onboarded");

    // The customer's third request of the day is refused; why?
    for (desk, secret, key) in
        [(&api, &api_secret, &api_key), (&cli, &cli_secret, &cli_key), (&file, &file_secret, &file_key)]
    {
        assert_eq!([desk.status(secret), desk.status(secret), desk.status(secret)], [200, 200, 429]);
        let told = desk.json(&["explain", key, "GET", "/scan"]);
        assert_eq!((&told["outcome"], &told["decided_by"]), (&json!("rate-limited"), &json!("per-day")), "{told}");
        assert_eq!(told["policies"][0]["set_by"], "/v1/tiers/free");
        let listed = desk.json(&["requests", "list", "--account", "acme", "--status", "429"]);
        assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
    }

    // Its limit is raised for a week.
    let until = "2999-01-01T00:00:00Z";
    let overrides = json!({ "limits": [{ "name": "per-day", "rate": "50/d", "burst": 50, "expires_at": until }] });
    api.admin.write("PATCH", "/v1/accounts/acme", &json!({ "overrides": overrides }));
    let path = cli.cluster.dir().join("overrides.yaml");
    fs::write(&path, json!({ "overrides": overrides }).to_string()).expect("write the file");
    cli.cli(&["account", "set", "acme", "-f", path.to_str().expect("text")]);
    file.file["accounts"][0]["overrides"] = overrides;
    file.apply();
    same(&api, &cli, &file, "raised");
    for (desk, secret) in [(&api, &api_secret), (&cli, &cli_secret), (&file, &file_secret)] {
        assert_eq!(desk.status(secret), 200, "in force when it was answered");
    }

    // Its key leaked: rotated with grace, then the new one without.
    let (second, api_second) =
        secret(&api.admin.write("POST", &format!("/v1/keys/{api_key}/rotate"), &json!({ "grace_seconds": 3600 })));
    assert_eq!([api.status(&api_secret), api.status(&api_second)], [200, 200]);
    let (_, api_third) =
        secret(&api.admin.write("POST", &format!("/v1/keys/{second}/rotate"), &json!({ "grace_seconds": 0 })));
    assert_eq!([api.status(&api_second), api.status(&api_third)], [401, 200]);
    let (second, cli_second) = secret(&cli.json(&["key", "rotate", &cli_key, "--grace", "1h"]));
    assert_eq!([cli.status(&cli_secret), cli.status(&cli_second)], [200, 200]);
    let (_, cli_third) = secret(&cli.json(&["key", "rotate", &second, "--grace", "0s"]));
    assert_eq!([cli.status(&cli_second), cli.status(&cli_third)], [401, 200]);
    // Files do not make secrets: a rotation is asked for as ever.
    let (_, made) =
        secret(&file.admin.write("POST", &format!("/v1/keys/{file_key}/rotate"), &json!({ "grace_seconds": 3600 })));
    assert_eq!([file.status(&file_secret), file.status(&made)], [200, 200]);
    same_keys(&api, &cli, &file);

    // It moves to another tier, and leaves.
    api.admin.write("PATCH", "/v1/accounts/acme", &json!({ "tier": "gold", "overrides": null }));
    let path = cli.cluster.dir().join("none.yaml");
    fs::write(&path, "overrides: null\n").expect("write the file");
    cli.cli(&["account", "set", "acme", "--tier", "gold", "-f", path.to_str().expect("text")]);
    let account = file.file["accounts"][0].as_object_mut().expect("an object");
    account.insert("tier".into(), "gold".into());
    account.remove("overrides");
    account.remove("keys");
    file.apply();
    assert_eq!(api.state()["accounts"][0]["tier"], "gold");
    same_keys(&api, &cli, &file);
    for key in api.admin.get("/v1/accounts/acme/keys?state=active")["data"].as_array().expect("keys") {
        let path = format!("/v1/keys/{}", key["id"].as_str().expect("an id"));
        assert_eq!(api.admin.call("DELETE", &path, None).status, 204);
    }
    assert_eq!(api.admin.call("DELETE", "/v1/accounts/acme", None).status, 204);
    for key in cli.json(&["key", "list", "acme"])["data"].as_array().expect("keys") {
        if key["state"] != "revoked" {
            cli.cli(&["key", "revoke", key["id"].as_str().expect("an id")]);
        }
    }
    cli.cli(&["account", "delete", "acme"]);
    file.file["accounts"] = json!([]);
    file.apply();
    same(&api, &cli, &file, "gone");
    for (desk, secret) in [(&api, &api_third), (&cli, &cli_third), (&file, &made)] {
        assert_eq!(desk.status(secret), 401);
        let verdict = desk.json(&["audit", "verify"]);
        assert_eq!(verdict["whole"], json!(true), "{verdict}");
    }
}

/// The same but for the keys, whose rotations went different ways.
fn same_keys(api: &Desk, cli: &Desk, file: &Desk) {
    let without = |desk: &Desk| {
        let mut state = desk.state();
        state["accounts"][0].as_object_mut().expect("an account").remove("keys");
        state
    };
    assert_eq!(without(api), without(cli));
    assert_eq!(without(api), without(file));
}
