use super::*;
use mcpmon_core::Status;
use proptest::prelude::*;
use serde_json::json;

fn no_command(_: &[String]) -> Result<String, String> {
    Err("no command may run here".to_owned())
}

fn entry(json: serde_json::Value) -> ServiceEntry {
    serde_json::from_value(json).unwrap()
}

fn read_in(
    dir: &Path,
    vars: &[(&str, &str)],
    json: serde_json::Value,
) -> Result<ServiceSpec, EntryError> {
    let vars = Variables::new(vars.iter().copied());
    let run = |argv: &[String]| match argv {
        [program, arg] if program == "pass" => Ok(format!("{arg}-from-pass\n")),
        [program] if program == "mute" => Ok("\n".to_owned()),
        _ => no_command(argv),
    };
    let context = EntryContext { dir, vars: &vars, origin: "/etc/mcpmon.toml", run: &run };
    spec_from_entry("svc", &entry(json), &ServiceLimits::default(), &context)
}

fn read(json: serde_json::Value) -> Result<ServiceSpec, EntryError> {
    read_in(Path::new("/etc"), &[("TOKEN", "t0ken-value"), ("PORT", "8080")], json)
}

fn stdio(spec: &ServiceSpec) -> &StdioSpec {
    match &spec.transport {
        Transport::Stdio(stdio) => stdio,
        other => panic!("{other:?}"),
    }
}

fn http(spec: &ServiceSpec) -> &HttpSpec {
    match &spec.transport {
        Transport::Http(http) | Transport::Sse(http) => http,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_entry_is_carried_over() {
    let spec = read(json!({
        "command": "${SHELL_OF:-sh}", "args": ["-c", "echo ${PORT}", "$${PORT}"],
        "env": { "A": "x ${TOKEN}", "B": { "env": "TOKEN" }, "C": { "command": ["pass", "db"] }, "D": 5 },
        "cwd": "sub/${PORT}", "labels": { "team": "a" }, "depends_on": ["tcp://db:1"],
        "protocol": "legacy", "mode": "passive", "terminate_session": false,
        "check_interval": "60s", "max_body": "1MB", "enabled": false,
        "functional": [{ "tool": "t" }], "remediation": { "action": "restart" }
    }))
    .unwrap();
    let stdio = stdio(&spec);
    assert_eq!(stdio.command, "sh");
    assert_eq!(stdio.args, ["-c", "echo 8080", "${PORT}"]);
    let env: Vec<_> =
        stdio.env.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(
        env,
        [("A", "x t0ken-value"), ("B", "t0ken-value"), ("C", "db-from-pass"), ("D", "5")]
    );
    assert_eq!(stdio.cwd.as_deref(), Some(Path::new("/etc/sub/8080")));
    assert_eq!(spec.invalid, None);
    assert!(!spec.enabled && !spec.terminate_session);
    assert_eq!(spec.limits.check_interval.as_secs(), 60);
    assert_eq!(spec.limits.max_body, 1_000_000);
    assert_eq!((spec.functional.len(), spec.depends_on.len()), (1, 1));
    assert!(spec.remediation.is_some());
    assert_eq!(spec.origin, "/etc/mcpmon.toml");
    assert!(spec.secrets.contains(&Secret::new("t0ken-value")));
}

#[test]
fn the_way_it_is_reached_is_told_from_the_entry() {
    for (json, kind) in [
        (json!({ "command": "x" }), "stdio"),
        (json!({ "command": "x", "type": "local" }), "stdio"),
        (json!({ "url": "http://x/" }), "http"),
        (json!({ "url": "http://x/", "type": "streamable-http" }), "http"),
        (json!({ "serverUrl": "http://x/", "type": "sse" }), "sse"),
    ] {
        assert_eq!(read(json.clone()).unwrap().transport.as_str(), kind, "{json}");
    }
}

#[test]
fn an_entry_that_contradicts_itself_is_an_error_of_the_configuration() {
    for (json, part) in [
        (json!({ "command": "x", "url": "http://x/" }), "both `command` and `url`"),
        (json!({ "labels": {} }), "neither `command` nor `url`"),
        (json!({ "command": "x", "type": "http" }), "reached by `url`"),
        (json!({ "url": "http://x/", "type": "stdio" }), "reached by `command`"),
    ] {
        let error = read(json).unwrap_err().to_string();
        assert!(error.starts_with("service `svc`: ") && error.contains(part), "{error}");
    }
}

#[test]
fn an_entry_that_cannot_be_used_here_is_unknown_and_says_why() {
    for (json, key, part) in [
        (json!({ "url": "http://${NOPE}/" }), "url", "variable `NOPE` is not set"),
        (json!({ "command": "x", "args": ["a", "${NOPE}"] }), "args[1]", "`NOPE`"),
        (json!({ "command": "x", "env": { "K": { "env": "NOPE" } } }), "env.K", "`NOPE`"),
        (json!({ "command": "x", "env": { "K": { "file": "no" } } }), "env.K", "/etc/no"),
        (json!({ "command": "x", "env": { "K": { "command": ["rm"] } } }), "env.K", "no command"),
        (json!({ "command": "x", "env": { "K": { "command": ["mute"] } } }), "env.K", "nothing"),
        (json!({ "command": "x", "env": { "A=B": "c" } }), "env.A=B", "not a variable's name"),
        (json!({ "command": "x", "env_file": "no.env" }), "env_file", "/etc/no.env"),
        (json!({ "command": "" }), "command", "empty"),
        (json!({ "command": "x", "args": ["a\u{0}b"] }), "command", "NUL"),
        (json!({ "url": "ftp://x/" }), "url", "http://"),
        (json!({ "url": "unix:///run/x" }), "url", "http://"),
        (json!({ "url": "http://x/ y" }), "url", "space"),
        (json!({ "url": "http://x/", "headers": { "A b": "c" } }), "headers.A b", "header"),
        (json!({ "url": "http://x/", "headers": { "A": "c\r\nB: d" } }), "headers.A", "header"),
    ] {
        let spec = read(json.clone()).unwrap();
        let failure = spec.invalid.unwrap_or_else(|| panic!("{json} is valid"));
        assert_eq!(failure.code, FailureCode::ConfigurationInvalid);
        assert_eq!(failure.code.status(), Status::Unknown);
        assert_eq!(failure.evidence["key"], key, "{json}");
        assert!(failure.message.contains(part), "{json}: {failure}");
        assert!(failure.message.contains("`svc` in /etc/mcpmon.toml"), "{failure}");
    }
}

#[test]
fn an_unset_variable_is_named_in_evidence_and_advice() {
    let spec = read(json!({ "url": "http://${NOPE}/" })).unwrap();
    let failure = spec.invalid.unwrap();
    assert_eq!(failure.evidence["variable"], "NOPE");
    assert!(failure.next_step.contains("NOPE"), "{}", failure.next_step);
}

#[test]
fn secrets_and_variables_come_from_files_beside_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "from-file-123\n").unwrap();
    std::fs::write(dir.path().join("empty"), "\n").unwrap();
    std::fs::write(dir.path().join(".env"), "A=from-env-file\nB=overridden\n").unwrap();
    let spec = read_in(
        dir.path(),
        &[],
        json!({ "command": "x", "env_file": ".env", "env": { "B": { "file": "token" } } }),
    )
    .unwrap();
    assert_eq!(spec.invalid, None);
    let env = &stdio(&spec).env;
    assert_eq!((env["A"].expose(), env["B"].expose()), ("from-env-file", "from-file-123"));
    let spec = read_in(
        dir.path(),
        &[],
        json!({ "url": "http://x/", "headers": { "A": { "file": "empty" } } }),
    );
    assert!(spec.unwrap().invalid.unwrap().message.contains("is empty"));
}

#[test]
fn nothing_secret_is_shown() {
    let spec = read(json!({
        "url": "http://x/?token=qu3ry-secret", "headers": { "Authorization": "Bearer ${TOKEN}" }
    }))
    .unwrap();
    assert_eq!(http(&spec).headers["Authorization"].expose(), "Bearer t0ken-value");
    let secrets: Vec<_> = spec.secrets().map(Secret::expose).collect();
    assert!(secrets.contains(&"t0ken-value") && secrets.contains(&"qu3ry-secret"), "{secrets:?}");
    assert!(!format!("{:?}", spec.secrets).contains("t0ken"));
}

#[test]
fn a_handlers_secret_is_resolved_the_same_way() {
    let vars = Variables::new([("SMTP_PASSWORD", "pw-123")]);
    let context = EntryContext {
        dir: Path::new("/etc"),
        vars: &vars,
        origin: "/etc/mcpmon.toml",
        run: &no_command,
    };
    let resolve = |source: SecretRef| resolve_secret(&source, &context);
    assert_eq!(resolve(SecretRef::Env("SMTP_PASSWORD".into())).unwrap().expose(), "pw-123");
    let text = SecretRef::Text(Secret::new("x${SMTP_PASSWORD}"));
    assert_eq!(resolve(text).unwrap().expose(), "xpw-123");
    let error = resolve(SecretRef::Env("NOPE".into())).unwrap_err();
    assert_eq!(error.variable.as_deref(), Some("NOPE"));
    assert!(resolve(SecretRef::Command(vec!["x".into()])).is_err());
}

proptest! {
    #[test]
    fn any_text_anywhere_makes_a_service_or_says_why(
        command in ".{0,30}", arg in "[${}A-Z:]{0,20}", key in ".{0,10}", url in ".{0,40}"
    ) {
        let stdio = read(json!({ "command": command, "args": [&arg], "env": { key.clone(): &arg } }));
        prop_assert!(stdio.is_ok());
        let http = read(json!({ "url": url, "headers": { key: arg } }));
        prop_assert!(http.is_ok());
    }
}
