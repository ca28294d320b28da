//! The guest's whole file system, made of the machine's own files.
//!
//! Comes in: files that the guest needs, with the paths that they have here. Goes out: an archive in which they
//! have the same paths. Never: a file that nothing asked for, or a change to the machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::cpio::Archive;

/// Links may not lead in circles.
const MOST_LINKS: usize = 40;

/// What is at a path of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Directory,
    Link(PathBuf),
    /// The same file here.
    File(PathBuf),
    /// Text of ours, executable.
    Text(String),
}

/// The guest's files by path, which puts directories before what is in them.
#[derive(Debug, Default)]
pub struct Contents(BTreeMap<PathBuf, Entry>);

impl Contents {
    /// A file of the machine, with the directories and links that lead to it. A directory comes empty.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        let mut links = 0;
        let mut rest: Vec<PathBuf> = parts(path);
        let mut at = PathBuf::from("/");
        while let Some(part) = rest.pop() {
            let next =
                if part == Path::new("..") { at.parent().unwrap_or(&at).to_owned() } else { at.join(part) };
            let kind = fs::symlink_metadata(&next).with_context(|| next.display().to_string())?.file_type();
            if kind.is_symlink() {
                links += 1;
                if links > MOST_LINKS {
                    bail!("{}: too many links", path.display());
                }
                let target = fs::read_link(&next)?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                rest.extend(parts(&target));
                self.0.insert(next, Entry::Link(target));
            } else {
                let entry = if kind.is_dir() { Entry::Directory } else { Entry::File(next.clone()) };
                self.0.insert(next.clone(), entry);
                at = next;
            }
        }
        Ok(())
    }

    /// All files in a directory, not those in directories below it.
    pub fn files_in(&mut self, directory: &Path) -> Result<()> {
        self.file(directory)?;
        for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            if path.is_file() {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    /// Programs and libraries, with the libraries that they are linked with.
    pub fn programs<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        let paths: Vec<_> = paths.into_iter().collect();
        for path in &paths {
            self.file(path)?;
        }
        // It fails for programs that are not linked dynamically, after it has told of the others.
        let listed = Command::new("ldd").args(&paths).stderr(Stdio::null()).stdin(Stdio::null()).output();
        let listed = listed.context("`ldd`, which comes with libc, can't be started")?;
        for library in libraries(&String::from_utf8_lossy(&listed.stdout)) {
            self.file(Path::new(library))?;
        }
        Ok(())
    }

    /// A file of the machine at another path.
    pub fn place(&mut self, path: &str, source: &Path) -> Result<()> {
        for directory in Path::new(path).ancestors().skip(1).filter(|directory| directory.parent().is_some())
        {
            self.0.entry(directory.to_owned()).or_insert(Entry::Directory);
        }
        let source = source.canonicalize().with_context(|| source.display().to_string())?;
        self.0.insert(path.into(), Entry::File(source));
        Ok(())
    }

    /// A script or a text of ours.
    pub fn text(&mut self, path: &str, text: String) {
        self.0.insert(path.into(), Entry::Text(text));
    }

    /// An empty directory.
    pub fn directory(&mut self, path: &str) {
        self.0.insert(path.into(), Entry::Directory);
    }

    /// Writes the archive.
    pub fn write(&self, to: &Path) -> Result<()> {
        let file = File::create(to).with_context(|| format!("can't create {}", to.display()))?;
        self.archive(Archive::new(BufWriter::new(file)))
            .with_context(|| format!("can't write the guest's files to {}: is the disk full?", to.display()))
    }

    fn archive<W: std::io::Write>(&self, mut archive: Archive<W>) -> Result<()> {
        for (path, entry) in &self.0 {
            match entry {
                Entry::Directory => archive.directory(path)?,
                Entry::Link(target) => archive.link(path, target)?,
                Entry::Text(text) => archive.file(path, 0o755, text.as_bytes())?,
                Entry::File(source) => {
                    let permissions = fs::metadata(source)?.permissions().mode();
                    let content = fs::read(source).with_context(|| source.display().to_string())?;
                    archive.file(path, permissions, &content)?;
                }
            }
        }
        Ok(archive.finish()?)
    }
}

/// The names in a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.rev().map(|part| PathBuf::from(part.as_os_str())).collect()
}

/// The files in what `ldd` tells: `name => /path (0x…)`, or `/path (0x…)` for the loader.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| {
        let line = line.strip_prefix('\t')?;
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        path.split(" (0x").next().filter(|path| path.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_on_the_way_come_along() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::write(root.join("usr/lib/real"), "x").unwrap();
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
        std::os::unix::fs::symlink("../lib/real", root.join("usr/lib/name")).unwrap();
        let mut contents = Contents::default();
        contents.file(&root.join("lib/name")).unwrap();
        let of = |path: &str| contents.0.get(&root.join(path)).cloned();
        assert_eq!(of("lib"), Some(Entry::Link("usr/lib".into())));
        assert_eq!(of("usr/lib/name"), Some(Entry::Link("../lib/real".into())));
        assert_eq!(of("usr/lib/real"), Some(Entry::File(root.join("usr/lib/real"))));
        assert_eq!(of("usr/lib"), Some(Entry::Directory));
    }

    #[test]
    fn a_circle_of_links_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("self", directory.path().join("self")).unwrap();
        assert!(Contents::default().file(&directory.path().join("self")).is_err());
        assert!(Contents::default().file(&directory.path().join("none")).is_err());
    }

    #[test]
    fn ldd_is_understood() {
        let listed = "/bin/a:\n\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n/bin/b:\n\tnot a dynamic executable\n\tlibx.so => not found\n";
        assert_eq!(libraries(listed).collect::<Vec<_>>(), ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn a_program_comes_with_its_libraries() {
        let mut contents = Contents::default();
        contents.programs([Path::new("/bin/sh")]).unwrap();
        assert!(contents.0.keys().any(|path| path.ends_with("libc.so.6")), "{contents:?}");
    }
}
