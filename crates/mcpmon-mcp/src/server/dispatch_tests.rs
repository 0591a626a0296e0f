use serde_json::{Value, json};

use super::super::spec::{Eras, Prompt, Resource, ToolOutput};
use super::*;
use crate::jsonrpc::{self, Incoming};

fn spec(eras: Eras) -> ServerSpec {
    let echo = Tool::new("echo", "gives back", |arguments| {
        let text = arguments.get("text").and_then(Value::as_str);
        text.map(ToolOutput::text).ok_or_else(|| RpcError::new(codes::INVALID_PARAMS, "no text"))
    });
    let broken = Tool::new("broken", "fails", |_| Ok(ToolOutput::error("boom")));
    ServerSpec::new("s", "1").eras(eras).tool(echo).tool(broken)
}

/// What a message is answered with over stdio, and where that leaves the conversation.
fn ask(spec: &ServerSpec, stage: Stage, method: &str, params: &Value) -> (Stage, Value) {
    let (action, answer) = ask_via(spec, stage, Via::Stdio, method, params);
    (action.stage, answer)
}

fn ask_via(
    spec: &ServerSpec,
    stage: Stage,
    via: Via<'_>,
    method: &str,
    params: &Value,
) -> (Action, Value) {
    let text = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string();
    let Ok(Incoming::Single(message)) = jsonrpc::parse(text.as_bytes()) else {
        panic!("not a message: {text}");
    };
    let action = Dispatch::new(spec, &spec.tools).handle(stage, via, &message);
    let answer: Value = serde_json::from_slice(&action.answer.as_ref().unwrap().body).unwrap();
    assert_eq!(answer["id"], 7);
    (action, answer)
}

fn modern(version: &str) -> Value {
    json!({"_meta": {(meta::PROTOCOL_VERSION): version, (meta::CLIENT_CAPABILITIES): {}}})
}

/// A method in the modern era with parameters beside `_meta`.
fn modern_with(params: &Value) -> Value {
    let mut whole = modern(MODERN);
    for (key, value) in params.as_object().unwrap() {
        whole[key] = value.clone();
    }
    whole
}

#[test]
fn initialize_agrees_on_the_clients_revision_or_its_own_newest() {
    let cases = [
        ("2025-11-25", "2025-11-25", "2025-11-25"),
        ("2025-11-25", "2024-11-05", "2024-11-05"),
        ("2025-11-25", "1999-01-01", "2025-11-25"),
        ("2025-11-25", "2026-07-28", "2025-11-25"),
        ("2025-03-26", "2025-06-18", "2025-03-26"),
        ("2025-03-26", "2024-11-05", "2024-11-05"),
    ];
    for (newest, asked, agreed) in cases {
        let spec = spec(Eras::Both).latest_legacy(newest);
        let params = json!({"protocolVersion": asked, "capabilities": {}});
        let (stage, answer) = ask(&spec, Stage::Fresh, "initialize", &params);
        assert_eq!(answer["result"]["protocolVersion"], agreed, "{asked} of {newest}");
        assert_eq!(answer["result"]["serverInfo"], json!({"name": "s", "version": "1"}));
        assert_eq!(stage, Stage::Legacy(agreed));
    }
}

#[test]
fn the_first_message_decides_the_era_on_stdio() {
    let hello = json!({"protocolVersion": "2025-11-25"});
    let legacy = Stage::Legacy("2025-11-25");
    let nothing = json!({});
    let m = modern(MODERN);
    // era, stage, method, params, error code (0 for a result)
    let cases: [(Eras, Stage, &str, &Value, i64); 17] = [
        (Eras::Both, Stage::Fresh, "server/discover", &m, 0),
        (Eras::Both, Stage::Fresh, "server/discover", &nothing, -32_602),
        (Eras::Both, Stage::Modern, "initialize", &hello, -32_022),
        (Eras::Both, legacy, "server/discover", &m, -32_601),
        (Eras::Both, legacy, "initialize", &hello, -32_600),
        (Eras::Both, legacy, "ping", &nothing, 0),
        (Eras::Both, Stage::Modern, "ping", &m, -32_601),
        (Eras::Both, Stage::Fresh, "tools/list", &nothing, -32_600),
        (Eras::Both, Stage::Fresh, "tools/list", &m, 0),
        (Eras::Legacy, Stage::Fresh, "server/discover", &m, -32_600),
        (Eras::Legacy, Stage::Fresh, "initialize", &nothing, -32_602),
        (Eras::Legacy, legacy, "tools/list", &nothing, 0),
        (Eras::Legacy, legacy, "what/ever", &nothing, -32_601),
        (Eras::Modern, Stage::Fresh, "initialize", &hello, -32_022),
        (Eras::Modern, Stage::Fresh, "server/discover", &nothing, -32_602),
        (Eras::Modern, Stage::Fresh, "server/discover", &modern("2099-01-01"), -32_022),
        (Eras::Modern, Stage::Fresh, "what/ever", &m, -32_601),
    ];
    for (eras, stage, method, params, code) in cases {
        let (_, answer) = ask(&spec(eras), stage, method, params);
        let seen = answer["error"]["code"].as_i64().unwrap_or(0);
        assert_eq!(seen, code, "{eras:?} {stage:?} {method}: {answer}");
    }
}

#[test]
fn a_refusal_leaves_the_conversation_where_it_was() {
    let (stage, _) = ask(&spec(Eras::Both), Stage::Fresh, "server/discover", &json!({}));
    assert_eq!(stage, Stage::Fresh);
    let (stage, _) = ask(&spec(Eras::Both), Stage::Fresh, "server/discover", &modern(MODERN));
    assert_eq!(stage, Stage::Modern);
}

#[test]
fn modern_results_bear_their_marks() {
    let spec = spec(Eras::Modern).ttl(std::time::Duration::from_secs(5));
    let (_, answer) = ask(&spec, Stage::Fresh, "server/discover", &modern(MODERN));
    let result = &answer["result"];
    assert_eq!(result["supportedVersions"], json!([MODERN]));
    assert_eq!(result["capabilities"], json!({"tools": {}}));
    for method in ["server/discover", "tools/list"] {
        let (_, answer) = ask(&spec, Stage::Modern, method, &modern(MODERN));
        let result = &answer["result"];
        assert_eq!(result["resultType"], "complete");
        assert_eq!(result["ttlMs"], 5_000);
        assert_eq!(result["cacheScope"], "public");
        assert_eq!(result["_meta"][meta::SERVER_INFO]["name"], "s");
    }
    let (_, answer) = ask(&spec, Stage::Modern, "initialize", &json!({"protocolVersion": "x"}));
    assert_eq!(answer["error"]["data"], json!({"supported": [MODERN], "requested": "x"}));
}

#[test]
fn lists_are_paged_and_foreign_cursors_refused() {
    let mut spec = spec(Eras::Legacy).page_size(2);
    for index in 0..3 {
        let name = format!("extra-{index}");
        spec = spec.tool(Tool::new(name, "", |_| Ok(ToolOutput::text(""))));
    }
    let stage = Stage::Legacy("2025-11-25");
    let (mut names, mut params, mut pages) = (Vec::new(), json!({}), 0);
    loop {
        let (_, answer) = ask(&spec, stage, "tools/list", &params);
        let result = &answer["result"];
        names.extend(result["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()));
        pages += 1;
        match result.get("nextCursor") {
            Some(cursor) => params = json!({"cursor": cursor}),
            None => break,
        }
    }
    assert_eq!(names, ["echo", "broken", "extra-0", "extra-1", "extra-2"]);
    assert_eq!(pages, 3);
    for cursor in ["after-5", "after--1", "2", ""] {
        let (_, answer) = ask(&spec, stage, "tools/list", &json!({"cursor": cursor}));
        assert_eq!(answer["error"]["code"], -32_602, "{cursor:?}");
    }
}

#[test]
fn tools_are_called_in_both_eras() {
    let call = |stage, params: &Value| ask(&spec(Eras::Both), stage, "tools/call", params).1;
    let legacy = Stage::Legacy("2025-11-25");
    let hello = json!({"name": "echo", "arguments": {"text": "hi"}});
    for answer in [call(legacy, &hello), call(Stage::Modern, &modern_with(&hello))] {
        assert_eq!(answer["result"]["content"], json!([{"type": "text", "text": "hi"}]));
        assert_eq!(answer["result"]["isError"], false);
    }
    assert_eq!(call(legacy, &json!({"name": "broken"}))["result"]["isError"], true);
    for wrong in [
        json!({"name": "echo"}),
        json!({"name": "echo", "arguments": 3}),
        json!({"name": "nobody"}),
        json!({}),
    ] {
        assert_eq!(call(legacy, &wrong)["error"]["code"], -32_602, "{wrong}");
    }
}

#[test]
fn prompts_and_resources_are_only_there_when_offered() {
    let bare = spec(Eras::Legacy);
    let stage = Stage::Legacy("2025-11-25");
    let (_, answer) = ask(&bare, stage, "prompts/get", &json!({"name": "p"}));
    assert_eq!(answer["error"]["code"], -32_601);
    let full = bare
        .prompt(Prompt { name: "p".into(), description: "d".into(), text: "t".into() })
        .resource(Resource { uri: "demo://r".into(), name: "r".into(), text: "body".into() });
    let hello = json!({"protocolVersion": "2025-11-25"});
    let (_, answer) = ask(&full, Stage::Fresh, "initialize", &hello);
    let capabilities = &answer["result"]["capabilities"];
    assert_eq!(
        *capabilities,
        json!({"tools": {"listChanged": true}, "prompts": {}, "resources": {}})
    );
    let (_, answer) = ask(&full, stage, "prompts/list", &json!({}));
    assert_eq!(answer["result"]["prompts"][0]["name"], "p");
    let (_, answer) = ask(&full, stage, "prompts/get", &json!({"name": "p"}));
    assert_eq!(answer["result"]["messages"][0]["content"]["text"], "t");
    let (_, answer) = ask(&full, stage, "resources/list", &json!({}));
    assert_eq!(answer["result"]["resources"][0]["uri"], "demo://r");
    let (_, answer) = ask(&full, stage, "resources/read", &json!({"uri": "demo://r"}));
    assert_eq!(answer["result"]["contents"][0]["text"], "body");
}

#[test]
fn modern_headers_must_say_what_the_body_says() {
    let call = modern_with(&json!({"name": "zeit_\u{fc}", "arguments": {}}));
    let spec =
        ServerSpec::new("s", "1").tool(Tool::new("zeit_\u{fc}", "", |_| Ok(ToolOutput::text(""))));
    let encoded = crate::protocol::header_name_value("zeit_\u{fc}");
    let good = [(headers::PROTOCOL_VERSION, MODERN), (headers::METHOD, "tools/call")];
    // header changed, to what ("" is left out), HTTP status, error code
    let cases = [
        ("", "", 200, 0),
        (headers::NAME, "", 400, -32_020),
        (headers::NAME, "other", 400, -32_020),
        (headers::METHOD, "", 400, -32_020),
        (headers::METHOD, "tools/list", 400, -32_020),
        (headers::PROTOCOL_VERSION, "", 400, -32_020),
        (headers::PROTOCOL_VERSION, "2025-11-25", 400, -32_020),
    ];
    for (changed, to, status, code) in cases {
        let mut map = HeaderMap::new();
        for (name, value) in good.into_iter().chain([(headers::NAME, encoded.as_str())]) {
            let value = if name == changed { to } else { value };
            if !value.is_empty() {
                map.insert(name, value.parse().unwrap());
            }
        }
        let (action, answer) = ask_via(&spec, Stage::Modern, Via::Http(&map), "tools/call", &call);
        assert_eq!(action.answer.unwrap().status, status, "{changed} {to}: {answer}");
        assert_eq!(answer["error"]["code"].as_i64().unwrap_or(0), code, "{changed} {to}");
    }
}

#[test]
fn modern_refusals_have_their_http_status() {
    let mut map = HeaderMap::new();
    map.insert(headers::PROTOCOL_VERSION, MODERN.parse().unwrap());
    map.insert(headers::METHOD, "ping".parse().unwrap());
    let spec = spec(Eras::Both);
    let status = |method: &str, params: &Value| {
        let (action, answer) = ask_via(&spec, Stage::Modern, Via::Http(&map), method, params);
        (action.answer.unwrap().status, answer["error"]["code"].as_i64().unwrap())
    };
    assert_eq!(status("ping", &modern(MODERN)), (404, -32_601));
    assert_eq!(status("ping", &json!({})), (400, -32_602));
    assert_eq!(status("initialize", &json!({"protocolVersion": "2025-11-25"})), (400, -32_022));
    map.insert(headers::PROTOCOL_VERSION, "2099-01-01".parse().unwrap());
    let status = |method: &str, params: &Value| {
        let (action, answer) = ask_via(&spec, Stage::Modern, Via::Http(&map), method, params);
        (action.answer.unwrap().status, answer["error"]["code"].as_i64().unwrap())
    };
    assert_eq!(status("ping", &modern("2099-01-01")), (400, -32_022));
}
