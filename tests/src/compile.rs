//! Builds fixture programs, once per change of their sources.
//!
//! Comes in: a file of `fixtures/`, a compiler, flags. Goes out: the path of a program under
//! `target/fixtures/NAME-HASH/`, where HASH covers all fixture sources and the command line. Never: builds what
//! is there already, or leaves half a program where another test looks for a whole one.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment;

/// Stacks are walked by frame pointers, and a return address needs no more than line tables to become a name.
const C_FLAGS: &[&str] = &["-O1", "-g", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror"];

/// How one program is built.
#[derive(Debug, Clone)]
pub struct Recipe {
    name: String,
    compiler: &'static str,
    before: Vec<String>,
    source: PathBuf,
    after: Vec<String>,
}

/// Why a program is not there.
enum Unbuilt {
    /// The machine lacks a compiler or a library.
    Missing(String),
    /// The source is wrong.
    Broken(String),
}

impl Recipe {
    /// A fixture by its file name, built by the compiler of its language.
    pub fn new(file: &str) -> Self {
        let source = sources().join(file);
        let extension = source.extension().and_then(OsStr::to_str).unwrap_or_default();
        let (compiler, before) = match extension {
            "c" => ("gcc", words(C_FLAGS)),
            "cpp" => ("g++", [words(C_FLAGS), words(&["-std=c++17"])].concat()),
            "rs" => (
                "rustc",
                words(&["--edition", "2024", "-C", "opt-level=1", "-C", "force-frame-pointers=yes", "-g"]),
            ),
            other => panic!("no compiler for `.{other}`"),
        };
        let name = source.file_stem().and_then(OsStr::to_str).unwrap_or_default().to_owned();
        Self { name, compiler, before, source, after: Vec::new() }
    }

    /// Another compiler.
    #[must_use]
    pub fn compiler(mut self, compiler: &'static str) -> Self {
        self.compiler = compiler;
        self
    }

    /// The program's file name, and so its comm.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// More flags, after the source: where libraries must stand.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.after.extend(words(flags));
        self
    }

    /// A 32-bit program without libc: what every gcc for x86-64 can build.
    #[must_use]
    pub fn freestanding_32_bit(self) -> Self {
        self.flags(&["-m32", "-nostdlib", "-static", "-ffreestanding", "-fno-pic"])
    }

    /// The path of the program; `None`, with the reason on stderr, if the machine cannot build it, or if tests only
    /// build here.
    pub fn build(&self) -> Option<PathBuf> {
        match self.built() {
            Ok(path) if environment::only_builds() => {
                environment::note_built(&path);
                None
            }
            Ok(path) => Some(path),
            Err(Unbuilt::Missing(why)) => {
                environment::missing(&why);
                None
            }
            Err(Unbuilt::Broken(why)) => panic!("{} does not build: {why}", self.source.display()),
        }
    }

    fn built(&self) -> Result<PathBuf, Unbuilt> {
        let broken = |e: std::io::Error| Unbuilt::Broken(e.to_string());
        let directory = target().join("fixtures").join(format!("{}-{:016x}", self.name, self.hash()));
        let program = directory.join(&self.name);
        if program.exists() {
            return Ok(program);
        }
        std::fs::create_dir_all(&directory).map_err(broken)?;
        // In a directory of its own beside the final place, so that the rename is atomic.
        let scratch = tempfile::tempdir_in(&directory).map_err(broken)?;
        let fresh = scratch.path().join(&self.name);
        let run = Command::new(self.compiler)
            .args(&self.before)
            .arg("-o")
            .arg(&fresh)
            .arg(&self.source)
            .args(&self.after)
            .output()
            .map_err(|e| Unbuilt::Missing(format!("`{}` does not run: {e}", self.compiler)))?;
        if !run.status.success() {
            let said = String::from_utf8_lossy(&run.stderr).into_owned();
            let library_missing =
                said.contains("cannot find -l") || said.contains("No such file or directory");
            return Err(if library_missing { Unbuilt::Missing(said) } else { Unbuilt::Broken(said) });
        }
        std::fs::rename(&fresh, &program).map_err(broken)?;
        Ok(program)
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.compiler, &self.before, &self.source, &self.after).hash(&mut hasher);
        let entries = std::fs::read_dir(sources()).expect("the fixtures are beside the harness");
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            std::fs::read(file).expect("fixtures can be read").hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// The directory of the fixtures' sources.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The target directory that the running test was built in: `TARGET/PROFILE/deps/TEST`.
pub fn target() -> PathBuf {
    profile_directory().parent().expect("a profile directory is in a target directory").to_owned()
}

/// `TARGET/PROFILE`.
pub fn profile_directory() -> PathBuf {
    let test = std::env::current_exe().expect("/proc is mounted");
    test.ancestors().nth(2).expect("a test is in `deps` of a profile directory").to_owned()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}
