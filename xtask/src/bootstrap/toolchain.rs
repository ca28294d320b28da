//! The compiler and the linker for leaktrace's kernel side, found where and in the order
//! in which `leaktrace/build.rs` looks for them.
//!
//! Comes in: the machine. Goes out: what was found and that it works, or why it won't do. Never: judges by a
//! version alone where it can compile.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{command, workspace};

/// The kernel's side is compiled for this target.
const TARGET: &str = "bpfel-unknown-none";
/// LLVM of the bpf-linker that [`install_linker`] builds; it reads the output of no newer one.
const LLVM: u32 = 22;
/// The smallest program that needs a compiler, its `core` and a linker that reads what the compiler wrote.
const PROGRAM: &str = "#![no_std]\n#[unsafe(no_mangle)]\npub extern \"C\" fn probe() -> i32 { 0 }\n";

/// Finds a compiler for [`TARGET`].
pub fn compiler() -> Result<String> {
    if let Some(object) = ready_object()? {
        return Ok(object);
    }
    prebuilt_compiler()
        .or_else(|prebuilt| nightly_compiler().map_err(|nightly| anyhow!("{prebuilt:#}; and {nightly:#}")))
}

/// Finds a linker and shows that it reads what the compiler writes.
pub fn linker() -> Result<String> {
    if let Some(object) = ready_object()? {
        return Ok(object);
    }
    let linker = find_linker().context("none on PATH, in cargo's bin directory or in .cache/bin")?;
    let version = command::output(Command::new(&linker).arg("--version"))?;
    if prebuilt_compiler().is_ok() {
        link(&linker).with_context(|| format!("{} ({version}) can't link", linker.display()))?;
    }
    Ok(format!("{} ({version})", linker.display()))
}

/// Builds bpf-linker with Debian's LLVM into this checkout's cache.
pub fn install_linker() -> Result<()> {
    prebuilt_compiler().context("bpf-linker is built here only for a compiler of LLVM 22")?;
    if let Some(linker) = find_linker().filter(|linker| !linker.starts_with(workspace::cache())) {
        bail!("{} would be used before a new one: update it, or take it off PATH", linker.display());
    }
    super::apt::install(&[&format!("llvm-{LLVM}-dev"), "libzstd-dev", "zlib1g-dev", "libxml2-dev", "g++"])?;
    command::step("building bpf-linker (about a minute)");
    let prefix = format!("/usr/lib/llvm-{LLVM}");
    let mut install = workspace::cargo();
    // llvm-sys reads the one, the search for libLLVM the other.
    install.env(format!("LLVM_SYS_{LLVM}1_PREFIX"), &prefix).env("LLVM_PREFIX", &prefix);
    install.args(["install", "bpf-linker", "--version", "^0.13", "--locked", "--force"]);
    install.args(["--no-default-features", "--features", &format!("llvm-{LLVM}")]);
    command::run(install.arg("--root").arg(workspace::cache()))
}

/// With a finished object no compiler is needed.
fn ready_object() -> Result<Option<String>> {
    let Some(object) = std::env::var_os("LEAKTRACE_BPF_OBJ").map(PathBuf::from) else { return Ok(None) };
    if !object.is_file() {
        bail!("LEAKTRACE_BPF_OBJ names {}, which is no file", object.display());
    }
    Ok(Some(format!("not needed, LEAKTRACE_BPF_OBJ is {}", object.display())))
}

/// Debian's Rust compiler, or the one that is named instead.
fn prebuilt_rustc() -> PathBuf {
    std::env::var_os("LEAKTRACE_BPF_RUSTC").map_or_else(|| "/usr/bin/rustc".into(), PathBuf::from)
}

/// A compiler that has `core` for [`TARGET`] ready, and writes what our linker reads.
fn prebuilt_compiler() -> Result<String> {
    let rustc = prebuilt_rustc();
    let sysroot = command::output(Command::new(&rustc).args(["--print", "sysroot"]))?;
    let core = Path::new(&sysroot).join("lib/rustlib").join(TARGET);
    if !core.is_dir() {
        bail!("{} has no core for {TARGET} ({} is missing)", rustc.display(), core.display());
    }
    let version = command::output(Command::new(&rustc).arg("-vV"))?;
    let llvm = llvm_major(&version).with_context(|| format!("{} -vV names no LLVM", rustc.display()))?;
    if llvm > LLVM {
        bail!("{} writes for LLVM {llvm}, bpf-linker reads up to {LLVM}", rustc.display());
    }
    Ok(format!("{} ({}, LLVM {llvm})", rustc.display(), version.lines().next().unwrap_or_default()))
}

/// `LLVM version: 22.1.8` in `rustc -vV`.
fn llvm_major(version: &str) -> Option<u32> {
    let version = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

fn nightly_compiler() -> Result<String> {
    let rustc = |arguments: &[&str]| {
        command::output(Command::new("rustup").args(["run", "nightly", "rustc"]).args(arguments))
    };
    let sysroot = rustc(&["--print", "sysroot"]).context("no nightly toolchain")?;
    if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir() {
        bail!("the nightly toolchain lacks its sources: rustup component add rust-src --toolchain nightly");
    }
    rustc(&["--version"])
}

/// As `leaktrace/build.rs` looks for it.
fn find_linker() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let under = |name, directory| Some(PathBuf::from(std::env::var_os(name)?).join(directory));
    std::env::split_paths(&path)
        .chain(under("CARGO_HOME", "bin"))
        .chain(under("HOME", ".cargo/bin"))
        .chain([workspace::cached_programs()])
        .map(|directory| directory.join("bpf-linker"))
        .find(|linker| linker.is_file())
}

/// Compiles and links [`PROGRAM`].
fn link(linker: &Path) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let source = directory.path().join("probe.rs");
    let bitcode = directory.path().join("probe.bc");
    std::fs::write(&source, PROGRAM)?;
    let mut compile = Command::new(prebuilt_rustc());
    compile.env("RUSTC_BOOTSTRAP", "1").args(["--edition=2024", "--crate-type=lib", "--emit=llvm-bc"]);
    command::output(compile.args(["--target", TARGET]).arg("-o").arg(&bitcode).arg(&source))?;
    let mut link = Command::new(linker);
    link.args(["--target", TARGET, "--export", "probe", "--output"]).arg(directory.path().join("probe.o"));
    command::output(link.arg(&bitcode))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_llvm_is_read() {
        assert_eq!(llvm_major("rustc 1.96.0\nhost: x86_64\nLLVM version: 22.1.8"), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0"), None);
    }
}
