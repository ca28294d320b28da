//! Debian's package manager.
//!
//! Comes in: names of packages. Goes out: them installed, or one program of them in this checkout's cache.
//! Never: removes a package, starts a service (none of the packages has one), refreshes the lists without need.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{command, workspace};

/// Installs packages, with the lists refreshed if one is unknown.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    know(packages)?;
    if !rustix::process::geteuid().is_root() {
        bail!(
            "only root may install packages: sudo apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
    }
    command::step("installing Debian packages");
    let mut install = apt_get("install");
    // A machine that has another Rust compiler from Debian keeps it: the two exclude each other.
    install.args(["--yes", "--no-remove", "--no-install-recommends"]).args(packages);
    command::run(&mut install).context("if a package would have to be removed, nothing was changed")
}

/// Puts one program of a package into the cache, without installing the package.
pub fn unpack(package: &str, program: &str) -> Result<()> {
    know(&[package])?;
    let name = Path::new(program).file_name().context("a program has a name")?;
    let directory = tempfile::tempdir()?;
    let mut download = apt_get("download");
    // The sandbox user could not write into our directory.
    download.args(["-o", "APT::Sandbox::User=root", package]).current_dir(&directory);
    command::run(&mut download)?;
    let archive = std::fs::read_dir(&directory)?.next().context("apt-get downloaded nothing")??.path();
    let unpacked = directory.path().join("unpacked");
    command::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&unpacked))?;
    std::fs::create_dir_all(workspace::cached_programs())?;
    std::fs::copy(unpacked.join(program), workspace::cached_programs().join(name))
        .with_context(|| format!("package {package} has no {program}"))?;
    Ok(())
}

/// Unpacks a package and all that it depends on, but for what is `left_out`, without installing anything.
pub fn unpack_whole(package: &str, left_out: &[&str], to: &Path) -> Result<()> {
    know(&[package])?;
    let directory = tempfile::tempdir()?;
    std::fs::create_dir_all(directory.path().join("partial"))?;
    // As if nothing were installed: what is there already comes too, and nothing is in its way.
    let status = directory.path().join("status");
    std::fs::write(&status, "")?;
    let mut download = apt_get("install");
    download.args(["--download-only", "--yes", "--no-install-recommends", "-o", "APT::Sandbox::User=root"]);
    download.arg("-o").arg(format!("Dir::State::status={}", status.display()));
    download.arg("-o").arg(format!("Dir::Cache::archives={}", directory.path().display()));
    command::run(download.args(["-o", "Debug::NoLocking=1", package]))?;
    for archive in std::fs::read_dir(&directory)? {
        let archive = archive?.path();
        let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Beside the archives are apt's `lock` and `partial`, which have no version in their names.
        let package = name.split_once('_').map(|(package, _)| package);
        if package.is_some_and(|package| !left_out.contains(&package)) {
            std::fs::create_dir_all(to)?;
            command::output(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(to))?;
        }
    }
    Ok(())
}

/// Makes sure that apt knows the packages.
fn know(packages: &[&str]) -> Result<()> {
    if command::output(Command::new("apt-get").arg("--version")).is_err() {
        bail!("this system has no apt-get, and no other package manager is known here");
    }
    if unknown(packages)?.is_empty() {
        return Ok(());
    }
    if rustix::process::geteuid().is_root() {
        command::step("refreshing the package lists");
        command::run(&mut apt_get("update"))?;
    }
    let unknown = unknown(packages)?;
    if !unknown.is_empty() {
        bail!("apt knows no package {} (even after `apt-get update`)", unknown.join(", "));
    }
    Ok(())
}

fn unknown<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let policy = command::output(Command::new("apt-cache").env("LC_ALL", "C").arg("policy").args(packages))?;
    Ok(packages.iter().copied().filter(|package| !has_candidate(&policy, package)).collect())
}

/// Whether `apt-cache policy` tells of a version to install.
fn has_candidate(policy: &str, package: &str) -> bool {
    let mut lines = policy.lines().skip_while(|line| *line != format!("{package}:")).skip(1);
    lines.find_map(|line| line.trim().strip_prefix("Candidate: ")).is_some_and(|version| version != "(none)")
}

fn apt_get(command: &str) -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "Dpkg::Use-Pty=0", command]);
    apt
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "\
gcc:
  Installed: (none)
  Candidate: 4:12.2.0-3
  Version table:
     4:12.2.0-3 500
virtual:
  Installed: (none)
  Candidate: (none)
  Version table:
";

    #[test]
    fn a_package_needs_a_candidate_of_its_own() {
        assert!(has_candidate(POLICY, "gcc"));
        assert!(!has_candidate(POLICY, "virtual"));
        assert!(!has_candidate(POLICY, "gc"));
        assert!(!has_candidate("", "gcc"));
    }
}
