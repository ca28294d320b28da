//! Reads a pprof profile as its viewers do.
//!
//! Comes in: the gzipped bytes. Goes out: what a viewer would show: value types, their sums, function names. Never:
//! shares a definition with the writer under test; the fields are those of pprof's `profile.proto`.

use std::io::Read as _;

use flate2::read::GzDecoder;
use prost::Message;

/// A decoded profile.
#[derive(Debug)]
pub struct Profile(Wire);

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(message, repeated, tag = "1")]
    sample_types: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    locations: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    functions: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    strings: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    locations: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    values: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    lines: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
}

impl Profile {
    /// Of the bytes of a file.
    pub fn read(gzipped: &[u8]) -> Self {
        let mut bytes = Vec::new();
        GzDecoder::new(gzipped).read_to_end(&mut bytes).expect("a pprof file is gzipped");
        Self(Wire::decode(&bytes[..]).expect("a pprof file is a Profile message"))
    }

    /// The sum over all samples of the values of a type, such as `inuse_space`; `None` if there is no such type.
    pub fn sum(&self, kind: &str) -> Option<i64> {
        let column = self.0.sample_types.iter().position(|t| self.string(t.kind) == kind)?;
        Some(self.0.samples.iter().map(|sample| sample.values[column]).sum())
    }

    /// Names of the value types.
    pub fn value_types(&self) -> Vec<&str> {
        self.0.sample_types.iter().map(|t| self.string(t.kind)).collect()
    }

    /// The innermost function of each sample that has one.
    pub fn leaves(&self) -> Vec<&str> {
        let function = |sample: &Sample| {
            let leaf = sample.locations.first()?;
            let location = self.0.locations.iter().find(|location| location.id == *leaf)?;
            let line = location.lines.first()?;
            let function = self.0.functions.iter().find(|function| function.id == line.function)?;
            Some(self.string(function.name))
        };
        self.0.samples.iter().filter_map(function).collect()
    }

    fn string(&self, index: i64) -> &str {
        &self.0.strings[usize::try_from(index).expect("an index is not negative")]
    }
}
