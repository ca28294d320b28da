//! pprof: a gzipped `profile.proto` with the sample types of Go's heap profile.
//!
//! Comes in: a report. Goes out: bytes that `go tool pprof`, Pyroscope, Parca and speedscope read; two profiles of
//! one build can be compared (`-base`). Never: an address of the target where a file's offset is known, so that the
//! same code is the same location in every process; a time of day.
//!
//! Messages are after <https://github.com/google/pprof/blob/main/proto/profile.proto>; fields that are not written
//! are left out.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Write};

use flate2::{Compression, GzBuilder};
use prost::Message;

use super::model::{Frame, Report, Site};
use super::reasons;
use super::site_id::hexadecimal;

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
    #[prost(int64, tag = "3")]
    num: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
#[expect(clippy::struct_excessive_bools, reason = "the message has them")]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(int64, tag = "6")]
    build_id: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// What every mapping spans: all offsets of a file. The same in every profile, as pprof takes a mapping of another
/// size for another file.
const MAPPING_LIMIT: u64 = 1 << 47;

pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    // No name and no time in the header: the same report is the same bytes.
    let mut gzip = GzBuilder::new().mtime(0).write(out, Compression::default());
    gzip.write_all(&profile(report).encode_to_vec())?;
    gzip.finish()?;
    Ok(())
}

fn profile(report: &Report) -> Profile {
    let mut builder = Builder::default();
    builder.strings.number(String::new());
    let types = [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ];
    builder.profile.sample_type = types.map(|(name, unit)| builder.value_type(name, unit)).to_vec();
    builder.profile.default_sample_type = builder.string("inuse_space");
    builder.profile.period_type = Some(builder.value_type("space", "bytes"));
    builder.profile.period = 1;
    builder.profile.duration_nanos = signed(report.duration_ns);
    let completeness = &report.completeness;
    for comment in reasons::sentences(&completeness.reasons).iter().chain(&completeness.warnings) {
        let comment = builder.string(comment);
        builder.profile.comment.push(comment);
    }
    for process in &report.processes {
        for site in &process.sites {
            builder.sample(site, &process.comm, process.pid);
        }
    }
    builder.profile.string_table = builder.strings.in_order;
    builder.profile
}

/// Numbers values in the order of their first use.
#[derive(Debug)]
struct Numbered<T> {
    numbers: HashMap<T, usize>,
    in_order: Vec<T>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), in_order: Vec::new() }
    }
}

impl<T: Hash + Eq + Clone> Numbered<T> {
    /// Its number, from 0, and whether it is new.
    fn number(&mut self, value: T) -> (usize, bool) {
        if let Some(number) = self.numbers.get(&value) {
            return (*number, false);
        }
        self.numbers.insert(value.clone(), self.in_order.len());
        self.in_order.push(value);
        (self.in_order.len() - 1, true)
    }
}

/// Fills a profile. Ids are numbers plus one: 0 is none.
#[derive(Debug, Default)]
struct Builder {
    profile: Profile,
    strings: Numbered<String>,
    /// By file and build id.
    mappings: Numbered<(String, String)>,
    /// By name and source file.
    functions: Numbered<(i64, i64)>,
    /// By mapping, address and lines.
    locations: Numbered<(u64, u64, Vec<Line>)>,
}

impl Builder {
    fn string(&mut self, text: &str) -> i64 {
        self.strings.number(text.to_owned()).0 as i64
    }

    fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType { r#type: self.string(name), unit: self.string(unit) }
    }

    fn sample(&mut self, site: &Site, comm: &str, pid: u32) {
        let value = [site.allocations, site.allocated_bytes, site.live_allocations, site.live_bytes];
        if value.iter().all(|value| *value == 0) {
            return;
        }
        let mut location_id = Vec::with_capacity(site.frames.len());
        for frames in physical(&site.frames) {
            location_id.push(self.location(frames));
        }
        if location_id.is_empty() {
            location_id.push(self.unknown());
        }
        let label = vec![
            Label { key: self.string("comm"), str: self.string(comm), num: 0 },
            Label { key: self.string("pid"), str: 0, num: i64::from(pid) },
            Label { key: self.string("kind"), str: self.string(&site.kind), num: 0 },
        ];
        self.profile.sample.push(Sample { location_id, value: value.map(signed).to_vec(), label });
    }

    /// The location of one return address: its function, after those inlined into it.
    fn location(&mut self, frames: &[Frame]) -> u64 {
        let frame = &frames[frames.len() - 1];
        let mapping_id = self.mapping(frames);
        let address = if mapping_id == 0 { &frame.address } else { &frame.offset };
        let address = hexadecimal(address).unwrap_or(0);
        let line = frames.iter().filter_map(|frame| {
            let function = frame.function.as_deref()?;
            Some(self.line(function, frame.file.as_deref(), frame.line))
        });
        let line = line.collect();
        self.numbered_location(mapping_id, address, line)
    }

    /// Where there is no stack: viewers leave out samples that are nowhere.
    fn unknown(&mut self) -> u64 {
        let line = self.line("[unknown]", None, None);
        self.numbered_location(0, 0, vec![line])
    }

    fn numbered_location(&mut self, mapping_id: u64, address: u64, line: Vec<Line>) -> u64 {
        let (number, new) = self.locations.number((mapping_id, address, line.clone()));
        let id = number as u64 + 1;
        if new {
            self.profile.location.push(Location { id, mapping_id, address, line });
        }
        id
    }

    fn line(&mut self, function: &str, file: Option<&str>, line: Option<u32>) -> Line {
        let name = self.string(function);
        let filename = self.string(file.unwrap_or(""));
        let (number, new) = self.functions.number((name, filename));
        let function_id = number as u64 + 1;
        if new {
            self.profile.function.push(Function { id: function_id, name, system_name: name, filename });
        }
        Line { function_id, line: i64::from(line.unwrap_or(0)) }
    }

    fn mapping(&mut self, frames: &[Frame]) -> u64 {
        let frame = &frames[0];
        if frame.module.is_empty() {
            return 0;
        }
        let build_id = frame.build_id.as_deref().unwrap_or("");
        let (number, new) = self.mappings.number((frame.module.clone(), build_id.to_owned()));
        let id = number as u64 + 1;
        if new {
            let mapping = Mapping {
                id,
                memory_limit: MAPPING_LIMIT,
                filename: self.string(&frame.module),
                build_id: self.string(build_id),
                ..Mapping::default()
            };
            self.profile.mapping.push(mapping);
        }
        // What one frame of a file has, pprof need not look for.
        let mapping = &mut self.profile.mapping[number];
        mapping.has_functions |= frames.iter().any(|frame| frame.function.is_some());
        mapping.has_filenames |= frames.iter().any(|frame| frame.file.is_some());
        mapping.has_line_numbers |= frames.iter().any(|frame| frame.line.is_some());
        mapping.has_inline_frames |= frames.iter().any(|frame| frame.inlined);
        id
    }
}

/// The frames of each return address: inlined ones, then the one that they are inlined into.
fn physical(frames: &[Frame]) -> impl Iterator<Item = &[Frame]> {
    frames.split_inclusive(|frame| !frame.inlined)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io::Read;

    use super::*;
    use crate::report::sample;

    fn decoded(report: &Report) -> Profile {
        let mut bytes = Vec::new();
        write(report, &mut bytes).unwrap();
        let mut raw = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut raw).unwrap();
        Profile::decode(&raw[..]).unwrap()
    }

    /// The profile with its numbers resolved.
    fn readable(profile: &Profile) -> String {
        let string = |number: i64| &profile.string_table[number as usize];
        let mut text = String::new();
        for kind in &profile.sample_type {
            write!(text, "{}/{} ", string(kind.r#type), string(kind.unit)).unwrap();
        }
        writeln!(text, "default {}", string(profile.default_sample_type)).unwrap();
        writeln!(text, "duration {}", profile.duration_nanos).unwrap();
        for comment in &profile.comment {
            writeln!(text, "# {}", string(*comment)).unwrap();
        }
        for sample in &profile.sample {
            write!(text, "{:?}", sample.value).unwrap();
            for label in &sample.label {
                write!(text, " {}={}", string(label.key), string(label.str)).unwrap();
                write!(text, "{}", if label.str == 0 { label.num.to_string() } else { String::new() })
                    .unwrap();
            }
            writeln!(text, " at {:?}", sample.location_id).unwrap();
        }
        for location in &profile.location {
            write!(text, "{} {:#x} in {}:", location.id, location.address, location.mapping_id).unwrap();
            for line in &location.line {
                let function = &profile.function[line.function_id as usize - 1];
                assert_eq!(function.id, line.function_id);
                write!(text, " {} {}:{};", string(function.name), string(function.filename), line.line)
                    .unwrap();
            }
            writeln!(text).unwrap();
        }
        for mapping in &profile.mapping {
            writeln!(
                text,
                "{} {} {} functions {} files {} lines {} inlined {}",
                mapping.id,
                string(mapping.filename),
                string(mapping.build_id),
                mapping.has_functions,
                mapping.has_filenames,
                mapping.has_line_numbers,
                mapping.has_inline_frames
            )
            .unwrap();
        }
        text
    }

    #[test]
    fn golden() {
        insta::assert_snapshot!(readable(&decoded(&sample::report())));
    }

    #[test]
    fn is_a_valid_profile() {
        let profile = decoded(&sample::report());
        assert_eq!(profile.string_table[0], "", "as the format demands");
        for (at, location) in profile.location.iter().enumerate() {
            assert_eq!(location.id, at as u64 + 1);
            assert!(location.mapping_id as usize <= profile.mapping.len());
            assert!(location.address < MAPPING_LIMIT);
        }
        for sample in &profile.sample {
            assert_eq!(sample.value.len(), profile.sample_type.len());
            assert!(sample.location_id.iter().all(|id| (1..=profile.location.len() as u64).contains(id)));
        }
    }

    #[test]
    fn the_values_add_up() {
        let report = sample::report();
        let profile = decoded(&report);
        let sum = |at: usize| profile.sample.iter().map(|sample| sample.value[at] as u64).sum::<u64>();
        let total =
            |of: fn(&crate::report::model::Process) -> u64| report.processes.iter().map(of).sum::<u64>();
        assert_eq!(sum(0), total(|process| process.allocations));
        assert_eq!(sum(1), total(|process| process.allocated_bytes));
        assert_eq!(sum(2), total(|process| process.live_allocations));
        assert_eq!(sum(3), total(|process| process.live_bytes));
    }

    #[test]
    fn the_same_report_is_the_same_bytes() {
        let bytes = || {
            let mut bytes = Vec::new();
            write(&sample::report(), &mut bytes).unwrap();
            bytes
        };
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn inlined_frames_are_lines_of_one_location() {
        let report = sample::report();
        let inlined = report.processes.iter().flat_map(|process| &process.sites);
        let inlined = inlined.flat_map(|site| &site.frames).filter(|frame| frame.inlined).count();
        assert!(inlined > 0);
        let profile = decoded(&report);
        assert!(profile.location.iter().any(|location| location.line.len() > 1));
    }
}
