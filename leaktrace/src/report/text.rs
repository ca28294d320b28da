//! A report for a person at a terminal.
//!
//! Comes in: a report. Goes out: text: each process in one line, its largest sites with their frames, and at the
//! end, if there is anything to say, how far the numbers can be trusted. Never: colours, control characters of the
//! target, lines without end.

use std::io::{self, Write};

use super::model::{Completeness, Frame, Process, Report, Site, Verdict};
use super::quantity::{bytes, bytes_per_second, duration, grouped, share};
use super::site_id::file_name;
use super::{Options, names, reasons};

pub(super) fn write(report: &Report, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    heading(report, out)?;
    for process in report.processes.iter().take(options.processes) {
        writeln!(out)?;
        self::process(process, options, out)?;
    }
    let rest = report.processes.get(options.processes..).unwrap_or_default();
    if !rest.is_empty() {
        let live = rest.iter().map(|process| process.live_bytes).fold(0, u64::saturating_add);
        let noun = noun(rest.len() as u64, "process", "processes");
        writeln!(out, "\n… and {} more {noun}: {}", grouped(rest.len() as u64), exact_bytes(live))?;
    }
    completeness(&report.completeness, options.columns(), out)
}

fn heading(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let count = report.processes.len() as u64;
    if count == 0 {
        return writeln!(out, "No process was traced in {}.", duration(report.duration_ns));
    }
    let live = report.processes.iter().map(|process| process.live_bytes).fold(0, u64::saturating_add);
    let noun = noun(count, "process", "processes");
    writeln!(
        out,
        "Traced {} {noun} for {}; {} outstanding",
        grouped(count),
        duration(report.duration_ns),
        exact_bytes(live)
    )
}

fn process(process: &Process, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let exited = if process.exited { ", exited" } else { "" };
    write!(out, "{} (pid {}{exited}): ", names::printable(&process.comm), process.pid)?;
    if process.live_bytes == 0 && process.live_allocations == 0 {
        write!(out, "nothing outstanding")?;
    } else {
        write!(out, "{} outstanding in ", exact_bytes(process.live_bytes))?;
        write!(out, "{}", blocks(process.live_allocations, "allocation", "allocations"))?;
    }
    if let (Some(low), Some(high)) = (process.live_bytes_low, process.live_bytes_high)
        && low != high
    {
        write!(out, ", between {} and {} as records were lost", bytes(low), bytes(high))?;
    }
    if let Some(rss) = process.rss_bytes {
        write!(out, ", RSS {}", bytes(rss))?;
    }
    writeln!(out)?;
    sites(process, options, out)
}

fn sites(process: &Process, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let outstanding: Vec<_> = process.sites.iter().filter(|site| site.live_allocations > 0).collect();
    let (shown, rest) = outstanding.split_at(options.top_in_text().min(outstanding.len()));

    let cells: Vec<[String; 3]> = shown
        .iter()
        .enumerate()
        .map(|(at, site)| {
            [format!("#{}", at + 1), bytes(site.live_bytes), share(site.live_bytes, process.live_bytes)]
        })
        .collect();
    let widths = [0, 1, 2].map(|column| cells.iter().map(|row| row[column].len()).max().unwrap_or(0));
    for (site, [rank, size, share]) in shown.iter().zip(&cells) {
        write!(out, "\n  {rank:<0$}  {size:>1$}  {share:>2$}", widths[0], widths[1], widths[2])?;
        writeln!(out, "{}", remarks(site))?;
        writeln!(out, "      {} bytes in {} from", grouped(site.live_bytes), allocations_of(site))?;
        stack(&site.frames, site.truncated.as_deref(), options, out)?;
    }
    if !rest.is_empty() {
        let live = rest.iter().map(|site| site.live_bytes).fold(0, u64::saturating_add);
        let noun = noun(rest.len() as u64, "site", "sites");
        writeln!(out, "\n  … and {} more {noun}: {} bytes", grouped(rest.len() as u64), grouped(live))?;
    }
    Ok(())
}

/// What is known about a site beside its size.
fn remarks(site: &Site) -> String {
    let age = match site.oldest_age_ns {
        0 => String::new(),
        age => format!("  oldest {}", duration(age)),
    };
    let rate = site.growth_bytes_per_s.map(bytes_per_second);
    let verdict = match (site.verdict, rate) {
        (Verdict::Unreachable, _) => "unreachable".to_owned(),
        (Verdict::Possible, _) => "possibly unreachable".to_owned(),
        (Verdict::Growing, Some(rate)) => format!("growing {rate}"),
        (Verdict::Growing, None) => "growing".to_owned(),
        (Verdict::Stable, _) => "stable".to_owned(),
        (Verdict::Unknown, Some(rate)) => format!("{rate} so far"),
        (Verdict::Unknown, None) => return age,
    };
    format!("{age}  {verdict}")
}

fn allocations_of(site: &Site) -> String {
    let count = site.live_allocations;
    match site.kind.as_str() {
        "heap" => blocks(count, "allocation", "allocations"),
        "mmap" => blocks(count, "mapping", "mappings"),
        kind => format!("{} {kind}", grouped(count)),
    }
}

/// The frames of a site in columns: function, place, module; then why there are no more.
pub(super) fn stack(
    frames: &[Frame],
    truncated: Option<&str>,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<()> {
    const INDENT: usize = 8;
    const GAPS: usize = 6;
    const MIN_NAME: usize = 8;
    let room = options.columns() - INDENT - GAPS;
    let width = |text: &str| text.chars().count();
    let widest = |texts: &[String]| texts.iter().map(|text| width(text)).max().unwrap_or(0);
    let shown = &frames[..frames.len().min(options.frames)];
    let column = |of: &dyn Fn(&Frame) -> String| -> Vec<String> { shown.iter().map(of).collect() };

    // A module gets a quarter of the room, a place at least that and what the names do not need, a name the rest.
    let modules = column(&|frame| module(frame, room / 4));
    let module_width = widest(&modules);
    let longest_name = shown.iter().map(|frame| width(function(frame))).max().unwrap_or(0);
    let left = room.saturating_sub(module_width + longest_name.min(room / 2));
    let places = column(&|frame| names::path(&place(frame), left.max(room / 4)));
    let place_width = widest(&places);
    let left = room.saturating_sub(module_width + place_width).max(MIN_NAME);
    let names = column(&|frame| names::function(function(frame), left));
    let name_width = widest(&names);

    for ((name, place), module) in names.iter().zip(&places).zip(&modules) {
        let gap = if place_width == 0 { "" } else { "  " };
        let line = format!("{:INDENT$}{name:<name_width$}{gap}{place:<place_width$}  {module}", "");
        writeln!(out, "{}", line.trim_end())?;
    }
    let hidden = frames.len() - shown.len();
    if hidden > 0 {
        writeln!(out, "{:INDENT$}… {}", "", blocks(hidden as u64, "more frame", "more frames"))?;
    }
    let ending = match truncated {
        None => return Ok(()),
        Some("too_deep") => "the stack goes on; it is deeper than what is kept",
        Some("broken") => "the stack ends here: code without frame pointers",
        Some("unreadable") => "the stack ends here: it could not be read",
        Some("no_stack") => "an unknown call site: no stack could be taken",
        Some(other) => return writeln!(out, "{:INDENT$}({})", "", names::printable(other)),
    };
    writeln!(out, "{:INDENT$}({ending})", "")
}

fn function(frame: &Frame) -> &str {
    frame.function.as_deref().unwrap_or("??")
}

/// `file:line`, or nothing.
fn place(frame: &Frame) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        (None, _) => String::new(),
    }
}

/// `(module)`, with the offset if that is all that tells one call from another.
fn module(frame: &Frame, width: usize) -> String {
    let inlined = if frame.inlined { ", inlined" } else { "" };
    let name = names::path(file_name(&frame.module), width);
    match (frame.module.is_empty(), frame.line) {
        (true, _) => format!("({}{inlined})", frame.address),
        (false, Some(_)) => format!("({name}{inlined})"),
        (false, None) => format!("({name}+{}{inlined})", frame.offset),
    }
}

fn completeness(completeness: &Completeness, columns: usize, out: &mut dyn Write) -> io::Result<()> {
    if completeness.exact && completeness.reasons.is_empty() && completeness.warnings.is_empty() {
        return Ok(());
    }
    let exact = if completeness.exact {
        "every allocation and free since the tracing began was counted"
    } else {
        "the numbers above are not exact"
    };
    writeln!(out, "\nCompleteness: {exact}.")?;
    for text in reasons::sentences(&completeness.reasons).iter().chain(&completeness.warnings) {
        item(text, columns, out)?;
    }
    Ok(())
}

/// An item of a list, broken between words.
fn item(text: &str, columns: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut line = "  -".to_owned();
    for word in names::printable(text).split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > columns && line.len() > 3 {
            writeln!(out, "{line}")?;
            "   ".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    writeln!(out, "{line}")
}

pub(super) fn exact_bytes(count: u64) -> String {
    if count < 1024 {
        format!("{} {}", grouped(count), noun(count, "byte", "bytes"))
    } else {
        format!("{} ({} bytes)", bytes(count), grouped(count))
    }
}

pub(super) fn blocks(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), noun(count, one, many))
}

fn noun<'n>(count: u64, one: &'n str, many: &'n str) -> &'n str {
    if count == 1 { one } else { many }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn text(report: &Report, options: &Options) -> String {
        let mut bytes = Vec::new();
        write(report, options, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn golden() {
        insta::assert_snapshot!(text(&sample::report(), &Options::default()));
    }

    #[test]
    fn golden_exact_and_narrow() {
        let options = Options { columns: Some(72), ..Options::default() };
        insta::assert_snapshot!(text(&sample::exact_report(), &options));
    }

    #[test]
    fn exact_is_silent() {
        let report = sample::exact_report();
        assert!(report.completeness.exact);
        assert!(!text(&report, &Options::default()).contains("Completeness"));
    }

    #[test]
    fn every_reason_has_its_line() {
        let report = sample::report();
        let text = text(&report, &Options { columns: Some(500), ..Options::default() });
        assert!(!report.completeness.reasons.is_empty());
        let sentences = reasons::sentences(&report.completeness.reasons);
        assert_eq!(sentences.len(), report.completeness.reasons.len());
        for line in sentences.iter().chain(&report.completeness.warnings) {
            assert!(text.contains(line), "{line}");
        }
    }

    #[test]
    fn top_is_honoured_and_the_rest_is_summed() {
        let report = sample::report();
        let rest: u64 = report.processes[0].sites[1..].iter().map(|site| site.live_bytes).sum();
        let text = text(&report, &Options { top: Some(1), ..Options::default() });
        assert!(text.contains(&format!("more sites: {} bytes", grouped(rest))), "{text}");
        assert!(!text.contains("#2"), "{text}");
    }

    #[test]
    fn no_line_is_wider_than_asked() {
        let mut report = sample::report();
        for process in &mut report.processes {
            for frame in process.sites.iter_mut().flat_map(|site| &mut site.frames) {
                frame.module = format!("/opt/{}.so", "module".repeat(20));
                frame.file = Some(format!("/src/{}.c", "deep/".repeat(40)));
            }
        }
        for columns in [60, 80, 120, 200] {
            let text = text(&report, &Options { columns: Some(columns), ..Options::default() });
            for line in text.lines().filter(|line| line.starts_with("        ")) {
                assert!(line.chars().count() <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn a_long_stack_is_cut_and_says_so() {
        let text = text(&sample::report(), &Options { frames: 1, ..Options::default() });
        assert!(text.contains("more frames"), "{text}");
    }

    #[test]
    fn many_processes_become_one_line() {
        let report = sample::report();
        let text = text(&report, &Options { processes: 1, ..Options::default() });
        assert!(text.contains(&format!("… and {} more processes: ", report.processes.len() - 1)), "{text}");
    }

    #[test]
    fn the_target_cannot_write_to_the_terminal() {
        let mut report = sample::report();
        for process in &mut report.processes {
            process.comm = "\x1b]0;x\x07".into();
            for frame in process.sites.iter_mut().flat_map(|site| &mut site.frames) {
                frame.function = Some("\x1b[2J".into());
                frame.module = "/\x1b[2J".into();
                frame.file = Some("\x1b[2J".into());
            }
        }
        report.completeness.warnings.push("\x1b[2J".into());
        let text = text(&report, &Options::default());
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }

    #[test]
    fn nothing_traced_is_said() {
        let mut report = sample::exact_report();
        report.processes.clear();
        assert!(text(&report, &Options::default()).starts_with("No process was traced"));
    }
}
