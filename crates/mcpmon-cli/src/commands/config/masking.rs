//! Secrets that stand in a configuration as plain text, hidden where it is shown.
//!
//! People paste `config show` into bug reports. What the settings know to be a secret hides itself;
//! this hides what only its place or its name betrays: values in a pasted client's block, a
//! handler's own keys, credentials and queries in URLs.

use mcpmon_core::secret::REDACTED;
use serde_json::Value;

/// Tables of a client's entry whose values only its server may see.
const SECRET_TABLES: [&str; 5] = ["env", "envs", "environment", "headers", "http_headers"];

/// Parts of names of keys that hold secrets.
const SECRET_NAMES: [&str; 8] =
    ["password", "passwd", "secret", "token", "key", "credential", "auth", "webhook"];

/// Hides them in settings that are about to be shown.
pub(super) fn hide_secrets(settings: &mut Value) {
    mask_urls(settings);
    for server in settings.get_mut("mcpServers").into_iter().flat_map(children) {
        for table in SECRET_TABLES {
            server.get_mut(table).into_iter().flat_map(children).for_each(hide);
        }
    }
    let handlers = settings.get_mut("handlers").and_then(Value::as_array_mut);
    let handlers = handlers.into_iter().flatten();
    for handler in handlers.filter_map(Value::as_object_mut) {
        for (name, value) in handler {
            let name = name.to_ascii_lowercase();
            if SECRET_NAMES.iter().any(|part| name.contains(part)) && value.is_string() {
                hide(value);
            }
        }
    }
}

fn hide(value: &mut Value) {
    *value = Value::from(REDACTED);
}

fn children(table: &mut Value) -> impl Iterator<Item = &mut Value> {
    table.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut)
}

fn mask_urls(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(masked) = masked_url(text) {
                *text = masked;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_urls),
        Value::Object(map) => map.values_mut().for_each(mask_urls),
        _ => {}
    }
}

/// A URL without its password and query; `None` where it has neither.
fn masked_url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, format!("?{REDACTED}")),
        None => (rest, String::new()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let masked = authority.rsplit_once('@').and_then(|(user, host)| {
        let (user, _) = user.split_once(':')?;
        Some(format!("{user}:{REDACTED}@{host}"))
    });
    if masked.is_none() && query.is_empty() {
        return None;
    }
    Some(format!("{scheme}://{}{path}{query}", masked.as_deref().unwrap_or(authority)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn urls_are_shown_without_password_and_query() {
        for (url, shown) in [
            ("smtps://mon:pw@mail:465", Some("smtps://mon:***@mail:465")),
            ("https://h/mcp?token=x", Some("https://h/mcp?***")),
            ("https://a:b@h/p?q#f", Some("https://a:***@h/p?***")),
            ("https://h/mcp", None),
            ("smtps://mon@mail", None),
            ("no url", None),
        ] {
            assert_eq!(masked_url(url).as_deref(), shown, "{url}");
        }
    }

    #[test]
    fn what_a_place_or_a_name_betrays_is_hidden() {
        let mut settings = json!({
            "services": { "a": { "url": "https://u:canary1@h/mcp" } },
            "mcpServers": { "b": { "command": "y", "env": { "K": "canary2" } } },
            "handlers": [{ "name": "n", "type": "t", "api_token": "canary3", "room": "r" }],
        });
        hide_secrets(&mut settings);
        let text = settings.to_string();
        assert!(!text.contains("canary") && !text.contains("null"), "{text}");
        assert!(text.contains("\"room\":\"r\""), "{text}");
    }
}
