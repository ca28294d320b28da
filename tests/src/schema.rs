//! The JSON contract as a schema.
//!
//! Comes in: a document that leaktrace wrote. Goes out: nothing if it is valid, a panic that lists what is not.
//! Never: a judgement of the numbers in it.

use std::path::Path;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::Value;

/// Where the schema is published.
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/leaktrace-1.schema.json");

/// Compares a document with the schema, once the repository has one.
pub fn assert_valid(document: &Value) {
    static VALIDATOR: OnceLock<Option<Validator>> = OnceLock::new();
    let Some(validator) = VALIDATOR.get_or_init(load) else { return };
    let wrong: Vec<String> =
        validator.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "the document breaks its schema:\n{}", wrong.join("\n"));
}

fn load() -> Option<Validator> {
    let path = Path::new(SCHEMA);
    if !path.exists() {
        return None;
    }
    let text = std::fs::read_to_string(path).expect("the schema can be read");
    let schema = serde_json::from_str(&text).expect("the schema is JSON");
    Some(jsonschema::validator_for(&schema).expect("the schema is a JSON schema"))
}
