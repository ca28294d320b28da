//! Builds the kernel side and hands its object to `probe::load`.
//!
//! Comes in: the workspace's `leaktrace-ebpf`, and a toolchain that can compile for BPF: Debian's `rustc-web`
//! with `libstd-rust-web-dev-bpf`, or a nightly with `rust-src`; both with `bpf-linker`. Goes out:
//! `$OUT_DIR/leaktrace.bpf.o`. Never: installs anything; what is missing is explained
//! (`cargo xtask bootstrap` installs it).

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";
/// Rust flags of the kernel side. `v2` is what the oldest supported kernels (5.10) verify; BTF and debug
/// information make verifier messages and map types readable.
const RUSTFLAGS: &[&str] =
    &[r#"--cfg=bpf_target_arch="x86_64""#, "-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v2"];

/// A compiler for the BPF target.
enum Compiler {
    /// A `rustc` with a prebuilt `core` for BPF.
    Prebuilt(PathBuf),
    /// `rustup run nightly` builds `core` from source.
    Nightly,
}

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object = out.join("leaktrace.bpf.o");
    for path in ["../leaktrace-ebpf", "../leaktrace-common", "build.rs"] {
        println!("cargo:rerun-if-changed={path}");
    }
    for name in ["LEAKTRACE_BPF_OBJ", "LEAKTRACE_BPF_RUSTC", "PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    if let Some(given) = env::var_os("LEAKTRACE_BPF_OBJ") {
        fs::copy(&given, &object).unwrap_or_else(|e| panic!("LEAKTRACE_BPF_OBJ: {}: {e}", given.display()));
        return;
    }
    let (Some(compiler), Some(linker)) = (find_compiler(), find_linker()) else {
        panic!("{}", explanation());
    };
    let built = build(&compiler, &linker, &out.join("bpf"));
    fs::copy(&built, &object).unwrap_or_else(|e| panic!("{}: {e}", built.display()));
}

fn build(compiler: &Compiler, linker: &Path, target_dir: &Path) -> PathBuf {
    let cargo = env::var_os("CARGO").expect("cargo sets CARGO");
    let mut command = match compiler {
        Compiler::Prebuilt(_) => Command::new(cargo),
        Compiler::Nightly => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo"]);
            command
        }
    };
    // What cargo sets for this build script (and clippy for its wrapper) would reach into the nested build.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let keep = ["CARGO_HOME", "RUSTUP_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY"];
        let registry = text.starts_with("CARGO_REGISTR") || text.starts_with("CARGO_SOURCE");
        if (text.starts_with("CARGO") || text.starts_with("RUST")) && !keep.contains(&&*text) && !registry {
            command.env_remove(&name);
        }
    }
    let mut flags: Vec<OsString> = RUSTFLAGS.iter().map(OsString::from).collect();
    let mut linker_flag = OsString::from("-Clinker=");
    linker_flag.push(linker);
    flags.push(linker_flag);
    command
        .args(["build", "--release", "--package", "leaktrace-ebpf", "--bin", "leaktrace-ebpf"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(&OsString::from("\x1f")))
        .env("RUSTC_BOOTSTRAP", "1");
    match compiler {
        Compiler::Prebuilt(rustc) => {
            command.env("RUSTC", rustc);
        }
        Compiler::Nightly => {
            command.args(["-Z", "build-std=core"]);
        }
    }
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "the kernel side does not build: {command:?}");
    target_dir.join(TARGET).join("release/leaktrace-ebpf")
}

/// Debian's `/usr/bin/rustc` (or `$LEAKTRACE_BPF_RUSTC`) with its BPF target, else a nightly with its source.
fn find_compiler() -> Option<Compiler> {
    let prebuilt = env::var_os("LEAKTRACE_BPF_RUSTC").map_or_else(|| "/usr/bin/rustc".into(), PathBuf::from);
    if sysroot(Command::new(&prebuilt)).is_some_and(|root| root.join("lib/rustlib").join(TARGET).is_dir()) {
        return Some(Compiler::Prebuilt(prebuilt));
    }
    let mut nightly = Command::new("rustup");
    nightly.args(["run", "nightly", "rustc"]);
    sysroot(nightly)
        .is_some_and(|root| root.join("lib/rustlib/src/rust/library/core").is_dir())
        .then_some(Compiler::Nightly)
}

fn sysroot(mut rustc: Command) -> Option<PathBuf> {
    let output = rustc.args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// `bpf-linker` on PATH, in cargo's bin directory, or where `cargo xtask bootstrap` puts it.
fn find_linker() -> Option<PathBuf> {
    let mut directories: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    directories.extend(env::var_os("CARGO_HOME").map(|home| PathBuf::from(home).join("bin")));
    directories.extend(env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin")));
    directories.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/bin"));
    directories.into_iter().map(|directory| directory.join("bpf-linker")).find(|path| path.is_file())
}

fn explanation() -> String {
    let missing = |found: bool| if found { "found" } else { "missing" };
    format!(
        "leaktrace's kernel side needs a Rust compiler for BPF ({}) and bpf-linker ({}).\n\
         \n  cargo xtask bootstrap\n\n\
         installs both on Debian and Ubuntu (packages rustc-web, libstd-rust-web-dev-bpf, llvm-22-dev).\n\
         Elsewhere: rustup toolchain install nightly --component rust-src && cargo install bpf-linker\n\
         Or set LEAKTRACE_BPF_OBJ to an object built on another machine.",
        missing(find_compiler().is_some()),
        missing(find_linker().is_some()),
    )
}
