use super::*;

fn code(arguments: &str) -> u8 {
    match Cli::try_parse_from(arguments.split(' ')) {
        Ok(_) => AS_ASKED,
        Err(error) => refusal_code(&error),
    }
}

#[test]
fn the_definition_is_consistent() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in
        ["bugle --help", "bugle --version", "bugle serve --help", "bugle emit user --help", "bugle help emit"]
    {
        assert_eq!(code(arguments), 0, "{arguments}");
    }
}

#[test]
fn wrong_usage_ends_with_64() {
    for arguments in [
        "bugle",
        "bugle bark",
        "bugle serve --bark",
        "bugle serve --config",
        "bugle emit",
        "bugle emit user --api-key k",
        "bugle emit user 42 --api-key k",
        "bugle presence 42 --list --api-key k",
        "bugle token mint",
        "bugle token mint --user 42 --ttl soon",
        "bugle token mint --user 42 --claim level",
        "bugle token verify",
        "bugle bench",
        "bugle bench user --devices 0",
        "bugle bench user --secret",
    ] {
        assert_eq!(code(arguments), 64, "{arguments}");
    }
}

#[test]
fn every_command_is_understood() {
    for arguments in [
        "bugle serve",
        "bugle serve --dev --config bugle.toml",
        "bugle token mint --user 42 --role admin --role agent --ttl 5m --claim level=3 --kid a --config bugle.toml",
        "bugle token verify -",
        "bugle check-config --print",
        "bugle emit user 42 paid {} --api-key k --server http://127.0.0.1:1 --idempotency-key i",
        "bugle emit room lobby paid - --api-key k --except-user 1 --except-user 2",
        "bugle emit all paid --api-key k --volatile --envelope",
        "bugle presence --api-key k",
        "bugle presence 42 43 --api-key k",
        "bugle presence --list --api-key k",
        "bugle bench connect --devices 10 --settle 1s --json",
        "bugle bench stream --devices 10 --emits 10 --rate 5 --payload 1000 --concurrency 2",
        "bugle bench room --server http://127.0.0.1:1 --devices-url http://127.0.0.1:2 --admin http://127.0.0.1:3 --api-key k --secret s",
    ] {
        assert_eq!(code(arguments), 0, "{arguments}");
    }
}

#[test]
fn the_help_does_not_show_keys_and_secrets() {
    use clap::CommandFactory;
    let mut command = Cli::command();
    let hides = |command: &clap::Command, id: &str| {
        let argument = command.get_arguments().find(|argument| argument.get_id() == id).unwrap();
        argument.get_env().is_none() || argument.is_hide_env_values_set()
    };
    assert!(hides(command.find_subcommand_mut("presence").unwrap(), "api_key"));
    let bench = command.find_subcommand_mut("bench").unwrap();
    for load in bench.get_subcommands().filter(|load| load.get_name() != "help") {
        assert!(hides(load, "api_key") && hides(load, "secret"), "{}", load.get_name());
    }
}

#[test]
fn a_server_that_is_not_there_is_a_failure_that_says_where() {
    // Port 1 of a loopback address that nothing listens at.
    let line = "bugle presence --api-key k3y --server http://127.9.9.9:1";
    let failure = Cli::try_parse_from(line.split(' ')).ok().unwrap().execute().unwrap_err();
    let report = failure.report();
    assert!(report.starts_with("no Bugle answers at http://127.9.9.9:1: "), "{report}");
    assert!(!report.contains("k3y"));
    assert_eq!(ended(Err(failure)), 1);
}
