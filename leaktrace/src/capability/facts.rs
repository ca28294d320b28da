//! What was found out about the kernel, the privileges and the machine: plain values, no judgement.
//!
//! Comes in: from [`super::probe`], or made up by a test. Goes out: to [`super::judge`]. Never: looks anything up.

use std::fmt;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::probe::load::Accepted;

/// Whether something was let through when it was tried.
pub type Attempt = Result<(), Errno>;

/// All that decides whether, and how well, leaktrace can trace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Facts {
    /// Architecture that leaktrace runs as, as Rust names it.
    pub architecture: &'static str,
    /// `/proc/sys/kernel/osrelease`
    pub kernel_release: String,
    /// Effective user id.
    pub euid: u32,
    /// Effective capabilities.
    pub capabilities: CapabilitySet,
    /// In the user namespace of the machine's boot, in which alone capabilities reach BPF.
    pub initial_user_ns: bool,
    /// In the pid namespace of the machine's boot, whose pids the kernel side sees.
    pub initial_pid_ns: bool,
    /// A seccomp filter is on.
    pub seccomp_filter: bool,
    /// Opening the kernel's type information, `/sys/kernel/btf/vmlinux`.
    pub btf: Attempt,
    /// Creating a BPF ring buffer.
    pub ring_buffer: Attempt,
    /// Calling `bpf_loop` from a program. `EOPNOTSUPP`: the kernel does not have it.
    pub bpf_loop: Attempt,
    /// Attaching a program to a perf event by a BPF link. `EOPNOTSUPP`: the kernel does not have it.
    pub perf_link: Attempt,
    /// Opening a perf event.
    pub perf_event: Attempt,
    /// The kernel has uprobe events: their PMU is in `/sys/bus/event_source/devices`.
    pub uprobe_pmu: bool,
    /// Opening `uprobe_events` for writing.
    pub tracefs: Result<Tracefs, Errno>,
    /// `kernel.perf_event_paranoid`
    pub perf_event_paranoid: Option<i32>,
    /// Kernel lockdown, if the kernel has it and shows it.
    pub lockdown: Option<Lockdown>,
    /// Soft limit of locked memory in bytes; `None` is unlimited.
    pub memlock: Option<u64>,
    /// `kernel.yama.ptrace_scope`, if the kernel has Yama.
    pub ptrace_scope: Option<u32>,
    /// Loading the kernel side: the programs, or what the kernel said. `None` if it was not tried.
    pub programs: Option<Result<Vec<Accepted>, String>>,
    /// Opening a mapped file through `/proc/PID/map_files`.
    pub map_files: Attempt,
}

impl Facts {
    /// Version of the kernel, if its release begins with one.
    pub fn kernel(&self) -> Option<Version> {
        Version::parse(&self.kernel_release)
    }
}

/// Where tracefs is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tracefs {
    /// Mounted there.
    Mounted(PathBuf),
    /// Mounted nowhere that we looked, but it can be mounted for leaktrace alone.
    Private,
}

/// Kernel lockdown, see `kernel_lockdown(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lockdown {
    /// Off.
    None,
    /// The kernel can't be modified.
    Integrity,
    /// Its memory can't be read either.
    Confidentiality,
}

/// A kernel version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A capability that leaktrace has a use for, see `capabilities(7)`. The value is its bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "capabilities(7) explains them")]
pub enum Capability {
    DacOverride = 1,
    DacReadSearch = 2,
    SysPtrace = 19,
    SysAdmin = 21,
    SysResource = 24,
    Perfmon = 38,
    Bpf = 39,
    CheckpointRestore = 40,
}

impl Capability {
    /// Those that leaktrace has a use for.
    pub const ALL: [Self; 8] = [
        Self::DacOverride,
        Self::DacReadSearch,
        Self::SysPtrace,
        Self::SysAdmin,
        Self::SysResource,
        Self::Perfmon,
        Self::Bpf,
        Self::CheckpointRestore,
    ];

    /// Name as the manual has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
            Self::CheckpointRestore => "CAP_CHECKPOINT_RESTORE",
        }
    }
}

/// Capabilities as the kernel's bit mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    /// Whether the kernel would let through what `capability` is for. `CAP_SYS_ADMIN` includes the three that
    /// were split off from it.
    pub const fn allows(self, capability: Capability) -> bool {
        let split_off =
            matches!(capability, Capability::Bpf | Capability::Perfmon | Capability::CheckpointRestore);
        self.contains(capability) || split_off && self.contains(Capability::SysAdmin)
    }

    /// Whether the bit is set.
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & 1 << capability as u64 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        for (release, expected) in [
            ("6.18.44-generic", Some(Version(6, 18))),
            ("5.10.0-28-amd64", Some(Version(5, 10))),
            ("6.1-rc3", Some(Version(6, 1))),
            ("5.15.167.4-microsoft-standard-WSL2", Some(Version(5, 15))),
            ("6", None),
            ("custom", None),
        ] {
            assert_eq!(Version::parse(release), expected, "{release}");
        }
        assert!(Version(5, 8) < Version(5, 17) && Version(5, 17) < Version(6, 1));
    }

    #[test]
    fn sys_admin_includes_what_was_split_off_and_no_more() {
        let admin = CapabilitySet(1 << 21);
        let allowed: Vec<_> = Capability::ALL.into_iter().filter(|c| admin.allows(*c)).collect();
        assert_eq!(
            allowed,
            [Capability::SysAdmin, Capability::Perfmon, Capability::Bpf, Capability::CheckpointRestore]
        );
        assert!(!admin.contains(Capability::Bpf));
    }
}
