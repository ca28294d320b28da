//! Checks that need no test: formatting, clippy, and the rules of CONTRIBUTING.md that a program can check.
//!
//! Comes in: the checkout. Goes out: every finding, and an error if there is one. Never: changes a file.

mod paths;
mod rules;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::command::{run as run_command, step};
use crate::workspace;

/// Runs every check, also after one has failed.
pub fn run() -> Result<()> {
    step("formatting");
    let formatted = run_command(workspace::cargo().args(["fmt", "--all", "--check"]));
    step("clippy");
    let mut clippy = workspace::cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--keep-going", "--", "--deny", "warnings"]);
    let clean = run_command(&mut clippy);
    step("rules of CONTRIBUTING.md");
    let findings = broken_rules()?;
    for finding in &findings {
        println!("{finding}");
    }
    println!(
        "lint: formatting {}, clippy {}, {} broken rules",
        verdict(formatted.is_ok()),
        verdict(clean.is_ok()),
        findings.len()
    );
    if formatted.is_err() || clean.is_err() || !findings.is_empty() {
        bail!("lint failed");
    }
    Ok(())
}

fn verdict(passed: bool) -> &'static str {
    if passed { "ok" } else { "FAILED" }
}

fn broken_rules() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in rust_files(workspace::root())? {
        let path = file.strip_prefix(workspace::root())?;
        let source = std::fs::read_to_string(&file)?;
        findings.extend(rules::broken(path, &source));
    }
    Ok(findings)
}

/// Every Rust file of ours, in the order of their names.
fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut entries = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files.extend(rust_files(&entry.path())?);
            }
        } else if name.ends_with(".rs") {
            files.push(entry.path());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_found_and_what_was_built_is_not() {
        let directory = tempfile::tempdir().unwrap();
        for file in ["src/b.rs", "src/a.rs", "target/debug/c.rs", ".cache/d.rs", "src/e.c"] {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let expected = ["src/a.rs", "src/b.rs"].map(|file| directory.path().join(file));
        assert_eq!(rust_files(directory.path()).unwrap(), expected);
    }
}
