//! The one model behind every report: what the JSON contract (`leaktrace/1`, kind `report`) says.
//!
//! Comes in: from the agent, or from a saved JSON file. Goes out: to the writers beside this file. Sizes in
//! bytes, times in nanoseconds; unknown is `None`, never a made-up 0. Never: computes anything.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of the JSON contract.
pub const SCHEMA: &str = "leaktrace/1";

/// A report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// `"report"`.
    pub kind: String,
    /// How long was traced.
    pub duration_ns: u64,
    /// How far the numbers can be trusted.
    pub completeness: Completeness,
    /// Traced processes, those with most outstanding bytes first.
    pub processes: Vec<Process>,
}

/// How far the numbers can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Completeness {
    /// Events that were recorded.
    pub events: u64,
    /// Records that were lost, of all reasons.
    pub lost: u64,
    /// Frees of blocks that were never seen.
    pub unmatched_frees: u64,
    /// Stacks that end before their outermost frame.
    pub truncated_stacks: u64,
    /// No record was lost, nothing was sampled, and every process was traced as asked.
    pub exact: bool,
    /// Every reason for which something was lost, truncated or unmatched, with its count; reasons that did
    /// not occur are left out.
    #[serde(default)]
    pub reasons: BTreeMap<String, u64>,
    /// What a person should know: probes that could not be attached, processes that were seen late.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A traced process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its start time, nanoseconds since boot.
    pub start_time: u64,
    /// Its name.
    pub comm: String,
    /// Its executable.
    pub exe: String,
    /// Whether it is gone.
    pub exited: bool,
    /// Resident memory; `None` once it is gone.
    pub rss_bytes: Option<u64>,
    /// Outstanding bytes.
    pub live_bytes: u64,
    /// Outstanding blocks.
    pub live_allocations: u64,
    /// All bytes ever allocated while traced.
    pub allocated_bytes: u64,
    /// All blocks ever allocated while traced.
    pub allocations: u64,
    /// With lost records, the outstanding bytes lie between these; equal to `live_bytes` without; `None` if the
    /// process lives and its share of the losses is not known yet. Low is less what the lost frees can account for
    /// at most, high is more by the lost and the untracked allocations.
    #[serde(default)]
    pub live_bytes_low: Option<u64>,
    /// The upper end.
    #[serde(default)]
    pub live_bytes_high: Option<u64>,
    /// Call sites, those with most outstanding bytes first.
    pub sites: Vec<Site>,
}

/// A call site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Hexadecimal, stable across runs of the same build.
    pub site_id: String,
    /// `heap`, `mmap`, …
    pub kind: String,
    /// Outstanding bytes.
    pub live_bytes: u64,
    /// Outstanding blocks.
    pub live_allocations: u64,
    /// All bytes ever allocated here.
    pub allocated_bytes: u64,
    /// All blocks ever allocated here.
    pub allocations: u64,
    /// Age of the oldest outstanding block, 0 if none is.
    pub oldest_age_ns: u64,
    /// Growth of the outstanding bytes; `None` if it was not observed long enough.
    pub growth_bytes_per_s: Option<f64>,
    /// What is known about it.
    pub verdict: Verdict,
    /// Why the stack has no more frames: `too_deep`, `broken`, `unreadable`, `no_stack`; `None` if it is whole.
    #[serde(default)]
    pub truncated: Option<String>,
    /// Innermost first; `frames[0]` is the caller of the allocation function.
    pub frames: Vec<Frame>,
}

/// What is known about a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A scan proved that nothing points to its blocks.
    Unreachable,
    /// A scan found only doubtful pointers.
    Possible,
    /// Its outstanding bytes grow.
    Growing,
    /// They do not.
    Stable,
    /// Not observed long enough.
    Unknown,
}

/// A frame of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Return address, `0x…`.
    pub address: String,
    /// File that the address is in; empty if none is known (JIT).
    pub module: String,
    /// Its build id, hexadecimal.
    pub build_id: Option<String>,
    /// Offset in the file, `0x…`.
    pub offset: String,
    /// Function, demangled.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line of the call.
    pub line: Option<u32>,
    /// Whether the function was inlined into the next frame's.
    pub inlined: bool,
}
