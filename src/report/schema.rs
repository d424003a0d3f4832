//! JSON Schema of the reports.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema as JsonSchemaOf, SchemaGenerator, json_schema};
use serde_json::Value;

use super::{
    Chain, CheckResult, Compare, Diff, Fields, Hash, Info, Log, LossMap, MapEntry, Merge, Report, Schema, Verify,
    VerifySum,
};

/// JSON Schema (draft 2020-12) of what each command prints with `--output json`, by the name of the command, and of a loss map:
/// `loss-map`.
#[must_use]
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("info", of::<OneOrMore<Info>>("vhdx info: an object, or an array for several images")),
        ("map", of::<Vec<MapEntry<'_>>>("vhdx map")),
        ("log", of::<Log>("vhdx log")),
        ("chain", of::<Chain>("vhdx chain")),
        ("hash", of::<OneOrMore<Hash>>("vhdx hash: an object, or an array for several images")),
        ("verify", of::<VerifyOutput>("vhdx verify: an object with --manifest, an array with --check")),
        ("compare", of::<Compare>("vhdx compare")),
        ("diff", of::<Diff>("vhdx diff")),
        ("check", of::<OneOrMore<CheckResult>>("vhdx check: an object, or an array for several images")),
        ("merge", of::<MergeOutput>("vhdx merge")),
        ("loss-map", of::<LossMap>("A loss map: --loss-map")),
    ]
}

fn of<R: JsonSchema>(title: &str) -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<R>();
    schema.insert("title".to_owned(), title.into());
    schema.into()
}

/// What a command prints of one image or of several.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum OneOrMore<R> {
    One(R),
    More(Vec<R>),
}

/// What `vhdx verify` prints.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum VerifyOutput {
    Manifest(Verify),
    Check(Vec<VerifySum>),
}

/// What `vhdx merge` prints.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
enum MergeOutput {
    Manifest(Merge),
    Digests(Hash),
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
