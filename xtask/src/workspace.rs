//! Where things are in this workspace, and how its programs are built.
//!
//! Comes in: nothing but the checkout that xtask was built from. Goes out: paths. Never: installs anything.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// The workspace's directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a directory of the workspace")
}

/// What `bootstrap` installs for this checkout alone; git ignores it.
pub fn cache() -> PathBuf {
    root().join(".cache")
}

/// Programs in [`cache`]; `leaktrace/build.rs` looks for `bpf-linker` there too.
pub fn cached_programs() -> PathBuf {
    cache().join("bin")
}

/// `PATH` with [`cached_programs`] last.
pub fn path() -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([cached_programs()]);
    std::env::join_paths(directories).context("PATH can't be extended by this checkout's .cache/bin")
}

/// The cargo that runs this task, in the workspace's directory.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Builds the release program and returns its path.
pub fn build_leaktrace() -> Result<PathBuf> {
    build(&["build", "--release", "--package", "leaktrace", "--bin", "leaktrace"])
}

/// Builds the suite that traces programs for real, without running it, and returns its path.
pub fn build_suite() -> Result<PathBuf> {
    build(&["test", "--no-run", "--package", "leaktrace-tests", "--test", "suite"])
}

/// Builds one program.
fn build(arguments: &[&str]) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(arguments).arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    command::announce(&build);
    let output = build.output().context("cargo can't be started")?;
    if !output.status.success() {
        bail!("the program was not built: {}", output.status);
    }
    let messages = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    executable_in(&messages).context("cargo named no program that it built")
}

/// The program that the last artifact message names.
fn executable_in(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .next_back()
}

/// Compiles one C source of the workspace with frame pointers, by which stacks are found, and with debug
/// information that names the source by its path in the workspace.
pub fn compile_c(source: &str, program: &Path) -> Result<()> {
    let mut cc = Command::new("cc");
    cc.current_dir(root()).args(["-O2", "-g", "-fno-omit-frame-pointer", "-fno-builtin", "-pthread"]);
    cc.arg(format!("-ffile-prefix-map={}=.", root().display()));
    command::run(cc.arg("-o").arg(program).arg(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_read_from_cargos_messages() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"executable\":null}\n",
            "not json\n",
            "{\"reason\":\"compiler-artifact\",\"executable\":\"/t/release/leaktrace\"}\n",
            "{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        assert_eq!(executable_in(messages), Some(PathBuf::from("/t/release/leaktrace")));
        assert_eq!(executable_in("{\"reason\":\"build-finished\"}"), None);
    }

    #[test]
    fn the_root_holds_the_workspace() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.starts_with("[workspace]"));
    }
}
