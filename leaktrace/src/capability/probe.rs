//! Finds the facts out: reads `/proc` and `/sys`, and tries what can be tried without a trace.
//!
//! Comes in: nothing. Goes out: [`Facts`]. Never: changes anything; what it opens it closes, and it writes nothing
//! to what it opens.

use std::fs;
use std::mem::size_of;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::process::{Resource, getrlimit};

use super::bpf;
use super::facts::{Attempt, CapabilitySet, Facts, Lockdown, Tracefs};

/// Inode of the pid namespace of the machine's boot (`PROC_PID_INIT_INO` of the kernel's `proc_ns.h`).
const INITIAL_PID_NS: &str = "pid:[4026531836]";

/// Inode of its user namespace (`PROC_USER_INIT_INO`).
const INITIAL_USER_NS: &str = "user:[4026531837]";

/// A process without a readable `/proc/self/status` has no `/proc`: without it there is nothing to judge.
pub(super) fn facts() -> Result<Facts, procfs::ProcError> {
    let status = procfs::process::Process::myself()?.status()?;
    Ok(Facts {
        architecture: std::env::consts::ARCH,
        kernel_release: text("/proc/sys/kernel/osrelease").unwrap_or_default(),
        euid: status.euid,
        capabilities: CapabilitySet(status.capeff),
        initial_user_ns: is_link_to("/proc/self/ns/user", INITIAL_USER_NS),
        initial_pid_ns: is_link_to("/proc/self/ns/pid", INITIAL_PID_NS),
        seccomp_filter: status.seccomp == Some(libc::SECCOMP_MODE_FILTER),
        btf: open(CWD, "/sys/kernel/btf/vmlinux", OFlags::RDONLY),
        ring_buffer: bpf::ring_buffer(),
        bpf_loop: bpf::bpf_loop(),
        perf_link: bpf::perf_link(),
        perf_event: perf_event(),
        uprobe_pmu: Path::new("/sys/bus/event_source/devices/uprobe/type").exists(),
        tracefs: tracefs(),
        perf_event_paranoid: number("/proc/sys/kernel/perf_event_paranoid"),
        lockdown: text("/sys/kernel/security/lockdown").as_deref().and_then(lockdown),
        memlock: getrlimit(Resource::Memlock).current,
        ptrace_scope: number("/proc/sys/kernel/yama/ptrace_scope"),
        programs: None,
        map_files: map_files(),
    })
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number<N: std::str::FromStr>(path: &str) -> Option<N> {
    text(path)?.parse().ok()
}

fn is_link_to(path: &str, target: &str) -> bool {
    fs::read_link(path).is_ok_and(|link| link == Path::new(target))
}

fn open(directory: impl AsFd, path: impl rustix::path::Arg, flags: OFlags) -> Attempt {
    rustix::fs::openat(directory, path, flags | OFlags::CLOEXEC, Mode::empty()).map(drop)
}

/// The current level is in brackets: `none [integrity] confidentiality`.
fn lockdown(levels: &str) -> Option<Lockdown> {
    match levels.split_once('[')?.1.split_once(']')?.0 {
        "none" => Some(Lockdown::None),
        "integrity" => Some(Lockdown::Integrity),
        "confidentiality" => Some(Lockdown::Confidentiality),
        _ => None,
    }
}

/// Where `uprobe_events` can be written: in a mounted tracefs, or in one that is mounted for us alone.
fn tracefs() -> Result<Tracefs, Errno> {
    let mut refused = None;
    for directory in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
        // Appending: to open it with truncation would remove everyone's probes.
        match open(CWD, PathBuf::from(directory).join("uprobe_events"), OFlags::WRONLY | OFlags::APPEND) {
            Ok(()) => return Ok(Tracefs::Mounted(directory.into())),
            Err(Errno::NOENT) => {}
            Err(errno) => refused = Some(errno),
        }
    }
    // What a mounted tracefs said tells more than why another can't be mounted.
    private_tracefs().map_err(|errno| refused.unwrap_or(errno))
}

fn private_tracefs() -> Result<Tracefs, Errno> {
    let context = rustix::mount::fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let mount = rustix::mount::fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )?;
    open(mount, "uprobe_events", OFlags::WRONLY | OFlags::APPEND)?;
    Ok(Tracefs::Private)
}

/// A file that is mapped into this process, opened by the address range of its mapping. Whether that is let through
/// depends on the capabilities alone, not on whose process it is.
fn map_files() -> Attempt {
    let directory = fs::read_dir("/proc/self/map_files").map_err(|error| errno(&error))?;
    let file = directory.flatten().next().ok_or(Errno::NOENT)?;
    open(CWD, file.path(), OFlags::PATH)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// `perf_event_attr` up to its first published size; zero is right for what is not named.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_kind: u32,
    breakpoint: u64,
}

/// Opens the event that counts nothing, on this process.
fn perf_event() -> Attempt {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_COUNT_SW_DUMMY: u64 = 9;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    let attributes = PerfEventAttributes {
        kind: PERF_TYPE_SOFTWARE,
        size: size_of::<PerfEventAttributes>() as u32,
        config: PERF_COUNT_SW_DUMMY,
        ..PerfEventAttributes::default()
    };
    let (own_process, any_cpu, no_group) = (0, -1, -1);
    // SAFETY: the attributes hold no pointer, and their size is what they say it is.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            own_process,
            any_cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(errno(&std::io::Error::last_os_error()));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_levels() {
        assert_eq!(lockdown("[none] integrity confidentiality"), Some(Lockdown::None));
        assert_eq!(lockdown("none [integrity] confidentiality"), Some(Lockdown::Integrity));
        assert_eq!(lockdown("none integrity [confidentiality]"), Some(Lockdown::Confidentiality));
        assert_eq!(lockdown("none integrity"), None);
    }

    /// Needs no privileges: whatever they are, each question has an answer.
    #[test]
    fn every_question_has_an_answer() {
        let facts = facts().unwrap();
        assert!(facts.kernel().is_some(), "{}", facts.kernel_release);
        assert_eq!(facts.architecture, std::env::consts::ARCH);
        for attempt in [facts.ring_buffer, facts.bpf_loop, facts.perf_link] {
            assert!(
                matches!(attempt, Ok(()) | Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP)),
                "{attempt:?} means that the probe asks wrongly"
            );
        }
    }
}
