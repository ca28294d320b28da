//! Where a result goes: stdout, or a file that is whole at every moment.
//!
//! Comes in: a destination and a writer of the result. Goes out: the bytes. Never: a half-written file in the
//! place of a good one.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Writes a result to `file`, or to stdout.
///
/// A reader of stdout that leaves early (`| head`) is no error.
pub fn write(
    file: Option<&Path>,
    result: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    match file {
        None => match to_stdout(result) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other.context("can't write to stdout"),
        },
        Some(path) => to_file(path, result).with_context(|| format!("can't write to {}", path.display())),
    }
}

/// Whether a result can be written to `file` when it is there; a run of hours should know at its start.
pub fn check(file: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = file else { return Ok(()) };
    let possible = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(_) => File::options().write(true).open(path).map(drop),
        Err(_) => tempfile::tempfile_in(directory(path)).map(drop),
    };
    possible.with_context(|| format!("can't write to {}", path.display()))
}

fn to_stdout(result: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    result(&mut stdout)?;
    stdout.flush()
}

fn to_file(path: &Path, result: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    // A device or a pipe is written to; a link stays a link. What is replaced is the regular file behind it.
    let path = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => path.canonicalize()?,
        Ok(_) => {
            let mut file = BufWriter::new(File::options().write(true).open(path)?);
            result(&mut file)?;
            return file.flush();
        }
        Err(_) => path.to_path_buf(),
    };
    let mut file = BufWriter::new(
        tempfile::Builder::new()
            .prefix(".leaktrace-")
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(directory(&path))?,
    );
    result(&mut file)?;
    file.into_inner()?.persist(&path)?;
    Ok(())
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        write(Some(&path), |w| w.write_all(b"old")).unwrap();
        let error = write(Some(&path), |w| {
            w.write_all(b"half")?;
            Err(io::Error::other("full"))
        })
        .unwrap_err();
        assert_eq!(format!("{error:#}"), format!("can't write to {}: full", path.display()));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        write(Some(&path), |w| w.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_device_stays_a_device_and_a_link_a_link() {
        write(Some(Path::new("/dev/null")), |w| w.write_all(b"gone")).unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());

        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        std::fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write(Some(&link), |w| w.write_all(b"new")).unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = write(Some(Path::new("/nonexistent/x")), |_| Ok(())).unwrap_err();
        assert!(format!("{error:#}").starts_with("can't write to /nonexistent/x: No such file"), "{error:#}");
    }
}
