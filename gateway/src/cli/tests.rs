use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(line.split_whitespace())?;
    Cli::from_arg_matches(&matches)
}

#[test]
fn the_command_line_is_sound() {
    command().debug_assert();
}

#[test]
fn the_contracts_commands_parse() {
    for line in [
        "tollgate demo --nodes 3 --keep --with-load",
        "tollgate serve --data-dir /d --data-addr 127.0.0.1:1 --join a:1,b:2 --voters 3 --config t.toml --insecure",
        "tollgate cluster status -o json",
        "tollgate cluster join 10.0.0.7:8082",
        "tollgate cluster remove node-2",
        "tollgate cluster drain node-2 --undo",
        "tollgate cluster split --ledger-groups 4 --wait -o json",
        "tollgate cluster transfer --group 1 --to node-2 -o json",
        "tollgate account create acme --tier free --name Acme --metadata crm=5",
        "tollgate account list --limit 5 --cursor x --output yaml",
        "tollgate account set acme --state suspended",
        "tollgate key create acme --env test --scopes a,b --allowed-ips 10.0.0.0/8 --expires 30d",
        "tollgate key rotate key_1 --grace 12h",
        "tollgate key revoke key_1",
        "tollgate key delete key_1",
        "tollgate tier set free --rate 5/s --burst 15 --per key,route --quota 10000/day",
        "tollgate tier create free -f tier.yaml --admin-url http://h:1",
        "tollgate route set scan --upstream scan --path-prefix /v3 --methods POST",
        "tollgate upstream set scan --target http://127.0.0.1:9 --target http://127.0.0.1:10",
        "tollgate requests list --account acme --status 429 --since 15m",
        "tollgate requests get 0190",
        "tollgate usage acme --step hour --by route",
        "tollgate limits acme",
        "tollgate token create ci --role viewer --expires 30d",
        "tollgate token generate",
        "tollgate login --admin-url https://h:1 --port 9999 --context staging",
        "tollgate audit -o json",
        "tollgate audit --kind key --since 1d --limit 5",
        "tollgate audit verify --file x --head ab",
        "tollgate audit verify --file x --from 12-0",
        "tollgate audit export",
        "tollgate requests tail --account acme --count 3 -o json",
        "tollgate doctor --data-dir /d --local -o json",
        "tollgate context set a --admin-url http://h:1 --admin-token-file t",
        "tollgate context use a",
        "tollgate account list --context a",
        "tollgate apply -f x.yaml --dry-run --prune",
        "tollgate diff -f x.yaml -o json",
        "tollgate export",
        "tollgate explain key_1 POST /v3/scan --ip 10.0.0.1",
        "tollgate completions bash",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn wrong_use_is_told_before_anything_happens() {
    for (line, kind) in [
        ("tollgate", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("tollgate tier set free --rate fast", ErrorKind::ValueValidation),
        ("tollgate account set acme --state gone", ErrorKind::InvalidValue),
        ("tollgate requests list --since yesterday", ErrorKind::ValueValidation),
        ("tollgate serve --data-adr x", ErrorKind::UnknownArgument),
        ("tollgate account list --admin-token tga_x", ErrorKind::UnknownArgument),
        ("tollgate demo --nodes 9", ErrorKind::ValueValidation),
    ] {
        assert_eq!(parse(line).expect_err(line).kind(), kind, "{line}");
    }
}

#[test]
fn every_noun_shows_examples_that_parse() {
    let command = command();
    let mut without = Vec::new();
    for noun in command.get_subcommands() {
        // As a shell reads them: a line that ends with a backslash goes on.
        let help = noun.get_after_help().map(ToString::to_string).unwrap_or_default().replace("\\\n", "");
        let examples: Vec<&str> = help.lines().filter_map(|line| line.trim().strip_prefix("tollgate ")).collect();
        if examples.is_empty() {
            without.push(noun.get_name().to_owned());
        }
        for example in examples {
            // What a shell would do with it is not the command line's.
            let line = example.split(['>', '|', '#']).next().expect("a part").replace('"', "");
            parse(&format!("tollgate {line}")).unwrap_or_else(|error| panic!("{example}: {error}"));
        }
    }
    assert_eq!(without, [""; 0], "no examples");
}

#[test]
fn a_mistyped_noun_verb_or_flag_is_told_with_what_was_meant() {
    for (line, meant) in [
        ("tollgate acount list", "account"),
        ("tollgate account lst", "list"),
        ("tollgate account list --limt 3", "--limit"),
    ] {
        let error = parse(line).expect_err(line).to_string();
        assert!(error.contains(meant), "{line}: {error}");
    }
}

#[test]
fn every_setting_of_serve_is_described() {
    let command = command();
    let serve = command.find_subcommand("serve").expect("serve").clone();
    let help = serve.term_width(500).render_long_help().to_string();
    assert!(help.contains("--data-addr <ADDR:PORT>") && help.contains("[default: 127.0.0.1:8080]"), "{help}");
    assert!(help.contains("--commit-deadline-ms <MILLISECONDS>") && help.contains("[env: TOLLGATE_DRAIN_SECONDS]"));
}

#[test]
fn what_was_meant_is_told_with_the_likeliest_first() {
    let error = command().try_get_matches_from(["tollgate", "acount"]).expect_err("refused");
    let told = best_first(error).to_string();
    let place = |name: &str| told.find(name).unwrap_or(usize::MAX);
    assert!(place("'account'") < usize::MAX, "{told}");
    assert!(
        ["'audit'", "'cluster'", "'context'", "'tier'"].iter().all(|other| place("'account'") < place(other)),
        "{told}"
    );
}
