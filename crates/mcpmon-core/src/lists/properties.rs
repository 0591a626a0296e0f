//! Properties of the canonical form over generated lists: another way of writing is the same, any
//! edit is another, and a comparison agrees with the hashes.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::canonical::normalized;
use super::tests::read;
use super::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,6}", "[ae\u{301}\u{e9} \t\r\n.]{0,8}"]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![text().prop_map(Value::from), (-3..3_i64).prop_map(Value::from), Just(Value::Null)]
}

/// A set, its members in the order of their texts and each of them once.
fn set_of(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-d]", values, 0..4)
        .prop_map(|values| values.into_values().collect::<Vec<_>>())
        .prop_map(|mut values| {
            values.sort_by_key(Value::to_string);
            values.dedup();
            Value::from(values)
        })
}

fn schema() -> impl Strategy<Value = Value> {
    let names = || set_of("[a-d]".prop_map(Value::from));
    let leaf = (text(), names(), set_of(scalar()), scalar(), scalar());
    let leaf = leaf.prop_map(|(text, required, values, default, constant)| {
        json!({
            "description": text, "required": required, "enum": values, "default": default,
            "const": constant, "type": ["null", "string"],
        })
    });
    leaf.prop_recursive(3, 12, 3, |inner| {
        let named = proptest::collection::btree_map(
            prop_oneof!["[a-d]", Just("required".to_owned()), Just("default".to_owned())],
            inner.clone(),
            0..3,
        );
        let several = proptest::collection::vec(inner, 0..3);
        (named, several, text()).prop_map(|(named, several, text)| {
            let properties: Map<String, Value> = named.into_iter().collect();
            json!({"properties": properties, "anyOf": several, "title": text})
        })
    })
}

fn definition() -> impl Strategy<Value = Value> {
    (text(), schema(), proptest::option::of(any::<bool>())).prop_map(|(text, schema, hint)| {
        json!({
            "description": text,
            "inputSchema": schema,
            "annotations": {"readOnlyHint": hint},
            "arguments": [{"name": "a"}, {"name": "b"}],
        })
    })
}

/// Items of all kinds, with names that may occur twice.
fn items() -> impl Strategy<Value = Vec<(ListKind, Value)>> {
    let kind = prop_oneof![
        Just(ListKind::Tools),
        Just(ListKind::Prompts),
        Just(ListKind::Resources),
        Just(ListKind::ResourceTemplates),
    ];
    let item = (kind, "[a-c]", definition()).prop_map(|(kind, name, mut definition)| {
        definition[kind.key()] = name.into();
        (kind, definition)
    });
    proptest::collection::vec(item, 0..5)
}

/// The same written in another way: keys and sets turned round, sets with a repetition, prose
/// decomposed and with other line ends, integers as floats.
fn rewritten(value: &Value, at: &str, in_schema: bool) -> Value {
    let is_verbatim = in_schema && matches!(at, "default" | "const" | "examples" | "enum");
    match value {
        Value::Object(fields) => {
            let is_schema = in_schema && !matches!(at, "default" | "const" | "examples");
            let are_names = is_schema && matches!(at, "properties");
            let fields = fields.iter().rev().map(|(key, value)| {
                let starts = matches!(key.as_str(), "inputSchema" | "outputSchema");
                let at = if are_names { "" } else { key };
                (key.clone(), rewritten(value, at, is_schema || starts))
            });
            Value::Object(fields.collect())
        }
        Value::Array(items) => {
            let is_set = in_schema && matches!(at, "required" | "enum" | "type");
            let items = items.iter().map(|item| match is_set {
                true => item.clone(),
                false => rewritten(item, "", in_schema && at == "anyOf"),
            });
            if is_set {
                let again = items.clone().take(1);
                items.rev().chain(again).collect()
            } else {
                items.collect()
            }
        }
        Value::Number(number) => {
            number.as_i64().map_or_else(|| value.clone(), |whole| json!(whole as f64))
        }
        Value::String(text) if matches!(at, "description" | "title") && !is_verbatim => {
            use unicode_normalization::UnicodeNormalization as _;
            let text: String = text.nfd().collect();
            Value::from(format!("{} \r\n", text.replace('\n', "\r\n")))
        }
        _ => value.clone(),
    }
}

/// Every place of a value where one edit changes what it means, each edited.
fn edited(value: &Value) -> Vec<Value> {
    let mut out = Vec::new();
    match value {
        Value::Object(fields) => {
            for (key, field) in fields.iter().filter(|(_, field)| !field.is_null()) {
                for edit in edited(field) {
                    let mut fields = fields.clone();
                    fields[key] = edit;
                    out.push(Value::Object(fields));
                }
            }
        }
        Value::Array(items) => {
            let mut more = items.clone();
            more.push(json!("not there before"));
            out.push(Value::from(more));
            for (at, item) in items.iter().enumerate() {
                for edit in edited(item) {
                    let mut items = items.clone();
                    items[at] = edit;
                    out.push(Value::from(items));
                }
            }
        }
        Value::String(text) => out.push(Value::from(format!("{text}!"))),
        Value::Number(number) => out.push(json!(number.as_i64().unwrap_or_default() + 100)),
        Value::Bool(is_set) => out.push(Value::from(!is_set)),
        Value::Null => out.push(json!(0)),
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn another_way_of_writing_is_the_same(
        items in items(), turn in 0..5_usize, instructions in proptest::option::of(text()),
    ) {
        let first = read(&items, instructions.as_deref());
        let mut again: Vec<_> = items
            .iter()
            .map(|(kind, definition)| (*kind, rewritten(definition, "", false)))
            .collect();
        if !again.is_empty() {
            let turn = turn % again.len();
            again.rotate_left(turn);
        }
        let crlf = instructions.map(|text| format!("{}\r\n", text.replace('\n', "\r\n")));
        let again = read(&again, crlf.as_deref());
        prop_assert_eq!(&first.hash, &again.hash, "{:?}\n{:?}", first, again);
        prop_assert!(diff(&first, &again).is_empty());
    }

    #[test]
    fn any_edit_is_another(items in items(), instructions in text()) {
        let first = read(&items, Some(&instructions));
        for (at, (kind, definition)) in items.iter().enumerate() {
            for edit in edited(definition) {
                let mut edits = items.clone();
                edits[at] = (*kind, edit);
                let other = read(&edits, Some(&instructions));
                prop_assert_ne!(&first.hash, &other.hash, "{:?}", edits[at]);
                prop_assert!(!diff(&first, &other).is_empty());
            }
        }
        let other = read(&items, Some(&format!("{instructions}!")));
        prop_assert_ne!(&first.hash, &other.hash);
        prop_assert!(diff(&first, &other).instructions_changed);
    }

    #[test]
    fn lists_differ_exactly_if_their_hashes_do(
        before in items(), after in items(), shared in items(),
        texts in (proptest::option::of(text()), proptest::option::of(text())),
    ) {
        let whole = |own: &[(ListKind, Value)]| [own, &shared].concat();
        let before = read(&whole(&before), texts.0.as_deref());
        let after = read(&whole(&after), texts.1.as_deref());
        prop_assert_eq!(diff(&before, &after).is_empty(), before.hash == after.hash);
        let same = read(&shared, None);
        prop_assert!(diff(&same, &read(&shared, None)).is_empty());
        let kept = ListParts::of_lists(&Lists { parts: None, ..before.clone() });
        prop_assert_eq!((Some(kept), kept.hash()), (before.parts, before.hash));
    }

    #[test]
    fn prose_is_normalised_once_and_for_all(text in "[ae\u{301}\u{e9}\u{212a} \t\r\n.]{0,12}") {
        let once = normalized(&text).into_owned();
        let again = normalized(&once);
        prop_assert_eq!(again.as_ref(), once.as_str());
    }
}
