//! The JSON contract: one document on one line.
//!
//! Comes in: a report, or the bytes of a saved one. Goes out: bytes, or a report. Never: a document of another
//! schema taken for one of ours; fields that this version does not know are ignored.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use super::model::{Report, SCHEMA};

/// Why bytes are not a report.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing in it.
    #[error(
        "the file is empty; was the run that wrote it killed? save a report with `--format json --output FILE`"
    )]
    Empty,
    /// Some other file.
    #[error(
        "this is not JSON (line {line}, column {column}: {source}); only what `--format json` wrote can be read"
    )]
    NotJson {
        /// Where JSON ends, from 1.
        line: usize,
        /// The same.
        column: usize,
        /// What the parser met.
        source: serde_json::Error,
    },
    /// A compressed file, which a pprof profile is as well.
    #[error(
        "this is a gzip file, perhaps a pprof profile: open that with `go tool pprof`; a compressed report has to be \
         unpacked first (`gunzip`)"
    )]
    Compressed,
    /// It stops in the middle.
    #[error(
        "the file ends in the middle of the document, after {bytes} bytes: it is truncated; save it again"
    )]
    Truncated {
        /// Its length.
        bytes: usize,
    },
    /// Several documents in one file.
    #[error(
        "the file holds more than one document: `--interval` writes one per line; pick one (`tail -n 1` for the last)"
    )]
    Several,
    /// JSON, but not ours or of another version.
    #[error(
        "the file's schema is {found}, this leaktrace reads `{SCHEMA}`; read it with the version that wrote it, or \
         trace again"
    )]
    WrongSchema {
        /// What it says, or that it says nothing.
        found: String,
    },
    /// A document of ours that is no report.
    #[error(
        "this is a document of kind `{found}`, not a report; `run` and `check` write reports with `--format json`"
    )]
    WrongKind {
        /// What it is.
        found: String,
    },
    /// A report with a field missing or of another type.
    #[error("the report is damaged (line {line}, column {column}: {source}); save it again")]
    Damaged {
        /// Where, from 1.
        line: usize,
        /// The same.
        column: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// What tells documents apart.
#[derive(Deserialize)]
struct Heading {
    schema: Option<serde_json::Value>,
    kind: Option<serde_json::Value>,
}

/// Writes a report on one line.
pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    document(report, out)
}

/// Writes any document of the contract on one line, in many small writes.
pub(super) fn document(document: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, document)?;
    writeln!(out)
}

/// Reads a report.
pub fn read(bytes: &[u8]) -> Result<Report, ReadError> {
    let heading = heading(bytes)?;
    let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match heading.schema.map(text) {
        Some(schema) if schema == SCHEMA => {}
        Some(schema) => return Err(ReadError::WrongSchema { found: format!("`{schema}`") }),
        None => return Err(ReadError::WrongSchema { found: "not given".to_owned() }),
    }
    match heading.kind.map(text) {
        Some(kind) if kind == "report" => {}
        kind => return Err(ReadError::WrongKind { found: kind.unwrap_or_else(|| "none".to_owned()) }),
    }
    serde_json::from_slice(bytes).map_err(|source| ReadError::Damaged {
        line: source.line(),
        column: source.column(),
        source,
    })
}

/// Reads the first document far enough to know what it is, and all of the file far enough to know that it is JSON.
fn heading(bytes: &[u8]) -> Result<Heading, ReadError> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    if bytes.starts_with(GZIP) {
        return Err(ReadError::Compressed);
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ReadError::Empty);
    }
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<Heading>();
    let heading = match documents.next() {
        Some(Ok(heading)) => heading,
        None => return Err(ReadError::Empty),
        Some(Err(source)) => {
            return Err(match source.classify() {
                Category::Eof => ReadError::Truncated { bytes: bytes.len() },
                // Whatever is JSON but no object has no schema.
                Category::Data => ReadError::WrongSchema { found: "not given".to_owned() },
                Category::Syntax | Category::Io => {
                    ReadError::NotJson { line: source.line(), column: source.column(), source }
                }
            });
        }
    };
    let rest = &bytes[documents.byte_offset()..];
    if rest.iter().all(u8::is_ascii_whitespace) { Ok(heading) } else { Err(ReadError::Several) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::report::diff::diff;
    use crate::report::model::{Completeness, Frame, Process, Site, Verdict};
    use crate::report::sample;

    fn bytes(report: &Report) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(report, &mut bytes).unwrap();
        bytes
    }

    fn value(report: &Report) -> Value {
        serde_json::from_slice(&bytes(report)).unwrap()
    }

    fn schema() -> Value {
        serde_json::from_str(include_str!("../../../docs/leaktrace-1.schema.json")).unwrap()
    }

    /// The schema without room for fields that it does not name.
    fn closed(mut schema: Value) -> Value {
        match &mut schema {
            Value::Object(members) => {
                if members.contains_key("properties") && !members.contains_key("oneOf") {
                    members.insert("additionalProperties".into(), false.into());
                }
                members.values_mut().for_each(|member| *member = closed(member.take()));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| *item = closed(item.take())),
            _ => {}
        }
        schema
    }

    fn scan() -> Value {
        json!({
            "schema": "leaktrace/1", "kind": "scan", "pid": 12, "mode": "live", "pause_ns": 1_000_000,
            "scanned_bytes": 4096, "blocks": 3,
            "definite": { "bytes": 64, "blocks": 2 }, "possible": { "bytes": 0, "blocks": 0 },
            "leaks": [{
                "verdict": "definite", "why": null, "bytes": 64, "blocks": 2, "direct_blocks": 1,
                "indirect_blocks": 1, "site_id": null, "type_hint": null, "sample_address": "0x55d0", "frames": []
            }],
            "skipped": [{ "what": "[vvar]", "why": "cannot be read" }]
        })
    }

    #[test]
    fn golden() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&sample::report()).unwrap());
    }

    #[test]
    fn a_document_is_one_line() {
        let bytes = bytes(&sample::report());
        assert_eq!(bytes.iter().position(|byte| *byte == b'\n'), Some(bytes.len() - 1));
    }

    #[test]
    fn documents_are_as_the_schema_says_and_it_names_all_of_their_fields() {
        jsonschema::meta::validate(&schema()).unwrap();
        let validator = jsonschema::validator_for(&closed(schema())).unwrap();
        let (report, exact) = (sample::report(), sample::exact_report());
        let mut check = value(&exact);
        check["scan"] = scan();
        let diff = serde_json::to_value(diff(&exact, &report)).unwrap();
        for document in [value(&report), value(&exact), check, scan(), diff] {
            let errors: Vec<_> = validator
                .iter_errors(&document)
                .map(|error| format!("{error} at {}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{}: {errors:#?}", document["kind"]);
        }
    }

    #[test]
    fn the_schema_refuses_what_is_broken() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let good = value(&sample::report());
        assert!(validator.is_valid(&good));
        let mut added = good.clone();
        added["of_a_later_version"] = 1.into();
        assert!(validator.is_valid(&added), "fields may be added");

        for (pointer, bad) in [
            ("/schema", json!("leaktrace/2")),
            ("/kind", json!("scan")),
            ("/kind", json!("other")),
            ("/duration_ns", json!(-1)),
            ("/duration_ns", json!("30s")),
            ("/completeness/exact", json!(null)),
            ("/completeness/reasons/ring_full_alloc", json!(0)),
            ("/processes/0/pid", json!(4_294_967_296_u64)),
            ("/processes/0/live_bytes", json!(1.5)),
            ("/processes/0/sites/0/site_id", json!("0xABC")),
            ("/processes/0/sites/0/verdict", json!("leak")),
            ("/processes/0/sites/0/truncated", json!("tired")),
            ("/processes/0/sites/0/frames/0/address", json!(4096)),
            ("/processes/0/sites/0/frames/0/address", json!("4096")),
            ("/processes/0/sites/0/frames/0/inlined", json!("no")),
        ] {
            let mut broken = good.clone();
            *broken.pointer_mut(pointer).unwrap() = bad.clone();
            assert!(!validator.is_valid(&broken), "{pointer} = {bad}");
        }
        for (parent, field) in [
            ("", "completeness"),
            ("/completeness", "lost"),
            ("/processes/0", "exited"),
            ("/processes/0/sites/0", "growth_bytes_per_s"),
            ("/processes/0/sites/0/frames/0", "build_id"),
        ] {
            let mut broken = good.clone();
            broken.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field).unwrap();
            assert!(!validator.is_valid(&broken), "{parent} without {field}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_why_and_what_to_do() {
        let good = bytes(&sample::report());
        let changed = |pointer: &str, to: Value| {
            let mut document = value(&sample::report());
            *document.pointer_mut(pointer).unwrap() = to;
            read(&serde_json::to_vec(&document).unwrap()).unwrap_err()
        };
        let twice = [good.clone(), good.clone()].concat();
        let scan = serde_json::to_vec(&scan()).unwrap();
        let half = &good[..good.len() / 2];

        assert!(matches!(read(b" \n").unwrap_err(), ReadError::Empty));
        assert!(matches!(read(b"Traced 1 process").unwrap_err(), ReadError::NotJson { line: 1, .. }));
        assert!(matches!(read(b"\x1f\x8b\x08").unwrap_err(), ReadError::Compressed));
        assert!(matches!(read(half).unwrap_err(), ReadError::Truncated { bytes } if bytes == half.len()));
        assert!(matches!(read(&twice).unwrap_err(), ReadError::Several));
        assert!(matches!(read(b"[1, 2]").unwrap_err(), ReadError::WrongSchema { .. }));
        assert!(matches!(read(b"17").unwrap_err(), ReadError::WrongSchema { .. }));
        assert!(matches!(read(b"{}").unwrap_err(), ReadError::WrongSchema { .. }));
        assert!(
            matches!(changed("/schema", json!("leaktrace/2")), ReadError::WrongSchema { found } if found.contains("leaktrace/2"))
        );
        assert!(matches!(changed("/schema", json!(7)), ReadError::WrongSchema { .. }));
        assert!(matches!(read(&scan).unwrap_err(), ReadError::WrongKind { found } if found == "scan"));
        assert!(matches!(changed("/duration_ns", json!("long")), ReadError::Damaged { line: 1, .. }));
        let error = changed("/processes/0/sites/0", json!({})).to_string();
        assert!(error.contains("missing field"), "{error}");
    }

    #[test]
    fn fields_of_later_versions_are_ignored() {
        let mut document = value(&sample::exact_report());
        document["scan"] = scan();
        document["processes"][0]["cgroup"] = "/x".into();
        assert_eq!(read(&serde_json::to_vec(&document).unwrap()).unwrap(), sample::exact_report());
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let text = || proptest::option::of(".{0,8}");
        (any::<u64>(), ".{0,8}", text(), text(), text(), any::<Option<u32>>(), any::<bool>()).prop_map(
            |(address, module, build_id, function, file, line, inlined)| Frame {
                address: format!("{address:#x}"),
                module,
                build_id,
                offset: format!("{:#x}", address / 3),
                function,
                file,
                line,
                inlined,
            },
        )
    }

    fn verdict() -> impl Strategy<Value = Verdict> {
        use Verdict::{Growing, Possible, Stable, Unknown, Unreachable};
        proptest::sample::select(vec![Unreachable, Possible, Growing, Stable, Unknown])
    }

    fn site() -> impl Strategy<Value = Site> {
        let frames = proptest::collection::vec(frame(), 0..3);
        // Slopes come in thousandths.
        let growth = proptest::option::of(any::<i32>().prop_map(|growth| f64::from(growth) / 1e3));
        (any::<[u64; 6]>(), growth, verdict(), proptest::option::of("[a-z]{1,5}"), frames).prop_map(
            |(numbers, growth_bytes_per_s, verdict, truncated, frames)| Site {
                site_id: format!("{:016x}", numbers[0]),
                kind: "heap".into(),
                live_bytes: numbers[1],
                live_allocations: numbers[2],
                allocated_bytes: numbers[3],
                allocations: numbers[4],
                oldest_age_ns: numbers[5],
                growth_bytes_per_s,
                verdict,
                truncated,
                frames,
            },
        )
    }

    fn process() -> impl Strategy<Value = Process> {
        let sites = proptest::collection::vec(site(), 0..3);
        let unsure = any::<[Option<u64>; 3]>();
        (any::<u32>(), ".{0,15}", ".{0,20}", any::<bool>(), any::<[u64; 5]>(), unsure, sites).prop_map(
            |(pid, comm, exe, exited, numbers, unsure, sites)| Process {
                pid,
                start_time: numbers[0],
                comm,
                exe,
                exited,
                rss_bytes: unsure[0],
                live_bytes: numbers[1],
                live_allocations: numbers[2],
                allocated_bytes: numbers[3],
                allocations: numbers[4],
                live_bytes_low: unsure[1],
                live_bytes_high: unsure[2],
                sites,
            },
        )
    }

    fn report() -> impl Strategy<Value = Report> {
        let reasons = proptest::collection::btree_map("[a-z_]{1,9}", 1..u64::MAX, 0..4);
        let warnings = proptest::collection::vec(".{0,20}", 0..3);
        let processes = proptest::collection::vec(process(), 0..3);
        (any::<[u64; 5]>(), any::<bool>(), reasons, warnings, processes).prop_map(
            |(numbers, exact, reasons, warnings, processes)| Report {
                schema: SCHEMA.into(),
                kind: "report".into(),
                duration_ns: numbers[0],
                completeness: Completeness {
                    events: numbers[1],
                    lost: numbers[2],
                    unmatched_frees: numbers[3],
                    truncated_stacks: numbers[4],
                    exact,
                    reasons,
                    warnings,
                },
                processes,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(report in report()) {
            prop_assert_eq!(read(&bytes(&report)).unwrap(), report);
        }

        #[test]
        fn a_cut_report_is_a_truncated_one(cut in 1usize..5000) {
            let bytes = bytes(&sample::report());
            // Without the line break at the end it is still whole.
            let cut = cut.min(bytes.len() - 2);
            prop_assert!(matches!(read(&bytes[..cut]), Err(ReadError::Truncated { .. })), "{}", cut);
        }
    }
}
