//! What the machine must have for a test, and what happens when it has not.
//!
//! Comes in: what a test needs. Goes out: whether it can run; if not, the reason on stderr, past the capture of
//! the test runner. Never: a silent skip where `LEAKTRACE_REQUIRE_ROOT=1` or `LEAKTRACE_REQUIRE_TOOLS=1` (CI)
//! forbids it: that is a failure.

use std::io::Write as _;
use std::path::PathBuf;

/// Whether the test may trace.
pub fn root() -> bool {
    rustix::process::geteuid().is_root() || skip("LEAKTRACE_REQUIRE_ROOT", "tracing needs root")
}

/// The path of a program that a test uses, if it is installed.
pub fn tool(name: &str) -> Option<PathBuf> {
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
