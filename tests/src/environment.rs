//! What the machine must have for a test, and what happens when it has not.
//!
//! Comes in: what a test needs. Goes out: whether it can run; if not, the reason on stderr, past the capture of
//! the test runner. Never: a silent skip where `LEAKTRACE_REQUIRE_ROOT=1` or `LEAKTRACE_REQUIRE_TOOLS=1` (CI)
//! forbids it: that is a failure.

//!
//! `LEAKTRACE_ONLY_BUILD=FILE`: tests build their fixtures, whose paths go to the file, and end; for a machine without
//! compilers. `LEAKTRACE_TIMEOUT_FACTOR=N`: how much longer than usual to wait, for a slow machine.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Whether the test may trace.
pub fn root() -> bool {
    !only_builds()
        && (rustix::process::geteuid().is_root() || skip("LEAKTRACE_REQUIRE_ROOT", "tracing needs root"))
}

/// Whether tests end when their fixtures are built.
pub fn only_builds() -> bool {
    std::env::var_os("LEAKTRACE_ONLY_BUILD").is_some()
}

/// Notes a fixture that is built. One line, so that tests side by side don't mix theirs.
pub fn note_built(program: &Path) {
    let list = std::env::var_os("LEAKTRACE_ONLY_BUILD").expect("tests only build");
    let mut list = File::options().append(true).create(true).open(list).expect("the list can be written");
    list.write_all(format!("{}\n", program.display()).as_bytes()).expect("the list can be written");
}

/// How long to wait here for what takes so long on a fast machine.
pub fn patience(usual: Duration) -> Duration {
    usual * slowness()
}

/// Whether this machine can't keep to times.
pub fn is_slow() -> bool {
    slowness() > 1
}

fn slowness() -> u32 {
    let factor = std::env::var("LEAKTRACE_TIMEOUT_FACTOR");
    factor.map_or(1, |factor| factor.parse().expect("LEAKTRACE_TIMEOUT_FACTOR is a whole number"))
}

/// The path of a program that a test uses, if it is installed.
pub fn tool(name: &str) -> Option<PathBuf> {
    if only_builds() {
        return None;
    }
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        missing(&format!("`{name}` is not installed"));
    }
    found
}

/// Skips because a tool, a library or a feature of the machine is not there.
pub fn missing(why: &str) -> bool {
    skip("LEAKTRACE_REQUIRE_TOOLS", why)
}

/// Says why a test does not run; fails it where `variable` is 1. Never true.
fn skip(variable: &str, why: &str) -> bool {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os(variable).is_none_or(|v| v != "1"), "{variable}=1, but {why}");
    // A test that cannot say that it was skipped still has nothing to say.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
    false
}
