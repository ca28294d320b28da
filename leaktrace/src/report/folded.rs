//! Folded stacks: `process;outer;…;inner bytes`, one line per path.
//!
//! Comes in: a report. Goes out: outstanding bytes by path, in alphabetical order. Never: sites without anything
//! outstanding; a `;`, a line break or another control character inside a name, as viewers would take the name for
//! two.
//!
//! The first name is `comm-pid`. A stack that was cut is under `[truncated]`, so that its outermost frame is not
//! taken for the program's. Memory that is not from the heap ends in its kind (`[mmap]`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::model::{Frame, Process, Report, Site};
use super::site_id::file_name;

pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut paths: BTreeMap<String, u64> = BTreeMap::new();
    for process in &report.processes {
        for site in process.sites.iter().filter(|site| site.live_bytes > 0) {
            let bytes = paths.entry(path(process, site)).or_default();
            *bytes = bytes.saturating_add(site.live_bytes);
        }
    }
    for (path, bytes) in paths {
        writeln!(out, "{path} {bytes}")?;
    }
    Ok(())
}

fn path(process: &Process, site: &Site) -> String {
    let mut path = String::new();
    add(&mut path, &format!("{}-{}", process.comm, process.pid));
    if site.frames.is_empty() {
        add(&mut path, "[unknown]");
    } else if site.truncated.is_some() {
        add(&mut path, "[truncated]");
    }
    for frame in site.frames.iter().rev() {
        add(&mut path, &name(frame));
    }
    if site.kind != "heap" {
        add(&mut path, &format!("[{}]", site.kind));
    }
    path
}

fn name(frame: &Frame) -> String {
    match &frame.function {
        Some(function) => function.clone(),
        None if frame.module.is_empty() => format!("[{}]", frame.address),
        None => format!("[{}+{}]", file_name(&frame.module), frame.offset),
    }
}

/// Appends a name as flamegraph.pl's collapsers do: `;` becomes `:`.
fn add(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push(';');
    }
    for character in name.chars() {
        match character {
            ';' => path.push(':'),
            character if character.is_control() => {
                write!(path, "{}", character.escape_default()).expect("a string takes everything");
            }
            character => path.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn folded(report: &Report) -> String {
        let mut bytes = Vec::new();
        write(report, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn golden() {
        insta::assert_snapshot!(folded(&sample::report()));
    }

    #[test]
    fn the_bytes_add_up() {
        let report = sample::report();
        let sum: u64 =
            folded(&report).lines().map(|l| l.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum();
        assert_eq!(sum, report.processes.iter().map(|process| process.live_bytes).sum::<u64>());
    }

    #[test]
    fn names_cannot_break_the_format() {
        let mut report = sample::report();
        report.processes.truncate(1);
        report.processes[0].sites.truncate(1);
        report.processes[0].comm = "a;b\nc 1".into();
        report.processes[0].sites[0].frames[0].function = Some("<[u8; 4]>::f\r\n".into());
        let text = folded(&report);
        assert_eq!(text.lines().count(), 1);
        assert!(text.starts_with("a:b\\nc 1-"), "{text}");
        assert!(text.contains("<[u8: 4]>::f\\r\\n "), "{text}");
    }
}
