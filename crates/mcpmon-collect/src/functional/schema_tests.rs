use serde_json::{Value, json};

use super::{Breach, check};

/// Values that match and values that do not.
#[track_caller]
fn table(schema: &Value, good: &[Value], bad: &[Value]) {
    for value in good {
        assert_eq!(check(schema, value), Ok(()), "{value} against {schema}");
    }
    for value in bad {
        let breach = check(schema, value);
        assert!(matches!(breach, Err(Breach::Mismatch { .. })), "{value} against {schema}");
    }
}

#[track_caller]
fn cannot_be_judged(schema: &Value, value: &Value, word: &str) {
    match check(schema, value) {
        Err(Breach::Unjudged(reason)) => assert!(reason.contains(word), "{reason}"),
        other => panic!("{other:?} of {schema}"),
    }
}

#[test]
fn types_and_values() {
    table(&json!({"type": "integer"}), &[json!(1), json!(1.0)], &[json!(1.5), json!("1")]);
    table(&json!({"type": ["string", "null"]}), &[json!("a"), json!(null)], &[json!(0)]);
    table(&json!({"enum": [1, {"a": [2]}]}), &[json!(1.0), json!({"a": [2]})], &[json!(2)]);
    table(&json!({"const": null}), &[json!(null)], &[json!(0), json!(false)]);
    table(&json!(true), &[json!(1)], &[]);
    table(&json!(false), &[], &[json!(1)]);
}

#[test]
fn numbers_and_strings() {
    let schema = json!({"minimum": 1, "exclusiveMaximum": 3, "multipleOf": 0.1});
    table(&schema, &[json!(1), json!(2.3), json!("x")], &[json!(0.9), json!(3), json!(1.25)]);
    table(&json!({"maximum": 3, "exclusiveMaximum": true}), &[json!(2)], &[json!(3)]);
    let schema = json!({"minLength": 2, "maxLength": 3, "pattern": "^[a-z\u{fc}]+$"});
    table(&schema, &[json!("\u{fc}be")], &[json!("a"), json!("ab1"), json!("abcd")]);
}

#[test]
fn objects() {
    let schema = json!({
        "required": ["a"],
        "properties": {"a": {"type": "integer"}},
        "patternProperties": {"^x-": {"type": "string"}},
        "additionalProperties": false,
        "propertyNames": {"maxLength": 3},
        "maxProperties": 2,
    });
    table(
        &schema,
        &[json!({"a": 1}), json!({"a": 1, "x-b": "c"})],
        &[
            json!({}),
            json!({"a": "1"}),
            json!({"a": 1, "b": 1}),
            json!({"a": 1, "x-b": 1}),
            json!({"a": 1, "x-long": "c"}),
            json!({"a": 1, "x-b": "c", "x-c": "c"}),
        ],
    );
    for keyword in ["dependentRequired", "dependencies"] {
        let schema = json!({(keyword): {"a": ["b"]}});
        table(&schema, &[json!({"a": 1, "b": 1}), json!({"b": 1})], &[json!({"a": 1})]);
    }
    let schema = json!({"dependentSchemas": {"a": {"required": ["b"]}}});
    table(&schema, &[json!({"a": 1, "b": 1})], &[json!({"a": 1})]);
}

#[test]
fn arrays() {
    let schema = json!({"prefixItems": [{"type": "string"}], "items": {"type": "integer"},
        "uniqueItems": true, "minItems": 1, "maxItems": 3});
    table(
        &schema,
        &[json!(["a"]), json!(["a", 1, 2])],
        &[json!([]), json!([1]), json!(["a", "b"]), json!(["a", 1, 1.0]), json!(["a", 1, 2, 3])],
    );
    let old = json!({"items": [{"type": "string"}], "additionalItems": false});
    table(&old, &[json!(["a"])], &[json!(["a", 1])]);
    let schema = json!({"contains": {"const": 1}, "maxContains": 2});
    table(&schema, &[json!([0, 1]), json!([1, 1])], &[json!([0]), json!([1, 1, 1])]);
    table(&json!({"contains": {"const": 1}, "minContains": 0}), &[json!([])], &[]);
}

#[test]
fn combinations() {
    table(&json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}), &[json!(1)], &[json!(3)]);
    let any = json!({"anyOf": [{"type": "string"}, {"minimum": 5}]});
    table(&any, &[json!("a"), json!(5)], &[json!(4)]);
    let one = json!({"oneOf": [{"type": "integer"}, {"minimum": 5}]});
    table(&one, &[json!(4), json!(5.5)], &[json!(5), json!(4.5)]);
    table(&json!({"not": {"type": "null"}}), &[json!(1)], &[json!(null)]);
    let condition =
        json!({"if": {"type": "string"}, "then": {"minLength": 1}, "else": {"const": 0}});
    table(&condition, &[json!("a"), json!(0)], &[json!(""), json!(1)]);
}

#[test]
fn references_stay_inside() {
    let tree = json!({"$defs": {"node": {"type": "object", "required": ["n"], "properties": {
            "n": {"type": "integer"}, "below": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}},
        "$ref": "#/$defs/node"});
    table(
        &tree,
        &[json!({"n": 1, "below": [{"n": 2, "below": []}]})],
        &[json!({"n": 1, "below": [{"n": 2, "below": [{}]}]})],
    );
    table(
        &json!({"$defs": {"a": {"$anchor": "x", "const": 1}}, "$ref": "#x"}),
        &[json!(1)],
        &[json!(2)],
    );
    let escaped = json!({"$defs": {"a b/c": {"const": 1}}, "$ref": "#/$defs/a%20b~1c"});
    table(&escaped, &[json!(1)], &[json!(2)]);
    for reference in ["https://evil.example/schema.json", "other.json#/x", "#/$defs/gone"] {
        cannot_be_judged(&json!({"$ref": reference}), &json!(1), "`$ref`");
    }
    // Up to draft-07 the sibling does not count.
    let sibling = |draft: &str| json!({"$schema": draft, "definitions": {"a": {}}, "$ref": "#/definitions/a", "const": 1});
    table(&sibling("http://json-schema.org/draft-07/schema#"), &[json!(2)], &[]);
    table(&sibling("https://json-schema.org/draft/2020-12/schema"), &[], &[json!(2)]);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let schema = json!({"properties": {"a/b": {"items": {"type": "integer"}}}});
    let breach = check(&schema, &json!({"a/b": [1, "x"]})).unwrap_err();
    let reason = "it is string, not \"integer\"".to_owned();
    assert_eq!(breach, Breach::Mismatch { at: "/a~1b/1".to_owned(), reason });
}

#[test]
fn a_schema_made_to_take_for_ever_is_given_up() {
    // Each level doubles the paths.
    let mut definitions = serde_json::Map::new();
    for level in 0..60 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        definitions.insert(format!("d{level}"), json!({"anyOf": [next, next]}));
    }
    definitions.insert("d60".to_owned(), json!(false));
    cannot_be_judged(&json!({"$defs": definitions, "$ref": "#/$defs/d0"}), &json!(1), "steps");
    cannot_be_judged(&json!({"$ref": "#"}), &json!(1), "round");
    let many: Vec<u32> = (0..5_000).collect();
    cannot_be_judged(&json!({"uniqueItems": true}), &json!(many), "steps");
    cannot_be_judged(&json!({"pattern": "(a{1000}){1000}"}), &json!("a"), "pattern");
    cannot_be_judged(&json!({"pattern": "(?=a)b"}), &json!("a"), "pattern");
    cannot_be_judged(&json!({"unevaluatedProperties": false}), &json!({}), "unevaluated");
    cannot_be_judged(&json!({"properties": {"a": 3}}), &json!({"a": 1}), "neither");
}
