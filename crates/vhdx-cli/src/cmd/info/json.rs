//! JSON output of `vhdx info`: the keys of qemu-img first, everything else under `format-specific`.

use serde_json::{Map, Value, json};
use vhdx_mmap::ops::{DiskLayout, Partition};
use vhdx_mmap::{LogState, ParentLocator};

use super::{Facts, block_counts};

pub(super) fn value(facts: &Facts<'_>) -> Value {
    let image = facts.layer.image();
    let filename = facts.path.to_string_lossy();
    let mut value = json!({
        "virtual-size": image.virtual_disk_size(),
        "filename": filename,
        "cluster-size": image.block_size(),
        "format": "vhdx",
        "actual-size": facts.actual_size,
        "dirty-flag": image.header().is_dirty(),
        "children": [{
            "name": "file",
            "info": {
                "children": [],
                "virtual-size": image.source().len(),
                "filename": filename,
                "format": "file",
                "actual-size": facts.actual_size,
                "format-specific": { "type": "file", "data": {} },
                "dirty-flag": false,
            },
        }],
    });
    let locator = image.parent_locator();
    if let (Some(keys), Ok(Some(locator))) = (value.as_object_mut(), &locator) {
        keys.insert("backing-filename".to_owned(), locator.name().into());
        if let Some(parent) = &facts.parent {
            keys.insert("full-backing-filename".to_owned(), parent.to_string_lossy().into());
        }
        keys.insert("backing-filename-format".to_owned(), "vhdx".into());
    }
    let data = data(facts, locator.ok().flatten().as_ref());
    if let Some(keys) = value.as_object_mut() {
        keys.insert("format-specific".to_owned(), json!({ "type": "vhdx", "data": data }));
    }
    value
}

fn data(facts: &Facts<'_>, locator: Option<&ParentLocator>) -> Value {
    let image = facts.layer.image();
    let header = image.header();
    let regions: Vec<Value> = image
        .regions()
        .iter()
        .map(|region| {
            json!({
                "guid": region.guid,
                "offset": region.offset,
                "length": region.len,
                "required": region.required,
            })
        })
        .collect();
    let states = facts.blocks.as_ref().map(|blocks| {
        block_counts(blocks).into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect::<Map<_, Value>>()
    });
    let warnings: Vec<Value> = facts
        .layer
        .warnings()
        .map(|warning| {
            json!({
                "code": warning.rule.code(),
                "severity": warning.severity.as_str(),
                "text": warning.detail.to_string(),
            })
        })
        .collect();
    json!({
        "schema": 1,
        "kind": image.kind().as_str(),
        "file-length": image.source().len(),
        "logical-sector-size": image.logical_sector_size(),
        "physical-sector-size": image.physical_sector_size(),
        "virtual-disk-id": image.virtual_disk_id(),
        "creator": image.creator(),
        "header": {
            "copy": header.copy,
            "sequence-number": header.sequence_number,
            "version": header.version,
            "file-write-guid": header.file_write_guid,
            "data-write-guid": header.data_write_guid,
        },
        "log": log(facts),
        "region-table": { "copy": image.region_table_copy(), "regions": regions },
        "blocks": { "total": image.payload_blocks(), "states": states },
        "parent": locator.map(|locator| parent(locator, facts)),
        "chain": facts.chain.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
        "contents": facts.contents.as_ref().map(|contents| match contents {
            Ok(contents) => contents_value(contents),
            Err(error) => json!({ "error": facts.why_unknown(error).to_string() }),
        }),
        "warnings": warnings,
    })
}

fn log(facts: &Facts<'_>) -> Value {
    let image = facts.layer.image();
    let header = image.header();
    let (state, entries) = match image.log_state() {
        LogState::Clean => ("clean", 0),
        LogState::Replayed(replay) => ("replayed", replay.entries),
        LogState::Ignored => ("ignored", 0),
    };
    json!({
        "state": state,
        "guid": header.log_guid,
        "version": header.log_version,
        "offset": header.log_offset,
        "length": header.log_length,
        "entries-replayed": entries,
        "file-length-after": image.file_len(),
    })
}

fn parent(locator: &ParentLocator, facts: &Facts<'_>) -> Value {
    let entries: Map<String, Value> =
        locator.entries.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    json!({
        "locator": entries,
        "filename": facts.parent.as_ref().map(|path| path.to_string_lossy()),
        "error": facts.broken.map(ToString::to_string),
    })
}

fn contents_value(contents: &DiskLayout) -> Value {
    let partition = |partition: &Partition| {
        json!({
            "number": partition.number,
            "start": partition.start,
            "length": partition.length,
            "type": partition.kind,
            "name": partition.name,
            "holds": partition.volume.map(|volume| volume.as_str()),
        })
    };
    json!({
        "partition-table": contents.partition_table.as_ref().map(|table| json!({
            "scheme": table.scheme.as_str(),
            "sector-size": table.sector_size,
            "is-backup": table.is_backup,
            "is-protected": table.is_protected,
            "partitions": table.partitions.iter().map(partition).collect::<Vec<_>>(),
        })),
        "holds": contents.volume.map(|volume| volume.as_str()),
    })
}
