//! JSON Schema of the reports.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema as JsonSchemaOf, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::{
    Aborted, Chain, Check, CheckResult, Compare, CompareEntry, CompareStart, Diff, DiffEntry, DiffStart, Extract,
    Failed, Fields, Hash, ImageForest, Info, List, Log, LossMap, Map as DiskMap, MapEntry, MapStart, Merge, OrFailed,
    Plan, Report, Schema, Split, Verify, VerifyEntry, VerifyStart, VerifySum,
};

/// JSON Schema (draft 2020-12) of the output of each command with `--output json`, by the name of the command, and of a
/// loss map: `loss-map`.
#[must_use]
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("info", of::<OneOrMore<OrFailed<Info>>>("vhdx info: an object, or an array for several images")),
        ("map", of::<MapOutput<'_>>("vhdx map: an object with --json, an array with --output json")),
        ("extract", of::<OrFailed<Extract>>("vhdx extract")),
        ("log", of::<OrFailed<Log>>("vhdx log")),
        ("chain", of::<ChainOutput>("vhdx chain: the chain of an image, or with --tree a forest")),
        ("list", of::<List>("vhdx list: one object on each line")),
        ("hash", of::<OneOrMore<OrFailed<Hash>>>("vhdx hash: an object, or an array for several images")),
        ("verify", of::<VerifyOutput>("vhdx verify: an object with --manifest, an array with --check")),
        ("compare", of::<CompareOutput>("vhdx compare")),
        ("diff", of::<DiffOutput>("vhdx diff")),
        ("check", of::<OneOrMore<CheckResult>>("vhdx check: an object, or an array for several images")),
        ("merge", of::<MergeOutput>("vhdx merge")),
        ("plan", of::<OrFailed<Plan>>("vhdx plan")),
        ("split", of::<Split>("vhdx plan --lines: one object on each line")),
        ("loss-map", of::<LossMap>("A loss map: --loss-map")),
    ]
}

fn of<R: JsonSchema>(title: &str) -> Value {
    schema_of::<R>(title, true)
}

/// Makes the JSON Schema (draft 2020-12) of a report. If it is stamped, every document in it has the keys that the
/// command adds: the program, its version, and the time.
#[must_use]
pub fn schema_of<R: JsonSchema>(title: &str, is_stamped: bool) -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut keywords = generator.into_root_schema_for::<R>().to_value();
    forbid_null_where_absent(&mut keywords);
    join_lines(&mut keywords);
    if is_stamped {
        add_stamp(&mut keywords);
    }
    // What a reader looks for first.
    let mut schema = Map::from_iter([("$schema".to_owned(), Value::Null), ("title".to_owned(), title.into())]);
    if let Value::Object(keywords) = keywords {
        schema.extend(keywords.into_iter().filter(|(keyword, _)| keyword != "title"));
    }
    schema.into()
}

/// Adds the keys that the command adds to each document: the program, its version, and the time.
fn add_stamp(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            let is_document =
                keywords.get("properties").and_then(|properties| properties.get("schema")?.get("const")).is_some();
            if is_document {
                let stamp = [
                    ("tool", json!({ "type": "string", "description": "Name of the program." })),
                    ("version", json!({ "type": "string", "description": "Version of the program." })),
                    (
                        "time",
                        json!({ "type": "string", "format": "date-time", "description": "Start of the program." }),
                    ),
                ];
                if let Some(required) = keywords.get_mut("required").and_then(Value::as_array_mut) {
                    required.extend(stamp.iter().map(|(key, _)| Value::from(*key)));
                }
                if let Some(properties) = keywords.get_mut("properties").and_then(Value::as_object_mut) {
                    properties.extend(stamp.map(|(key, schema)| (key.to_owned(), schema)));
                }
            }
            keywords.values_mut().for_each(add_stamp);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(add_stamp),
        _ => {}
    }
}

/// Descriptions are comments of the source, whose lines end where the source's do.
fn join_lines(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            if let Some(Value::String(text)) = keywords.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            keywords.values_mut().for_each(join_lines);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(join_lines),
        _ => {}
    }
}

/// A key that may be absent is never null in a report.
fn forbid_null_where_absent(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            let required = keywords.get("required").cloned().unwrap_or_default();
            let is_required = |key: &str| required.as_array().is_some_and(|all| all.iter().any(|name| name == key));
            let properties = keywords.get_mut("properties").and_then(Value::as_object_mut);
            for (_, property) in properties.into_iter().flatten().filter(|(key, _)| !is_required(key)) {
                forbid_null(property);
            }
            keywords.values_mut().for_each(forbid_null_where_absent);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(forbid_null_where_absent),
        _ => {}
    }
}

fn forbid_null(schema: &mut Value) {
    let Some(keywords) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = keywords.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            keywords.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(any)) = keywords.get_mut("anyOf") {
        any.retain(|schema| schema.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(one)] = any.as_slice() {
            let one = one.clone();
            keywords.shift_remove("anyOf");
            keywords.extend(one);
        }
    }
}

/// What a command prints of one image or of several.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum OneOrMore<R> {
    One(R),
    More(Vec<R>),
}

/// What `vhdx map` prints.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum MapOutput<'a> {
    Document(DiskMap<'a>),
    Extents(Vec<MapEntry<'a>>),
    Aborted(MapAborted<'a>),
    Failed(Failed<DiskMap<'a>>),
}

/// A map that is not complete.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its schema is of use")]
struct MapAborted<'a> {
    #[serde(flatten)]
    start: MapStart,
    /// The extents so far, in order.
    extents: Vec<MapEntry<'a>>,
    #[serde(flatten)]
    end: Aborted,
}

/// What `vhdx compare` prints.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum CompareOutput {
    Compared(Compare),
    Aborted(CompareAborted),
    Failed(Failed<Compare>),
}

/// A comparison that was not completed.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its schema is of use")]
struct CompareAborted {
    #[serde(flatten)]
    start: CompareStart,
    /// The ranges that differ so far, in order; absent unless all were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    differences: Option<Vec<CompareEntry>>,
    #[serde(flatten)]
    end: Aborted,
}

/// What `vhdx diff` prints.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum DiffOutput {
    Listed(Diff),
    Aborted(DiffAborted),
    Failed(Failed<Diff>),
}

/// A list of changes that is not complete.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its schema is of use")]
struct DiffAborted {
    #[serde(flatten)]
    start: DiffStart,
    /// The changed ranges so far, in order.
    changes: Vec<DiffEntry>,
    #[serde(flatten)]
    end: Aborted,
}

/// What `vhdx chain` prints.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum ChainOutput {
    Chain(Chain),
    Forest(ImageForest),
    Failed(Failed<Chain>),
}

/// What `vhdx verify` prints.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum VerifyOutput {
    Manifest(VerifyResult),
    Manifests(Vec<VerifyResult>),
    Check(Vec<OrFailed<VerifySum>>),
    NoList(Failed<VerifySum>),
}

/// The comparison of an image with a manifest.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum VerifyResult {
    Verified(Verify),
    Aborted(VerifyAborted),
    Failed(Failed<Verify>),
}

/// A comparison with a manifest that was not completed.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its schema is of use")]
struct VerifyAborted {
    #[serde(flatten)]
    start: VerifyStart,
    /// The blocks that differ so far, in order, an entry for each algorithm.
    mismatches: Vec<VerifyEntry>,
    #[serde(flatten)]
    end: Aborted,
}

/// What `vhdx merge` prints.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum MergeOutput {
    Manifest(Merge),
    Digests(Hash),
    Checked(Box<Check>),
    Changes(Diff),
    Extracted(Box<Extract>),
    Failed(Failed<Merge>),
}

impl<R: Report> JsonSchema for Schema<R> {
    fn schema_name() -> Cow<'static, str> {
        R::SCHEMA.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> JsonSchemaOf {
        json_schema!({ "const": R::SCHEMA })
    }
}

impl<V: JsonSchema> JsonSchema for Fields<V> {
    fn schema_name() -> Cow<'static, str> {
        format!("Fields_of_{}", V::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> JsonSchemaOf {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<V>() })
    }
}
