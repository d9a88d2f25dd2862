//! The admin API and its command line from outside: what is taken can be given back, differences are told, the audit stays
//! small and names what was done.

use std::fs;

use serde_json::{Value, json};
use tests::{Admin, Answer, Cluster, binary, command, until};

const JSON: (&str, &str) = ("content-type", "application/json");

fn cli(cluster: &Cluster, arguments: &[&str]) -> (i32, String, String) {
    let token = cluster.dir().join("token-of-the-test");
    let admin = cluster.nodes[0].admin();
    fs::write(&token, admin.token()).expect("write the token");
    let output = command(binary())
        .args(arguments)
        .env("TOLLGATE_ADMIN_URL", format!("http://{}", cluster.nodes[0].admin_addr))
        .env("TOLLGATE_ADMIN_TOKEN_FILE", token)
        .output()
        .expect("run tollgate");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
}

fn pointers(answer: &Answer) -> Vec<&str> {
    answer.body["errors"].as_array().into_iter().flatten().filter_map(|error| error["pointer"].as_str()).collect()
}

fn lines(admin: &Admin, query: &str) -> Vec<Value> {
    admin.get(&format!("/v1/audit?limit=1000&{query}"))["data"].as_array().expect("lines").clone()
}

#[test]
fn what_the_api_takes_can_be_exported_compared_and_applied() {
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    admin.put_tier("free", &json!({ "concurrency": 5 }));
    let deep = |levels: usize| (1..levels).fold(json!({ "leaf": "yes: no" }), |inner, _| json!({ "a": inner }));
    let account = |levels| json!({ "id": "acme", "tier": "free", "metadata": deep(levels) });
    let answer = admin.call("POST", "/v1/accounts", Some(&account(17)));
    answer.assert_problem(422, "invalid-body");
    assert_eq!(pointers(&answer), [format!("/metadata{}", "/a".repeat(16))]);
    admin.write("POST", "/v1/accounts", &account(16));
    let (code, _, said) = cli(&cluster, &["tier", "create", "free", "--concurrency", "3"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("exists already: change it with `tollgate tier set`"), "{said}");
    let (code, _, said) = cli(&cluster, &["account", "create", "other"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--tier"), "{said}");
    let (code, text, said) = cli(&cluster, &["export"]);
    assert_eq!(code, 0, "{said}");
    let address = format!("$schema=http://{}/schema.json", cluster.nodes[0].admin_addr);
    assert!(text.lines().next().is_some_and(|line| line.ends_with(&address)), "{text}");
    let file = cluster.dir().join("export.yaml");
    let path = file.to_str().expect("text");
    fs::write(&file, &text).expect("write the file");
    assert_eq!(cli(&cluster, &["diff", "-f", path]).0, 0);

    // Changed by somebody else since: told, whether it is compared or applied.
    admin.put_tier("free", &json!({ "concurrency": 9 }));
    let (code, told, said) = cli(&cluster, &["diff", "-f", path]);
    assert_eq!(code, 8, "{said}");
    assert!(told.contains("~ tier free") && told.contains("concurrency: 9 -> 5"), "{told}");
    assert!(said.contains("apply would be refused"), "{said}");
    let (code, _, said) = cli(&cluster, &["apply", "-f", path]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("/tiers/0") && said.contains("concurrency is 9, the document says 5"), "{said}");
    assert_eq!(cli(&cluster, &["apply", "-f", path, "--overwrite"]).0, 0);
    assert_eq!(cli(&cluster, &["diff", "-f", path, "--overwrite"]).0, 0);
}

#[test]
fn a_caller_that_is_refused_in_a_loop_leaves_few_lines_and_confidential_reads_leave_one() {
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    admin.put_tier("free", &json!({}));
    admin.create_account("acme", "free");
    let made = admin.write("POST", "/v1/tokens", &json!({ "name": "own", "role": "viewer", "account": "acme" }));
    let own = Admin::new(&cluster.nodes[0].admin_addr, made["secret"].as_str().expect("a secret"));
    for n in 0..200 {
        let answer = own.call("PUT", &format!("/v1/tiers/t-{n}"), Some(&json!({})));
        assert_eq!(answer.status, 403, "{}", answer.text);
    }
    let actor = format!("actor={}", made["id"].as_str().expect("an id"));
    let of_own = lines(&admin, &actor);
    // A slow machine may let a minute pass, which allows for one more and for a count.
    assert!((20..40).contains(&of_own.len()), "{} lines", of_own.len());
    assert_eq!((&of_own[0]["result"], &of_own[0]["count"]), (&json!("role-too-low"), &json!(1)));
    let before = lines(&admin, "kind=request&id=/v1/tokens").len();
    admin.get("/v1/tokens");
    admin.get("/v1/export");
    admin.get("/v1/accounts");
    let read = lines(&admin, "kind=request&id=/v1/tokens");
    assert_eq!(read.len(), before + 1);
    assert_eq!((&read[0]["action"], &read[0]["result"]), (&json!("GET"), &json!("done")));
    assert_eq!(lines(&admin, "kind=request&id=/v1/export").len(), 1);
    assert!(lines(&admin, "kind=request&id=/v1/accounts").is_empty());
    assert_eq!(admin.get("/v1/audit/verify")["whole"], true);
}

#[test]
fn a_change_names_its_fields_and_one_that_changes_nothing_leaves_nothing() {
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    admin.put_tier("free", &json!({}));
    admin.write(
        "POST",
        "/v1/accounts",
        &json!({ "id": "acme", "tier": "free", "name": "Acme", "metadata": { "crm": 5, "vip": true } }),
    );
    let patch = |body: Value| admin.write("PATCH", "/v1/accounts/acme", &body);
    let changed = patch(json!({ "name": "Hush", "metadata": { "crm": 6 }, "state": "suspended" }));
    let newest = lines(&admin, "kind=account");
    assert_eq!(newest[0]["changed"], json!(["/state", "/name", "/metadata/crm"]));
    assert!(!json!(newest).to_string().contains("Hush"), "a line has no value of a profile");
    // Nothing to change: neither a revision nor a line.
    for body in [json!({}), json!({ "state": "suspended", "metadata": { "crm": 6 } })] {
        assert_eq!(patch(body)["revision"], changed["revision"]);
    }
    let key = admin.create_key("acme", &json!({ "name": "main" })).0;
    let path = format!("/v1/keys/{key}");
    let revision = admin.get(&path)["revision"].clone();
    assert_eq!(admin.write("PATCH", &path, &json!({ "name": "main" }))["revision"], revision);
    assert_eq!((lines(&admin, "kind=account").len(), lines(&admin, "kind=key").len()), (newest.len(), 1));

    // A read of what is known is answered without it.
    let get = |tag: &str| admin.send("GET", "/v1/accounts/acme", &[("if-none-match", tag)], b"");
    let whole = get("\"1\"");
    let again = get(whole.header("etag"));
    assert_eq!((whole.status, again.status, again.text.as_str()), (200, 304, ""));
    assert_eq!(again.header("etag"), whole.header("etag"));
}

#[test]
fn bodies_are_read_within_bounds_and_everything_wrong_is_told() {
    let cluster = Cluster::start(1);
    let admin = cluster.nodes[0].admin();
    admin.put_tier("free", &json!({}));
    let twice = admin.send("POST", "/v1/accounts", &[JSON], b"{\"id\": \"a\", \"tier\": \"free\", \"tier\": \"gold\"}");
    twice.assert_problem(400, "malformed-body");
    assert!(twice.text.contains("twice"), "{}", twice.text);
    assert_eq!(pointers(&twice), ["/tier"], "{}", twice.text);
    let torn = admin.send("POST", "/v1/batch", &[JSON], b"{\"operations\": [{}, {\"path\": \"/v1");
    torn.assert_problem(400, "malformed-body");
    assert_eq!(pointers(&torn), ["/operations/1/path"], "{}", torn.text);
    let headers = [JSON, ("if-match", "W/\"17\"")];
    let weak = admin.send("PUT", "/v1/tiers/free", &headers, b"{}");
    weak.assert_problem(400, "malformed-header");
    assert_eq!(pointers(&weak), ["If-Match"], "{}", weak.text);

    let answer = admin.call(
        "POST",
        "/v1/batch",
        Some(&json!({ "operations": [
            { "method": "GET", "path": "/v1/accounts" },
            { "method": "PUT", "path": "/v1/tiers/gold", "body": { "concurrency": 0 } },
        ] })),
    );
    assert_eq!(pointers(&answer), ["/operations/0/method", "/operations/1/body/concurrency"], "{}", answer.text);
    let limit = json!({ "name": "a", "rate": "1/s", "burst": 1 });
    let tier = json!({ "limits": [limit, limit], "quotas": [{ "name": "q", "limit": -1, "period": "day" }] });
    let answer = admin.call("PUT", "/v1/tiers/gold", Some(&tier));
    assert_eq!(pointers(&answer), ["/quotas/0/limit", "/limits"], "{}", answer.text);

    assert_eq!(admin.call("GET", "/v1/requests/tail?account=nope", None).status, 404);
    let question = json!({ "key_id": "key_1", "path": "/" });
    admin.call("POST", "/v1/explain?fields=steps", Some(&question)).assert_problem(400, "malformed-query");

    // Many small accounts are a hundred times the memory of their text: it is not read to its end.
    let resident = || cluster.nodes[0].resident_bytes();
    let accounts: Vec<String> = (0..400_000).map(|n| format!("{{\"id\":\"a{n}\",\"tier\":\"t\"}}")).collect();
    let document = format!("{{\"accounts\":[{}]}}", accounts.join(","));
    let before = resident();
    let answer = admin.send("POST", "/v1/apply", &[JSON], document.as_bytes());
    answer.assert_problem(413, "body-too-large");
    let grown = resident().saturating_sub(before);
    assert!(grown < 250 << 20, "{} MiB", grown >> 20);
    until("the node is ready", || cluster.nodes[0].is_ready().then_some(()));
}
