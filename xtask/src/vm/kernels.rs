//! Kernels to boot: Debian's, or a file.
//!
//! Comes in: the name of a Debian suite, or a path. Goes out: a kernel image, for Debian's in this checkout's
//! cache. Never: touches the machine's own package lists or packages: apt works in a root of its own, with nothing
//! of the machine's but its mirror and its settings for the network.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::{command, workspace};

/// Lists that are younger than this are taken as they are.
const FRESH: Duration = Duration::from_hours(24);

/// The package whose dependency is the newest kernel of a suite; it has all we need built in, and boots fast.
const METAPACKAGE: &str = "linux-image-cloud-amd64";

/// Where Debian keeps the keys of its archive, by the release of the machine.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// A kernel as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A suite of Debian.
    Suite(Suite),
    /// An image.
    File(PathBuf),
}

/// A suite of Debian, with the kernel that it had when it was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// 5.10
    Bullseye,
    /// 6.1
    Bookworm,
    /// 6.12
    Trixie,
    /// The newest.
    Sid,
}

impl Suite {
    /// From the oldest kernel to the newest.
    pub const ALL: [Self; 4] = [Self::Bullseye, Self::Bookworm, Self::Trixie, Self::Sid];

    /// As Debian calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }
}

impl std::str::FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(suite) = Suite::ALL.into_iter().find(|suite| suite.name() == text) {
            return Ok(Self::Suite(suite));
        }
        let path = PathBuf::from(text);
        if !path.is_file() {
            bail!("`{text}` is neither a file nor one of {}", Suite::ALL.map(Suite::name).join(", "));
        }
        Ok(Self::File(path))
    }
}

impl Source {
    /// As it is named on the command line.
    pub fn name(&self) -> String {
        match self {
            Self::Suite(suite) => suite.name().to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// The image, fetched if it has to be.
    pub fn image(&self) -> Result<PathBuf> {
        match self {
            Self::Suite(suite) => fetch(*suite),
            Self::File(path) => Ok(path.clone()),
        }
    }
}

/// The suite's newest kernel; without network the newest that was fetched before.
fn fetch(suite: Suite) -> Result<PathBuf> {
    let kept = workspace::cache().join("vm/kernels").join(suite.name());
    match Apt::of(suite).and_then(|apt| apt.kernel(&kept)) {
        Ok(image) => Ok(image),
        Err(error) => match newest(&kept) {
            Some(image) => {
                eprintln!("  {error:#}\n  taking the kernel that was fetched before: {}", image.display());
                Ok(image)
            }
            None => Err(error.context(format!("the kernel of Debian {} can't be fetched", suite.name()))),
        },
    }
}

fn newest(directory: &Path) -> Option<PathBuf> {
    let images = std::fs::read_dir(directory).ok()?.flatten();
    images
        .filter_map(|image| Some((image.metadata().ok()?.modified().ok()?, image.path())))
        .max()
        .map(|(_, path)| path)
}

/// apt with its state in this checkout's cache, for one suite.
struct Apt {
    root: PathBuf,
}

impl Apt {
    fn of(suite: Suite) -> Result<Self> {
        let root = workspace::cache().join("vm/apt").join(suite.name());
        for directory in ["lists/partial", "archives/partial"] {
            std::fs::create_dir_all(root.join(directory))?;
        }
        let signed = KEYRINGS.into_iter().find(|keyring| Path::new(keyring).exists());
        let signed = signed.map(|keyring| format!(" signed-by={keyring}")).unwrap_or_default();
        let source = format!("deb [arch=amd64{signed}] {} {} main\n", mirror()?, suite.name());
        let apt = Self { root };
        let unchanged = std::fs::read_to_string(apt.root.join("sources.list")).is_ok_and(|old| old == source);
        std::fs::write(apt.root.join("sources.list"), source)?;
        std::fs::write(apt.root.join("status"), "")?;
        if !(unchanged && apt.is_fresh()) {
            command::run(&mut apt.command("apt-get", &["update"]))?;
            std::fs::write(apt.root.join("updated"), "")?;
        }
        Ok(apt)
    }

    fn is_fresh(&self) -> bool {
        let updated = std::fs::metadata(self.root.join("updated")).and_then(|file| file.modified());
        updated.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH))
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut apt = Command::new(program);
        let own = |option: &str, path: &str| format!("{option}={}", self.root.join(path).display());
        apt.current_dir(&self.root).env("LC_ALL", "C").args(["-q", "-o", "Dir::Etc::sourceparts=-"]);
        for (option, path) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State::lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::State::extended_states", "extended"),
            ("Dir::Cache::archives", "archives"),
            ("Dir::Cache::pkgcache", "pkgcache.bin"),
            ("Dir::Cache::srcpkgcache", "srcpkgcache.bin"),
        ] {
            apt.args(["-o", &own(option, path)]);
        }
        // Packages alone are of interest; an unprivileged downloader could not write here; a list that can't be
        // fetched is an error, not a warning.
        apt.args([
            "-o",
            "Acquire::Languages=none",
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=0",
        ]);
        apt.args(["-o", "APT::Sandbox::User=root", "-o", "APT::Update::Error-Mode=any"]);
        apt.args(words);
        apt
    }

    /// The suite's kernel, named by its release, alone in `kept`.
    fn kernel(&self, kept: &Path) -> Result<PathBuf> {
        let metapackage = command::output(&mut self.command("apt-cache", &["show", METAPACKAGE]))?;
        let mut package = dependency(&metapackage, "linux-image-")
            .with_context(|| format!("{METAPACKAGE} depends on no kernel"))?;
        let image = command::output(&mut self.command("apt-cache", &["show", &package]))?;
        let release = package.trim_start_matches("linux-image-").to_owned();
        // Since 7.x the image is in a package of its own.
        if let Some(binary) = dependency(&image, "linux-binary-") {
            package = binary;
        }
        let version = field(&image, "Version").context("a package has a version")?;
        let target = kept.join(format!("vmlinuz-{release}-{}", version.replace(['/', ':'], "_")));
        if target.exists() {
            return Ok(target);
        }
        let scratch = tempfile::tempdir_in(&self.root).context("no room for a kernel package")?;
        command::run(self.command("apt-get", &["download", &package]).current_dir(&scratch))?;
        let archive = std::fs::read_dir(&scratch)?.next().context("apt-get downloaded nothing")??.path();
        let unpacked = scratch.path().join("unpacked");
        command::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&unpacked))?;
        let image = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")]
            .into_iter()
            .map(|path| unpacked.join(path))
            .find(|path| path.is_file())
            .with_context(|| format!("there is no vmlinuz in {package}"))?;
        // One kernel of each suite is enough.
        if kept.exists() {
            std::fs::remove_dir_all(kept)?;
        }
        std::fs::create_dir_all(kept)?;
        std::fs::rename(image, &target)?;
        Ok(target)
    }
}

/// The machine's own mirror of Debian.
fn mirror() -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)"]);
    let targets = command::output(targets.arg("Created-By: Packages"))
        .context("this machine's package lists can't be asked for a mirror of Debian")?;
    targets
        .lines()
        .find_map(|line| line.strip_prefix("Debian Debian main "))
        .map(str::to_owned)
        .context("this machine's apt knows no mirror of Debian: give a kernel image as --kernel FILE")
}

/// The package that a package depends on and whose name begins so.
fn dependency(package: &str, prefix: &str) -> Option<String> {
    let names = field(package, "Depends")?.split([',', '|']).map(|one| one.trim().split(' ').next());
    names.flatten().find(|name| name.starts_with(prefix)).map(str::to_owned)
}

fn field<'a>(package: &'a str, name: &str) -> Option<&'a str> {
    package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: &str = "Package: linux-image-cloud-amd64\nVersion: 7.2.13-1\n\
        Depends: linux-base-cloud-amd64 (= 7.2.13-1), linux-image-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)\n";

    #[test]
    fn the_kernel_is_what_the_metapackage_depends_on() {
        assert_eq!(dependency(PACKAGE, "linux-image-").unwrap(), "linux-image-7.2.13+deb14-cloud-amd64");
        assert_eq!(dependency(PACKAGE, "linux-binary-"), None);
        assert_eq!(field(PACKAGE, "Version"), Some("7.2.13-1"));
        assert_eq!(field(PACKAGE, "Provides"), None);
    }

    #[test]
    fn a_kernel_is_a_suite_or_a_file() {
        assert_eq!("trixie".parse::<Source>().unwrap(), Source::Suite(Suite::Trixie));
        assert!(matches!("/proc/self/exe".parse::<Source>(), Ok(Source::File(_)) | Err(_)));
        let error = "woody".parse::<Source>().unwrap_err().to_string();
        assert!(error.contains("woody") && error.contains("bookworm"), "{error}");
    }
}
