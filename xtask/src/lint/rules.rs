//! The rules of CONTRIBUTING.md that one file can break.
//!
//! Comes in: a file's path from the workspace's root, and its text. Goes out: a line for each broken rule.
//! Never: reads a file.

use std::path::Path;

use proc_macro2::TokenStream;

use super::paths::{NamedPath, named_in};

/// Lines that a file may have before its tests.
const LONGEST: usize = 400;
/// Names that say nothing about what a module holds.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "helper", "helpers", "manager", "data", "misc"];
/// Stages of `leaktrace/src` without I/O, clock and threads.
const PURE: [&str; 4] = ["decode", "event", "ledger", "report"];
/// What a pure stage must not name.
const IMPURE: [&[&str]; 8] = [
    &["std", "env"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["tokio"],
];
/// Stages of `leaktrace/src` that may name aya.
const KERNEL_EDGE: [&str; 2] = ["probe", "transport"];
/// The crates that reach into the kernel.
const AYA: [&[&str]; 3] = [&["aya"], &["aya_obj"], &["aya_log"]];

/// Every rule that the file breaks.
pub fn broken(path: &Path, source: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if !source.starts_with("//!") {
        broken.push(format!("{}:1: does not open with a `//!` text", path.display()));
    }
    for name in path.with_extension("").iter().filter_map(|name| name.to_str()) {
        if EMPTY_NAMES.contains(&name) {
            broken.push(format!("{}:1: the name `{name}` does not say what it holds", path.display()));
        }
    }
    if is_test(path) {
        return broken;
    }
    let lines = source.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
    if lines > LONGEST {
        broken.push(format!(
            "{}:{lines}: {lines} lines before its tests, {LONGEST} are enough",
            path.display()
        ));
    }
    broken.extend(broken_layers(path, source));
    broken
}

fn broken_layers(path: &Path, source: &str) -> Vec<String> {
    let Some(stage) = stage(path) else { return Vec::new() };
    let mut forbidden: Vec<(&[&str], String)> = Vec::new();
    if PURE.contains(&stage) {
        let reason = format!("in `{stage}`, which is pure: no I/O, no clock, no threads");
        forbidden.extend(IMPURE.map(|path| (path, reason.clone())));
    }
    if !KERNEL_EDGE.contains(&stage) {
        let reason = format!("outside {}", KERNEL_EDGE.map(|stage| format!("`{stage}`")).join(" and "));
        forbidden.extend(AYA.map(|path| (path, reason.clone())));
    }
    let tokens: TokenStream = match source.parse() {
        Ok(tokens) => tokens,
        Err(error) => return vec![format!("{}: is not Rust: {error}", path.display())],
    };
    let mut broken = Vec::new();
    for named in named_in(tokens) {
        for (_, reason) in forbidden.iter().filter(|(path, _)| reaches(&named, path)) {
            let name = named.names.join("::");
            broken.push(format!("{}:{}: `{name}` {reason}", path.display(), named.line));
        }
    }
    broken
}

/// Whether a file holds the tests of the module beside it.
fn is_test(path: &Path) -> bool {
    path.with_extension("").iter().skip(1).any(|name| name == "tests")
}

/// The stage that a file of the library belongs to: `ledger` for `leaktrace/src/ledger/table.rs`.
fn stage(path: &Path) -> Option<&str> {
    let path = path.strip_prefix("leaktrace/src").ok()?;
    path.iter().next()?.to_str().map(|name| name.trim_end_matches(".rs"))
}

/// Whether a path as written leads into `forbidden`: to it, below it, or over it by a glob.
fn reaches(named: &NamedPath, forbidden: &[&str]) -> bool {
    let names: Vec<_> = named.names.iter().map(String::as_str).collect();
    match names.split_last() {
        Some((&"*", parents)) => forbidden.starts_with(parents) || parents.starts_with(forbidden),
        _ => names.starts_with(forbidden),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str, source: &str) -> Vec<String> {
        broken(Path::new(path), &format!("//! A file.\n{source}"))
    }

    #[test]
    fn a_good_file_breaks_nothing() {
        assert_eq!(at("leaktrace/src/ledger/table.rs", "use std::time::Duration;"), [""; 0]);
    }

    #[test]
    fn a_file_opens_with_its_text() {
        assert!(broken(Path::new("a.rs"), "use std::fs;")[0].contains("//!"));
    }

    #[test]
    fn tests_do_not_make_a_file_long() {
        let line = "const A: u8 = 0;\n";
        assert_eq!(at("a.rs", &line.repeat(399)), [""; 0]);
        assert!(at("a.rs", &line.repeat(400))[0].contains("401 lines"));
        assert_eq!(at("a.rs", &format!("#[cfg(test)]\nmod tests {{\n{}}}", line.repeat(500))), [""; 0]);
    }

    #[test]
    fn tests_in_a_file_of_their_own_are_tests() {
        let source = "use std::fs;\n".repeat(500);
        assert_eq!(at("leaktrace/src/ledger/tests.rs", &source), [""; 0]);
        assert_eq!(at("leaktrace/src/ledger/tests/exits.rs", &source), [""; 0]);
        assert!(at("tests/src/oracle.rs", &source)[0].contains("501 lines"));
        assert!(broken(Path::new("leaktrace/src/ledger/tests.rs"), &source)[0].contains("//!"));
    }

    #[test]
    fn an_empty_name_is_refused_for_files_and_directories() {
        assert_eq!(at("leaktrace/src/utils.rs", "").len(), 1);
        assert_eq!(at("leaktrace/src/helper/mod.rs", "").len(), 1);
        assert_eq!(at("leaktrace/src/utilisation.rs", "").len(), 0);
    }

    #[test]
    fn a_pure_stage_has_no_files_clock_or_threads() {
        let source = "use std::{fs, time::*};\nfn f() { std::thread::yield_now(); tokio::spawn(g()); }";
        let found = at("leaktrace/src/ledger.rs", source);
        for name in ["std::fs", "std::time::*", "std::thread::yield_now", "tokio::spawn"] {
            assert!(found.iter().any(|line| line.contains(&format!("`{name}`"))), "{name}: {found:?}");
        }
        assert_eq!(at("leaktrace/src/agent/mod.rs", source), [""; 0]);
        assert_eq!(at("xtask/src/report.rs", source), [""; 0]);
    }

    #[test]
    fn aya_stays_at_the_kernels_edge() {
        assert_eq!(at("leaktrace/src/agent.rs", "use aya::maps::RingBuf;").len(), 1);
        assert_eq!(at("leaktrace/src/probe/attach.rs", "use aya::maps::RingBuf;"), [""; 0]);
        assert_eq!(at("leaktrace/src/agent.rs", "// aya::maps\nfn f() { ayame::g(); }"), [""; 0]);
    }
}
