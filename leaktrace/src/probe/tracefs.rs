//! Definitions of uprobe events in tracefs: a file and its offsets, by a name.
//!
//! Comes in: a group name, files by descriptor, offsets. Goes out: tracepoint ids for
//! [`super::perf`]. Never: puts a breakpoint anywhere: a definition does nothing until a perf event uses it.
//!
//! Why not the uprobe PMU, as aya uses it: there each process needs an event of its own for each function,
//! every hit runs the consumers of all processes, and taking one away takes an RCU grace period (125 ms). One
//! tracefs event serves all processes: a process is added by one perf event on it, which the kernel uses as a
//! filter for where breakpoints are (`trace_uprobe_filter` in `kernel/trace/trace_uprobe.c`).

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Why tracefs is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TracefsError {
    /// Neither mounted nor mountable.
    #[error(
        "tracefs is neither mounted at /sys/kernel/tracing nor mountable ({source}): \
         leaktrace needs root (CAP_SYS_ADMIN) and a kernel with CONFIG_UPROBE_EVENTS; try `leaktrace doctor`"
    )]
    Unavailable {
        /// What the mount said.
        source: io::Error,
    },
    /// A definition was refused.
    #[error("the kernel refuses the uprobe event `{definition}`: {source}")]
    Define {
        /// The line written.
        definition: String,
        /// Its errno.
        source: io::Error,
    },
    /// A definition has no id.
    #[error("the uprobe event `{event}` was defined but has no id: {source}")]
    NoId {
        /// Its name.
        event: String,
        /// What reading it said.
        source: io::Error,
    },
}

/// tracefs, and the group of our definitions in it.
#[derive(Debug)]
pub struct Tracefs {
    root: OwnedFd,
    group: String,
}

/// What an event's probes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// Before the instruction.
    Entry,
    /// When the function returns to its caller.
    Return,
}

/// A definition: the tracepoint id that perf knows it by, and its name for [`Tracefs::undefine`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Tracepoint id.
    pub id: u64,
    /// Name within the group.
    pub name: String,
}

const MOUNTED: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const EVENTS: &str = "uprobe_events";

impl Tracefs {
    /// Opens tracefs where it is mounted, else mounts it for this process alone.
    pub fn open(group: String) -> Result<Self, TracefsError> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mounted = MOUNTED.iter().map(Path::new).find(|path| path.join(EVENTS).exists());
        let root = match mounted {
            Some(path) => rustix::fs::open(path, directory, Mode::empty()),
            None => mount_detached(),
        };
        let root = root.map_err(|errno| TracefsError::Unavailable { source: errno.into() })?;
        Ok(Self { root, group })
    }

    /// Defines an event on all `offsets` of `file`.
    pub fn define(
        &self,
        name: &str,
        kind: ProbeKind,
        file: BorrowedFd<'_>,
        offsets: &[u64],
    ) -> Result<Definition, TracefsError> {
        let letter = match kind {
            ProbeKind::Entry => 'p',
            ProbeKind::Return => 'r',
        };
        for offset in offsets {
            // The kernel follows the link to the very file, whatever its name, namespace or existence.
            let fd = file.as_raw_fd();
            self.write(&format!("{letter}:{}/{name} /proc/self/fd/{fd}:{offset:#x}", self.group))?;
        }
        let id_file = format!("events/{}/{name}/id", self.group);
        let id = self
            .read(&id_file)
            .and_then(|text| text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into()))
            .map_err(|source| TracefsError::NoId { event: name.to_owned(), source })?;
        Ok(Definition { id, name: name.to_owned() })
    }

    /// Removes a definition; it must be out of use.
    pub fn undefine(&self, name: &str) -> Result<(), TracefsError> {
        self.write(&format!("-:{}/{name}", self.group))
    }

    /// Removes all definitions of our group, and those of leaktraces that died without doing so. Returns how
    /// many are still in use.
    pub fn sweep(&self) -> usize {
        let Ok(defined) = self.read(EVENTS) else { return 0 };
        let mut in_use = 0;
        let mut previous = String::new();
        for event in defined.lines().filter_map(event_name) {
            let ours = event.split('/').next().is_some_and(|group| group == self.group || is_orphan(group));
            if ours && event != previous {
                event.clone_into(&mut previous);
                in_use += usize::from(self.write(&format!("-:{event}")).is_err());
            }
        }
        in_use
    }

    fn write(&self, line: &str) -> Result<(), TracefsError> {
        let append = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        rustix::fs::openat(&self.root, EVENTS, append, Mode::empty())
            .and_then(|file| rustix::io::write(&file, line.as_bytes()))
            .map(drop)
            .map_err(|errno| TracefsError::Define { definition: line.to_owned(), source: errno.into() })
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let file = rustix::fs::openat(&self.root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        io::read_to_string(fs::File::from(file))
    }
}

/// The group of a leaktrace: its pid and start time, so that a later one knows whose definitions are orphans.
pub fn group_name(pid: u32, start_ns: u64) -> String {
    let mut name = String::from("leaktrace_");
    let _ = write!(name, "{pid}_{start_ns}");
    name
}

/// Whether a group belongs to a leaktrace that is gone.
fn is_orphan(group: &str) -> bool {
    let Some((pid, start)) = group.strip_prefix("leaktrace_").and_then(|rest| rest.split_once('_')) else {
        return false;
    };
    let (Ok(pid), Ok(start)) = (pid.parse(), start.parse::<u64>()) else { return false };
    start_of(pid) != Some(start)
}

/// Start time of a running process, nanoseconds since boot.
pub fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    Some(ticks * leaktrace_common::process::TICK_NS)
}

/// `group/event` of a line of `uprobe_events`.
fn event_name(line: &str) -> Option<&str> {
    line.split_once(':')?.1.split_whitespace().next()
}

/// Mounts tracefs at no place: only this process can see it, and it goes with it.
fn mount_detached() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Where tracefs can be seen by others, for messages and tests.
pub fn mounted_at() -> Option<PathBuf> {
    MOUNTED.iter().map(PathBuf::from).find(|path| path.join(EVENTS).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_uprobe_events() {
        assert_eq!(
            event_name("p:leaktrace_7_100/f0_malloc /usr/lib/libc.so.6:0x98930"),
            Some("leaktrace_7_100/f0_malloc")
        );
        assert_eq!(event_name(""), None);
    }

    #[test]
    fn only_dead_leaktraces_leave_orphans() {
        let me = std::process::id();
        let start = start_of(me).unwrap();
        assert!(!is_orphan(&group_name(me, start)));
        assert!(is_orphan(&group_name(me, start + 1)), "same pid, another process");
        assert!(!is_orphan("probes_of_someone_else"));
        assert!(!is_orphan("leaktrace_x_y"));
    }
}
