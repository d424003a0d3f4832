//! JSON that the command prints is as its schema says: every test that parses JSON asks here.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};
use vhdx_mmap::report;

use crate::support::{root, run, vhdx};

/// The schemas by name, as `docs/schema` has them, but without room for unknown keys.
static VALIDATORS: LazyLock<BTreeMap<&'static str, Validator>> = LazyLock::new(|| {
    let validator = |(name, mut schema)| {
        forbid_other_keys(&mut schema);
        (name, jsonschema::validator_for(&schema).unwrap())
    };
    all().map(validator).collect()
});

/// The schemas of images and of files in them.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, Value)> {
    report::schemas().into_iter().chain(vhdx_files::report::schemas())
}

/// Readers ignore keys that they do not know. Tests do not: a key that the schema lacks is a mistake.
fn forbid_other_keys(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            if keywords.contains_key("properties") && !keywords.contains_key("additionalProperties") {
                keywords.insert("additionalProperties".to_owned(), false.into());
            }
            keywords.values_mut().for_each(forbid_other_keys);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(forbid_other_keys),
        _ => {}
    }
}

/// The schema of the command that these arguments name.
pub(crate) fn of_command(command: &Command) -> Option<&'static str> {
    command.get_args().find_map(|arg| VALIDATORS.keys().copied().find(|name| arg == *name))
}

/// The schema that a report names in itself.
fn of_value(value: &Value) -> Option<&str> {
    value["schema"].as_str()?.strip_prefix("vhdx-mmap/")?.split('/').next()
}

#[track_caller]
pub(crate) fn assert_valid(schema: Option<&str>, value: &Value) {
    let name = schema.or_else(|| of_value(value)).unwrap_or("of any name");
    let validator = VALIDATORS.get(name);
    assert!(validator.is_some(), "no schema {name} for {value:#}");
    let errors: Vec<String> =
        validator.unwrap().iter_errors(value).map(|error| format!("{} at {}", error, error.instance_path())).collect();
    assert!(errors.is_empty(), "not as docs/schema/{name}.json says: {errors:#?}\n{value:#}");
}

fn is_valid(name: &str, value: &Value) -> bool {
    VALIDATORS[name].is_valid(value)
}

/// A document without one of its values, for each of them; and with a value of another type.
fn wrong(value: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    let mut add = |key: Value, change: &dyn Fn(&mut Value)| {
        let mut copy = value.clone();
        change(&mut copy);
        all.push(json!([key, copy]));
    };
    for key in value.as_object().unwrap().keys() {
        add(key.as_str().into(), &|copy| drop(copy.as_object_mut().unwrap().shift_remove(key)));
        add(key.as_str().into(), &|copy| copy[key] = json!([["another type"]]));
    }
    add("added".into(), &|copy| copy["added"] = true.into());
    add("schema".into(), &|copy| copy["schema"] = "vhdx-mmap/another/1".into());
    all
}

#[test]
fn validation_rejects_wrong_documents() {
    let image = root().join("tests/images/hello.vhdx");
    for command in ["info", "log", "chain", "hash", "check", "compare"] {
        let mut ran = vhdx([command, "--output", "json"]);
        let value = run(ran.arg(&image).args((command == "compare").then_some(&image))).done().json();
        assert!(is_valid(command, &value), "{command}");
        for copy in wrong(&value) {
            // Parts of a hash that were not asked for are absent.
            let may_be_absent = command == "hash" && copy[1].get("range").is_none() | copy[1].get("disk").is_none();
            assert!(may_be_absent || !is_valid(command, &copy[1]), "{command}: {copy:#}");
        }
    }
    let map = run(vhdx(["map", "--output", "json"]).arg(&image)).done().json();
    assert!(is_valid("map", &map));
    for (key, wrong) in
        [("start", json!(-1)), ("present", json!(0)), ("state", json!("PRESENT")), ("depth", json!(null))]
    {
        let mut copy = map.clone();
        copy[0][key] = wrong;
        assert!(!is_valid("map", &copy), "{key}");
    }
    // Deep inside.
    let info = run(vhdx(["info", "--output", "json"]).arg(&image)).done().json();
    let mut copy = info.clone();
    copy["format-specific"]["data"]["log"]["state"] = "dirty".into();
    assert!(!is_valid("info", &copy));
    let mut copy = info;
    copy["format-specific"]["data"]["header"]["added"] = 1.into();
    assert!(!is_valid("info", &copy));
}

#[test]
fn every_command_with_json_has_a_schema() {
    let help = run(&mut vhdx(["--help"])).done().text();
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut with_json: Vec<String> = Vec::new();
    for command in commands.filter_map(|line| line.split_whitespace().next()).filter(|command| *command != "help") {
        if run(&mut vhdx([command, "--help"])).done().text().contains("json>") {
            with_json.push(command.to_owned());
        }
    }
    with_json.extend(["loss-map", "diff-files", "plan", "split"].map(str::to_owned));
    with_json.sort();
    assert_eq!(with_json, VALIDATORS.keys().copied().collect::<Vec<_>>());
}
