//! The list of what is needed, and how to see that it is there.
//!
//! Comes in: a scope. Goes out: needs, in the order in which they have to be met. Never: installs.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Need, Remedy, Scope, apt, toolchain};
use crate::{command, workspace};

/// Everything that `scope` needs; checks assume that earlier needs are met.
pub fn of(scope: Scope) -> Vec<Need> {
    let mut needs = build();
    if matches!(scope, Scope::Demo | Scope::Test | Scope::Vm) {
        needs.extend(demo());
    }
    if matches!(scope, Scope::Test | Scope::Vm) {
        needs.extend(test());
    }
    if scope == Scope::Vm {
        needs.extend(vm());
    }
    needs
}

fn build() -> Vec<Need> {
    vec![
        program("C compiler and linker", "cc", &["gcc", "libc6-dev"]),
        Need {
            what: "Rust compiler for the BPF target",
            check: Box::new(toolchain::compiler),
            remedy: Remedy::Own {
                install: || apt::install(&["rustc-web", "libstd-rust-web-dev-bpf"]),
                by_hand: "Debian: rustc-web libstd-rust-web-dev-bpf; elsewhere: rustup toolchain install nightly \
                          --component rust-src",
            },
        },
        Need {
            what: "BPF linker (bpf-linker 0.13)",
            check: Box::new(toolchain::linker),
            remedy: Remedy::Own {
                install: toolchain::install_linker,
                by_hand: "cargo install bpf-linker --version ^0.13 (with the LLVM of the compiler above)",
            },
        },
    ]
}

fn demo() -> Vec<Need> {
    vec![
        program("Redis load generator", "redis-benchmark", &["redis-tools"]),
        Need {
            what: "Redis server",
            check: Box::new(|| find("redis-server")),
            remedy: Remedy::Own { install: link_redis_server, by_hand: "`redis-server` on PATH" },
        },
    ]
}

fn test() -> Vec<Need> {
    vec![
        component("rustfmt", "fmt"),
        component("clippy", "clippy"),
        program("C++ compiler", "g++", &["g++"]),
        program("musl C compiler", "musl-gcc", &["musl-tools"]),
        program("Go compiler", "go", &["golang-go"]),
        program("Python of the system", "/usr/bin/python3", &["python3"]),
        program("SQLite shell", "sqlite3", &["sqlite3"]),
        program("valgrind, which checks the truths", "valgrind", &["valgrind"]),
        library("jemalloc", "libjemalloc.so.2", &["libjemalloc2"]),
        library("jemalloc for static linking", "libjemalloc.a", &["libjemalloc-dev"]),
        library("mimalloc", "libmimalloc.so", &["libmimalloc-dev"]),
        library("tcmalloc", "libtcmalloc_minimal.so", &["libgoogle-perftools-dev"]),
        Need {
            what: "Prometheus' checker of metrics",
            check: Box::new(|| find("promtool")),
            remedy: Remedy::Unpacked { package: "prometheus", program: "usr/bin/promtool" },
        },
    ]
}

fn vm() -> Vec<Need> {
    vec![
        Need {
            what: "busybox, a guest's first program",
            check: Box::new(|| find("busybox")),
            remedy: Remedy::Unpacked { package: "busybox-static", program: "bin/busybox" },
        },
        Need {
            what: "QEMU",
            check: Box::new(|| command::output(Command::new(find(QEMU)?).arg("--version"))),
            remedy: Remedy::Own { install: unpack_qemu, by_hand: "`qemu-system-x86_64` on PATH" },
        },
    ]
}

const QEMU: &str = "qemu-system-x86_64";

/// Unpacks QEMU with the libraries that it needs into the cache, with a script that starts it. Installing it would
/// replace the QEMU tools that a machine has from elsewhere.
fn unpack_qemu() -> Result<()> {
    let root = workspace::cache().join("qemu");
    // libc is the machine's, with the loader that fits it.
    apt::unpack_whole("qemu-system-x86", &["libc6", "libc-bin"], &root)?;
    let script = format!(
        "#!/bin/sh\n# Starts the QEMU that `cargo xtask bootstrap --all` unpacked.\nroot={root}\n\
         export LD_LIBRARY_PATH=\"$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu\"\n\
         exec \"$root/usr/bin/{QEMU}\" -L \"$root/usr/share/seabios\" -L \"$root/usr/share/qemu\" \"$@\"\n",
        root = root.display(),
    );
    let program = workspace::cached_programs().join(QEMU);
    std::fs::create_dir_all(workspace::cached_programs())?;
    std::fs::write(&program, script)?;
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn program(what: &'static str, name: &'static str, packages: &'static [&'static str]) -> Need {
    Need { what, check: Box::new(|| find(name)), remedy: Remedy::Packages(packages) }
}

/// A library as the C compiler finds it, whatever the distribution's directories are.
fn library(what: &'static str, file: &'static str, packages: &'static [&'static str]) -> Need {
    let check = move || {
        let path = command::output(Command::new("cc").arg(format!("-print-file-name={file}")))?;
        if !Path::new(&path).is_absolute() {
            bail!("the C compiler finds no {file}");
        }
        Ok(std::fs::canonicalize(path)?.display().to_string())
    };
    Need { what, check: Box::new(check), remedy: Remedy::Packages(packages) }
}

/// A part of the Rust toolchain that minimal installations lack.
fn component(what: &'static str, subcommand: &'static str) -> Need {
    Need {
        what,
        check: Box::new(move || command::output(workspace::cargo().args([subcommand, "--version"]))),
        remedy: Remedy::Own {
            install: || command::run(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"])),
            by_hand: "rustup component add rustfmt clippy",
        },
    }
}

/// The full path of a program on `PATH` or in this checkout's cache.
fn find(name: &str) -> Result<String> {
    let path = workspace::path()?;
    let found = find_in(name, std::env::split_paths(&path)).with_context(|| format!("no {name} on PATH"))?;
    Ok(found.display().to_string())
}

fn find_in(name: &str, mut directories: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    directories.find_map(|directory| {
        let path = directory.join(name);
        rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_ok().then_some(path)
    })
}

/// Debian's `redis-server` package adds no program to `redis-tools`: it links the server's name to
/// `redis-check-rdb`, which goes by its name, and starts a service. We want the name without the service.
fn link_redis_server() -> Result<()> {
    let program = find("redis-check-rdb")?;
    let link = workspace::cached_programs().join("redis-server");
    std::fs::create_dir_all(workspace::cached_programs())?;
    std::os::unix::fs::symlink(program, &link).with_context(|| format!("can't create {}", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_executed_is_found() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("plain"), "").unwrap();
        let here = || std::iter::once(directory.path().to_owned());
        assert_eq!(find_in("plain", here()), None);
        std::os::unix::fs::symlink("/bin/sh", directory.path().join("shell")).unwrap();
        assert_eq!(find_in("shell", here()), Some(directory.path().join("shell")));
    }

    #[test]
    fn a_library_that_the_compiler_has_is_found_and_another_is_not() {
        assert!((library("C library", "libc.so.6", &[]).check)().is_ok());
        assert!((library("none", "libleaktrace-no-such.so", &[]).check)().is_err());
    }
}
