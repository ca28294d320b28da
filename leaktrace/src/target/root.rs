//! A file tree as one process sees it.
//!
//! Comes in: paths of that process. Goes out: open files. Never: leaves the tree, whatever symbolic links a
//! container put into it; never waits on a FIFO or takes a terminal.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

/// How files of a target are opened: reading must not have effects.
pub(super) const READ: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// How a directory is held: by name only.
pub(super) const HOLD: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The root directory of a file tree.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Ours.
    pub fn own() -> io::Result<Self> {
        Ok(Self(openat(CWD, "/", HOLD, Mode::empty())?))
    }

    /// That of a process, from a descriptor of `/proc/PID/root`.
    pub(super) fn held(directory: impl Into<OwnedFd>) -> Self {
        Self(directory.into())
    }

    /// Opens a file for reading. Absolute paths and links start at this root.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        Ok(openat2(self.0.as_fd(), path, READ, Mode::empty(), ResolveFlags::IN_ROOT)?.into())
    }
}
