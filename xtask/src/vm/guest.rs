//! What a guest is made of: leaktrace, the suite, its fixtures, the programs that its tests run.
//!
//! Comes in: what cargo built. Goes out: the guest's files, and the settings of its init (`xtask/vm/init`). Never:
//! builds in the guest: it has no compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::initramfs::Contents;
use crate::{command, workspace};

/// What a shell script or a test calls by its name.
const TOOLS: [&str; 10] =
    ["sh", "bash", "true", "cat", "seq", "sleep", "sqlite3", "redis-server", "redis-cli", "env"];

/// Where it is looked for in the guest.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// The interpreter that the suite runs by its path, and the script's needs.
const PYTHON: &str = "/usr/bin/python3";
const PYTHON_FILES: &str = "\
import json, sys
for module in list(sys.modules.values()):
    for name in '__file__', '__cached__':
        print(getattr(module, name, None) or '')
";

/// Tests that say nothing about a kernel: the truths themselves (valgrind), and Go's reader of profiles.
const SKIPPED: [&str; 2] = ["truths::", "go_reads_the_profile"];

/// Programs that are built.
#[derive(Debug)]
pub struct Built {
    leaktrace: PathBuf,
    suite: PathBuf,
    fixtures: Vec<PathBuf>,
}

impl Built {
    /// Builds leaktrace, the suite and every fixture.
    pub fn new() -> Result<Self> {
        command::step("building leaktrace, the suite and its fixtures");
        let leaktrace = workspace::build_leaktrace()?;
        let suite = workspace::build_suite()?;
        let list = tempfile::NamedTempFile::new()?;
        let mut build = Command::new(&suite);
        build.current_dir(workspace::root().join("tests")).env("LEAKTRACE_BIN", &leaktrace);
        build.env("LEAKTRACE_REQUIRE_TOOLS", "1").env("LEAKTRACE_ONLY_BUILD", list.path());
        build.args(["--test-threads=2", "--quiet"]);
        for skipped in SKIPPED {
            build.args(["--skip", skipped]);
        }
        command::announce(&build);
        let built = build.stdin(Stdio::null()).output().context("the suite can't be started")?;
        if !built.status.success() {
            bail!("the fixtures were not built:\n{}", String::from_utf8_lossy(&built.stdout));
        }
        let mut fixtures: Vec<_> = fs::read_to_string(list.path())?.lines().map(PathBuf::from).collect();
        fixtures.sort();
        fixtures.dedup();
        Ok(Self { leaktrace, suite, fixtures })
    }

    /// A guest that runs the suite with these arguments.
    pub fn contents(&self, word: &str, arguments: &[String], factor: u32) -> Result<Contents> {
        let mut contents = base()?;
        let tests = workspace::root().join("tests");
        contents.files_in(&tests.join("fixtures"))?;
        contents.file(&workspace::root().join("docs/leaktrace-1.schema.json"))?;
        let path = workspace::path()?;
        let mut programs = vec![self.leaktrace.clone(), self.suite.clone()];
        programs.extend(self.fixtures.iter().cloned());
        for tool in TOOLS.into_iter().chain(["redis-benchmark"]) {
            programs.push(
                find(tool, &path)
                    .with_context(|| format!("the guest needs `{tool}`, which is not on PATH"))?,
            );
        }
        programs.extend(python(&mut contents)?);
        contents.programs(programs.iter().map(PathBuf::as_path))?;
        // musl's loader is its libc; glibc's `ldd` does not know it.
        for loader in ["/lib/ld-musl-x86_64.so.1", "/etc/ld.so.cache", "/etc/passwd", "/etc/group"] {
            if Path::new(loader).exists() {
                contents.file(Path::new(loader))?;
            }
        }
        let skips = SKIPPED.iter().flat_map(|test| ["--skip", test]);
        let words = arguments.iter().map(String::as_str).chain(skips);
        let words: Vec<_> = words.chain(["--include-ignored", "--test-threads=1"]).map(quoted).collect();
        let settings = [
            ("PATH", format!("{PATH}:{}", workspace::cached_programs().display())),
            ("HOME", "/tmp".to_owned()),
            ("LT_WORD", word.to_owned()),
            ("LT_PROBE", String::new()),
            ("LT_SUITE", self.suite.display().to_string()),
            ("LT_ARGUMENTS", words.join(" ")),
            ("LEAKTRACE_BIN", self.leaktrace.display().to_string()),
            ("LEAKTRACE_REQUIRE_ROOT", "1".to_owned()),
            ("LEAKTRACE_REQUIRE_TOOLS", "1".to_owned()),
            ("LEAKTRACE_TIMEOUT_FACTOR", factor.to_string()),
        ];
        contents.text("/vm/settings", text_of(&settings));
        Ok(contents)
    }
}

/// A guest that only shows that it comes up.
pub fn probe(word: &str) -> Result<Contents> {
    let mut contents = base()?;
    contents.text("/vm/settings", text_of(&[("LT_WORD", word.to_owned()), ("LT_PROBE", "1".to_owned())]));
    Ok(contents)
}

fn base() -> Result<Contents> {
    let mut contents = Contents::default();
    let init = fs::read_to_string(workspace::root().join("xtask/vm/init"))?;
    for directory in ["/vm", "/proc", "/sys", "/dev", "/tmp"] {
        contents.directory(directory);
    }
    contents.text("/init", init);
    let busybox = find("busybox", &workspace::path()?).context("busybox is not on PATH")?;
    contents.programs([busybox.as_path()])?;
    contents.place("/bin/busybox", &busybox)?;
    Ok(contents)
}

fn text_of(settings: &[(&str, String)]) -> String {
    let lines: Vec<_> =
        settings.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect();
    lines.concat()
}

/// For a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn find(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Adds what Python reads to run the suite's script; returns what is a program or a library of it.
fn python(contents: &mut Contents) -> Result<Vec<PathBuf>> {
    let files = command::output(Command::new(PYTHON).args(["-c", PYTHON_FILES]))?;
    let files = files.lines().map(PathBuf::from).filter(|path| path.is_file());
    let (libraries, sources): (Vec<_>, Vec<_>) =
        files.partition(|path| path.extension().is_some_and(|extension| extension == "so"));
    for source in sources {
        contents.file(&source)?;
    }
    Ok([vec![PathBuf::from(PYTHON)], libraries].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_word_as_it_is() {
        for word in ["plain", "two words", "it's", "$HOME `id` \"x\"", ""] {
            let script = format!("printf %s {}", quoted(word));
            let read = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&read.stdout), word);
        }
    }
}
