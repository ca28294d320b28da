//! From findings to bytes: text for a person, JSON for a program, folded stacks and pprof for viewers.
//!
//! Comes in: a [`LedgerSnapshot`](crate::ledger::LedgerSnapshot), symbols through [`Resolve`], and what the edge
//! knows ([`Facts`]); or a saved report. Goes out: a [`model::Report`], its growth over time
//! ([`growth`]), what grew between two of them ([`diff`]), and bytes on a writer. Never: I/O of its own, symbol
//! look-ups, clocks, terminals.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::str::FromStr;

pub mod build;
pub mod diff;
mod folded;
pub mod growth;
pub mod json;
pub mod model;
mod names;
mod pprof;
mod quantity;
mod reasons;
#[cfg(test)]
mod sample;
mod site_id;
mod text;
mod trim;

pub use build::{Facts, ProcessFacts, Resolve, Resolved, build};

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// For a person.
    Text,
    /// The contract `leaktrace/1`, on one line.
    Json,
    /// `outer;…;inner bytes` lines: flamegraph.pl, inferno, speedscope.
    Folded,
    /// `profile.proto`, gzipped: `go tool pprof`, Pyroscope, Parca.
    Pprof,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Text, Self::Json, Self::Folded, Self::Pprof];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Folded => "folded",
            Self::Pprof => "pprof",
        }
    }

    /// Whether a terminal should be spared it.
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::Pprof)
    }
}

/// A format that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no format `{name}`; use one of text, json, folded, pprof")]
pub struct UnknownFormat {
    /// What was asked for.
    pub name: String,
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| UnknownFormat { name: name.to_owned() })
    }
}

/// How much of a report is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Sites of each process; `None` is ten in text and all elsewhere.
    pub top: Option<usize>,
    /// Processes in text; the others become one line.
    pub processes: usize,
    /// Frames of each site in text.
    pub frames: usize,
    /// Columns of the terminal; `None` if there is none.
    pub columns: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self { top: None, processes: 20, frames: 24, columns: None }
    }
}

impl Options {
    const TOP_IN_TEXT: usize = 10;
    /// Where there is no terminal: a log or a pager, in which lines of names would go on for ever.
    const COLUMNS: usize = 120;
    /// Below this, cut names say nothing.
    const MIN_COLUMNS: usize = 60;

    fn top_in_text(&self) -> usize {
        self.top.unwrap_or(Self::TOP_IN_TEXT)
    }

    fn columns(&self) -> usize {
        self.columns.unwrap_or(Self::COLUMNS).max(Self::MIN_COLUMNS)
    }
}

/// Writes a report. The writer need not be buffered.
pub fn write(
    report: &model::Report,
    format: Format,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    match format {
        Format::Text => text::write(report, options, &mut out)?,
        Format::Json => json::write(&limited(report, options.top), &mut out)?,
        Format::Folded => folded::write(&limited(report, options.top), &mut out)?,
        Format::Pprof => pprof::write(&limited(report, options.top), &mut out)?,
    }
    out.flush()
}

/// The report with the first `top` sites of each process. Its totals stay.
fn limited(report: &model::Report, top: Option<usize>) -> Cow<'_, model::Report> {
    match top {
        Some(top) if report.processes.iter().any(|process| process.sites.len() > top) => {
            let mut report = report.clone();
            report.processes.iter_mut().for_each(|process| process.sites.truncate(top));
            Cow::Owned(report)
        }
        _ => Cow::Borrowed(report),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_its_name_and_nothing_else_is_one() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
        }
        let error = "svg".parse::<Format>().unwrap_err();
        assert_eq!(error.to_string(), "there is no format `svg`; use one of text, json, folded, pprof");
        for format in Format::ALL {
            assert!(error.to_string().contains(format.name()));
        }
    }

    #[test]
    fn top_limits_what_a_program_reads_and_keeps_the_totals() {
        let report = sample::report();
        let mut bytes = Vec::new();
        write(&report, Format::Json, &Options { top: Some(1), ..Options::default() }, &mut bytes).unwrap();
        let read = json::read(&bytes).unwrap();
        assert!(report.processes[0].sites.len() > 1);
        assert!(read.processes.iter().all(|process| process.sites.len() <= 1));
        assert_eq!(read.processes[0].live_bytes, report.processes[0].live_bytes);
        assert_eq!(read.processes[0].sites[0], report.processes[0].sites[0]);
    }
}
