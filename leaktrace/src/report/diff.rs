//! What grew between two reports, by site.
//!
//! Comes in: two reports of the same build: of two runs, or of two moments of one. Goes out: a [`Diff`], as text or
//! JSON (kind `diff`). Never: pids: a site is the same if the comm, the kind and the site id are, and the processes
//! of one comm are summed, so that two runs can be compared.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use serde::{Deserialize, Serialize};

use super::model::{Frame, Report, SCHEMA, Site};
use super::quantity::{bytes, signed, signed_bytes};
use super::{Options, json, names, text};

/// The difference of two reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diff {
    /// [`SCHEMA`].
    pub schema: String,
    /// `"diff"`.
    pub kind: String,
    /// The first report.
    pub before: Side,
    /// The second report.
    pub after: Side,
    /// Sites whose outstanding bytes or blocks differ, those that grew most first.
    pub sites: Vec<Change>,
}

/// One of the two reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// How long was traced.
    pub duration_ns: u64,
    /// Whether its numbers are exact.
    pub exact: bool,
    /// Outstanding bytes of all its processes.
    pub live_bytes: u64,
    /// Outstanding blocks of all its processes.
    pub live_allocations: u64,
}

/// A site that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Name of the processes.
    pub comm: String,
    /// `heap`, `mmap`, …
    pub kind: String,
    /// As in the reports.
    pub site_id: String,
    /// Outstanding before; 0 if the site was not there.
    pub live_bytes_before: u64,
    /// Outstanding after.
    pub live_bytes_after: u64,
    /// Blocks before.
    pub live_allocations_before: u64,
    /// Blocks after.
    pub live_allocations_after: u64,
    /// After less before.
    pub live_bytes_change: i64,
    /// After less before.
    pub live_allocations_change: i64,
    /// Why the stack has no more frames, as in the reports.
    #[serde(default)]
    pub truncated: Option<String>,
    /// Innermost first, of the second report if it has the site.
    pub frames: Vec<Frame>,
}

/// What grew from `before` to `after`.
pub fn diff(before: &Report, after: &Report) -> Diff {
    let (old, new) = (sites(before), sites(after));
    let mut changes: Vec<_> = old
        .keys()
        .chain(new.keys().filter(|key| !old.contains_key(*key)))
        .filter_map(|key| change(key, old.get(key), new.get(key)))
        .collect();
    changes.sort_by(|a, b| {
        let grown = (b.live_bytes_change, b.live_allocations_change)
            .cmp(&(a.live_bytes_change, a.live_allocations_change));
        grown.then_with(|| (&a.comm, &a.kind, &a.site_id).cmp(&(&b.comm, &b.kind, &b.site_id)))
    });
    Diff {
        schema: SCHEMA.to_owned(),
        kind: "diff".to_owned(),
        before: side(before),
        after: side(after),
        sites: changes,
    }
}

/// Comm, kind, site id.
type Key<'r> = (&'r str, &'r str, &'r str);

/// The processes of one comm together.
struct Summed<'r> {
    bytes: u64,
    allocations: u64,
    site: &'r Site,
}

fn sites(report: &Report) -> BTreeMap<Key<'_>, Summed<'_>> {
    let mut sites = BTreeMap::new();
    for process in &report.processes {
        for site in &process.sites {
            let key = (process.comm.as_str(), site.kind.as_str(), site.site_id.as_str());
            let sum = sites.entry(key).or_insert(Summed { bytes: 0, allocations: 0, site });
            sum.bytes = sum.bytes.saturating_add(site.live_bytes);
            sum.allocations = sum.allocations.saturating_add(site.live_allocations);
        }
    }
    sites
}

fn change(key: &Key<'_>, before: Option<&Summed<'_>>, after: Option<&Summed<'_>>) -> Option<Change> {
    let site = after.or(before)?.site;
    let amount = |sum: Option<&Summed<'_>>| sum.map_or((0, 0), |sum| (sum.bytes, sum.allocations));
    let ((bytes_before, allocations_before), (bytes_after, allocations_after)) =
        (amount(before), amount(after));
    if (bytes_before, allocations_before) == (bytes_after, allocations_after) {
        return None;
    }
    Some(Change {
        comm: key.0.to_owned(),
        kind: key.1.to_owned(),
        site_id: key.2.to_owned(),
        live_bytes_before: bytes_before,
        live_bytes_after: bytes_after,
        live_allocations_before: allocations_before,
        live_allocations_after: allocations_after,
        live_bytes_change: difference(bytes_before, bytes_after),
        live_allocations_change: difference(allocations_before, allocations_after),
        truncated: site.truncated.clone(),
        frames: site.frames.clone(),
    })
}

fn side(report: &Report) -> Side {
    let sum =
        |of: fn(&super::model::Process) -> u64| report.processes.iter().map(of).fold(0, u64::saturating_add);
    Side {
        duration_ns: report.duration_ns,
        exact: report.completeness.exact,
        live_bytes: sum(|process| process.live_bytes),
        live_allocations: sum(|process| process.live_allocations),
    }
}

fn difference(before: u64, after: u64) -> i64 {
    i64::try_from(i128::from(after) - i128::from(before)).unwrap_or(if after > before {
        i64::MAX
    } else {
        i64::MIN
    })
}

/// Writes the difference on one line of JSON.
pub fn write_json(diff: &Diff, out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    json::document(diff, &mut out)?;
    out.flush()
}

/// Writes for a person: what grew with its frames, what shrank as a sum.
pub fn write_text(diff: &Diff, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    let (before, after) = (diff.before.live_bytes, diff.after.live_bytes);
    let total = difference(before, after);
    writeln!(
        out,
        "Outstanding: {} before, {} after: {} ({} bytes)",
        bytes(before),
        bytes(after),
        signed_bytes(total),
        signed(total)
    )?;
    let (grown, rest): (Vec<_>, Vec<_>) = diff.sites.iter().partition(|site| site.live_bytes_change > 0);
    let (shown, more) = grown.split_at(options.top_in_text().min(grown.len()));
    for (at, site) in shown.iter().enumerate() {
        write_change(at + 1, site, options, &mut out)?;
    }
    writeln!(out)?;
    if grown.is_empty() {
        writeln!(out, "  No site grew.")?;
    }
    let sum =
        |sites: &[&Change]| sites.iter().map(|site| site.live_bytes_change).fold(0, i64::saturating_add);
    if !more.is_empty() {
        let sites = text::blocks(more.len() as u64, "more site", "more sites");
        writeln!(out, "  … and {sites} grew: {} bytes", signed(sum(more)))?;
    }
    let shrunk: Vec<_> = rest.into_iter().filter(|site| site.live_bytes_change < 0).collect();
    if !shrunk.is_empty() {
        let sites = text::blocks(shrunk.len() as u64, "site", "sites");
        writeln!(out, "  {sites} shrank: {} bytes", signed(sum(&shrunk)))?;
    }
    for (name, side) in [("first", diff.before), ("second", diff.after)] {
        if !side.exact {
            writeln!(out, "  The {name} report is not exact; what it says about that is at its end.")?;
        }
    }
    out.flush()
}

fn write_change(rank: usize, site: &Change, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let from = if site.live_allocations_before == 0 {
        "new".to_owned()
    } else {
        format!("{} before", bytes(site.live_bytes_before))
    };
    let comm = names::printable(&site.comm);
    writeln!(out, "\n  #{rank}  {}  {from}  {comm}", signed_bytes(site.live_bytes_change))?;
    let (one, many) =
        if site.kind == "mmap" { ("mapping", "mappings") } else { ("allocation", "allocations") };
    let count = site.live_allocations_change.unsigned_abs();
    let blocks = match site.live_allocations_change {
        0 => format!("the same number of {many}"),
        1.. => text::blocks(count, &format!("more {one}"), &format!("more {many}")),
        _ => text::blocks(count, &format!("fewer {one}"), &format!("fewer {many}")),
    };
    writeln!(out, "      {} bytes in {blocks} from", signed(site.live_bytes_change))?;
    text::stack(&site.frames, site.truncated.as_deref(), options, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn text(diff: &Diff, options: &Options) -> String {
        let mut bytes = Vec::new();
        write_text(diff, options, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// The second run: other pids, one site that grew, one that is new, one that is gone.
    fn two_runs() -> (Report, Report) {
        let before = sample::report();
        let mut after = before.clone();
        for process in &mut after.processes {
            process.pid += 1000;
            process.start_time += 77;
        }
        let redis = &mut after.processes[0];
        redis.sites[0].live_bytes += 512 * 1024;
        redis.sites[0].live_allocations += 512;
        let mut new = redis.sites[1].clone();
        new.site_id = "00000000000000aa".into();
        (new.live_bytes, new.live_allocations) = (3000, 1);
        redis.live_bytes = redis.live_bytes + 512 * 1024 + 3000 - redis.sites[2].live_bytes;
        redis.live_allocations += 512 + 1 - redis.sites[2].live_allocations;
        redis.sites.remove(2);
        redis.sites.push(new);
        (before, after)
    }

    #[test]
    fn what_grew_comes_first_and_what_is_the_same_is_left_out() {
        let (before, after) = two_runs();
        let diff = diff(&before, &after);
        let gone = before.processes[0].sites[2].live_bytes as i64;
        let changes: Vec<_> = diff.sites.iter().map(|site| site.live_bytes_change).collect();
        assert_eq!(changes, [512 * 1024, 3000, -gone]);
        assert_eq!(diff.sites[0].live_allocations_change, 512);
        assert_eq!((diff.sites[1].live_bytes_before, diff.sites[1].live_bytes_after), (0, 3000));
        assert_eq!(diff.sites[2].live_bytes_after, 0);
        let total = difference(diff.before.live_bytes, diff.after.live_bytes);
        assert_eq!(total, changes.iter().sum::<i64>());
    }

    #[test]
    fn a_report_does_not_differ_from_itself() {
        let report = sample::report();
        let diff = diff(&report, &report);
        assert!(diff.sites.is_empty());
        assert!(text(&diff, &Options::default()).contains("No site grew."));
    }

    #[test]
    fn processes_of_one_comm_are_one() {
        let mut before = sample::report();
        before.processes.truncate(1);
        let mut after = before.clone();
        after.processes.push(before.processes[0].clone());
        after.processes[1].pid += 1;
        let diff = diff(&before, &after);
        for change in &diff.sites {
            assert_eq!(change.live_bytes_after, 2 * change.live_bytes_before, "{}", change.site_id);
        }
        let outstanding = before.processes[0].sites.iter().filter(|site| site.live_allocations > 0).count();
        assert_eq!(diff.sites.len(), outstanding);

        after.processes[1].comm = "other".into();
        assert!(
            super::diff(&before, &after)
                .sites
                .iter()
                .all(|change| change.comm == "other" && change.live_bytes_before == 0),
            "another comm is another program"
        );
    }

    #[test]
    fn golden_text() {
        let (before, after) = two_runs();
        insta::assert_snapshot!(text(&diff(&before, &after), &Options::default()));
    }

    #[test]
    fn top_is_honoured() {
        let (before, after) = two_runs();
        let text = text(&diff(&before, &after), &Options { top: Some(1), ..Options::default() });
        assert!(text.contains("… and 1 more site grew: +3,000 bytes"), "{text}");
    }

    #[test]
    fn json_is_one_line_and_comes_back() {
        let (before, after) = two_runs();
        let diff = diff(&before, &after);
        let mut bytes = Vec::new();
        write_json(&diff, &mut bytes).unwrap();
        assert_eq!(bytes.iter().position(|byte| *byte == b'\n'), Some(bytes.len() - 1));
        assert_eq!(serde_json::from_slice::<Diff>(&bytes).unwrap(), diff);
    }

    #[test]
    fn differences_do_not_wrap() {
        assert_eq!(difference(0, u64::MAX), i64::MAX);
        assert_eq!(difference(u64::MAX, 0), i64::MIN);
        assert_eq!(difference(5, 3), -2);
    }
}
