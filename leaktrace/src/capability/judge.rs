//! From facts to checks: what each fact means for tracing, and what to do about it.
//!
//! Comes in: [`Facts`]. Goes out: one [`Check`] per thing that tracing needs. Never: looks anything up; the same
//! facts always give the same checks.

use rustix::io::Errno;

use super::check::{Check, State};
use super::facts::{Attempt, Capability, Facts, Lockdown, Tracefs, Version};

/// What attaching takes, and why.
const REQUIRED: [(Capability, &str); 4] = [
    (Capability::Bpf, "load BPF programs"),
    (Capability::Perfmon, "let them read the traced program's memory"),
    (Capability::SysAdmin, "create and open uprobe events"),
    (Capability::SysPtrace, "read the mappings of others' processes"),
];

/// The ring buffer of BPF.
const OLDEST_KERNEL: Version = Version(5, 8);

/// The oldest kernel with all that the kernel side needs: `bpf_loop` (5.17), sleepable uprobe programs (6.0), maps
/// that allocate in them (6.1). Distributions bring some of it to older ones, so each is asked for by itself.
const NEWER_KERNEL: &str = "boot Linux 6.1 or newer";

/// From here on BPF's memory is not counted as locked memory.
const KERNEL_WITHOUT_MEMLOCK: Version = Version(5, 11);

pub(super) fn judge(facts: &Facts) -> Vec<Check> {
    [
        Some(architecture(facts)),
        Some(kernel(facts)),
        Some(privileges(facts)),
        Some(pid_namespace(facts)),
        Some(btf(facts)),
        Some(ring_buffer(facts)),
        Some(bpf_loop(facts)),
        Some(perf_link(facts)),
        Some(perf_event(facts)),
        Some(uprobes(facts)),
        Some(tracefs(facts)),
        programs(facts),
        Some(map_files(facts)),
        lockdown(facts),
        memlock(facts),
        ptrace_scope(facts),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check(name: &'static str, state: State, detail: impl Into<String>, remedy: &str) -> Check {
    Check { name, state, detail: detail.into(), remedy: Some(remedy.to_owned()) }
}

fn ok(name: &'static str, detail: impl Into<String>) -> Check {
    Check { name, state: State::Ok, detail: detail.into(), remedy: None }
}

/// Judges what was tried: whether it was refused for want of privileges that are listed as missing already, or for
/// a reason of its own.
fn attempted(
    facts: &Facts,
    name: &'static str,
    attempt: Attempt,
    granted: &str,
    refused: impl FnOnce(Errno) -> Check,
) -> Check {
    match attempt {
        Ok(()) => ok(name, granted),
        Err(errno @ (Errno::PERM | Errno::ACCESS)) if !is_privileged(facts) => Check {
            name,
            state: State::Unknown,
            detail: format!("can't be told without the privileges: {}", message(errno)),
            remedy: None,
        },
        Err(errno) => refused(errno),
    }
}

/// As `perror(3)` says it, with the name that manuals use.
fn message(errno: Errno) -> String {
    let name = match errno {
        Errno::PERM => "EPERM",
        Errno::ACCESS => "EACCES",
        Errno::NOSYS => "ENOSYS",
        Errno::NOENT => "ENOENT",
        Errno::INVAL => "EINVAL",
        Errno::NODEV => "ENODEV",
        Errno::ROFS => "EROFS",
        _ => return errno.to_string(),
    };
    let text = errno.to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    format!("{text} ({name})")
}

fn is_privileged(facts: &Facts) -> bool {
    facts.initial_user_ns && missing_capabilities(facts).next().is_none()
}

fn missing_capabilities(facts: &Facts) -> impl Iterator<Item = (Capability, &'static str)> {
    REQUIRED.into_iter().filter(|(capability, _)| !facts.capabilities.allows(*capability))
}

fn architecture(facts: &Facts) -> Check {
    const NAME: &str = "architecture";
    match facts.architecture {
        "x86_64" => ok(NAME, "x86_64"),
        other => check(NAME, State::Missing, other, "leaktrace traces x86-64 programs only"),
    }
}

fn kernel(facts: &Facts) -> Check {
    const NAME: &str = "kernel";
    let release = facts.kernel_release.as_str();
    match facts.kernel() {
        Some(version) if version >= OLDEST_KERNEL => ok(NAME, release),
        Some(_) => check(
            NAME,
            State::Missing,
            format!("{release} is older than {OLDEST_KERNEL}, the first with BPF ring buffers"),
            NEWER_KERNEL,
        ),
        None => check(
            NAME,
            State::Unknown,
            format!("can't read a version from `{release}`"),
            "the checks below tell more",
        ),
    }
}

fn privileges(facts: &Facts) -> Check {
    const NAME: &str = "privileges";
    let missing: Vec<_> = missing_capabilities(facts).collect();
    if !missing.is_empty() {
        let list: Vec<_> = missing
            .iter()
            .map(|(capability, purpose)| format!("{} ({purpose})", capability.name()))
            .collect();
        let remedy = if facts.euid == 0 {
            let options: Vec<_> = missing
                .iter()
                .map(|(capability, _)| format!("--cap-add {}", capability.name().trim_start_matches("CAP_")))
                .collect();
            format!("root is confined here; in a container, start it with {}", options.join(" "))
        } else {
            "run it as root: sudo leaktrace …".to_owned()
        };
        return check(NAME, State::Missing, format!("no {}", list.join(", no ")), &remedy);
    }
    if !facts.initial_user_ns {
        return check(
            NAME,
            State::Missing,
            "in a user namespace, whose capabilities do not reach BPF",
            "run it outside the rootless container, or outside `unshare --user`",
        );
    }
    ok(
        NAME,
        if facts.euid == 0 { "root".to_owned() } else { format!("all needed ones, as uid {}", facts.euid) },
    )
}

fn pid_namespace(facts: &Facts) -> Check {
    const NAME: &str = "pid namespace";
    if facts.initial_pid_ns {
        return ok(NAME, "the host's");
    }
    check(
        NAME,
        State::Missing,
        "a container's own; the kernel reports the host's pids",
        "share the host's: docker run --pid=host, or hostPID: true in a pod",
    )
}

fn btf(facts: &Facts) -> Check {
    const NAME: &str = "BTF";
    attempted(facts, NAME, facts.btf, "/sys/kernel/btf/vmlinux", |errno| {
        check(
            NAME,
            State::Missing,
            format!("/sys/kernel/btf/vmlinux: {}", message(errno)),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, mount /sys/kernel/btf",
        )
    })
}

/// What to suspect if the kernel refuses what the privileges allow.
fn suspect(facts: &Facts) -> &'static str {
    if facts.seccomp_filter {
        "a seccomp filter is on: let bpf(2) and perf_event_open(2) through \
         (docker run --security-opt seccomp=unconfined)"
    } else {
        "look for a security module (SELinux, AppArmor, lockdown) that denies it: dmesg, audit log"
    }
}

fn ring_buffer(facts: &Facts) -> Check {
    const NAME: &str = "BPF ring buffer";
    attempted(facts, NAME, facts.ring_buffer, "can be created", |errno| {
        let remedy = match errno {
            Errno::NOSYS => "use a kernel built with CONFIG_BPF_SYSCALL=y",
            Errno::INVAL => "use kernel 5.8 or newer",
            _ => suspect(facts),
        };
        check(NAME, State::Missing, message(errno), remedy)
    })
}

fn bpf_loop(facts: &Facts) -> Check {
    const NAME: &str = "bpf_loop";
    attempted(facts, NAME, facts.bpf_loop, "can be called", |errno| match errno {
        Errno::OPNOTSUPP => check(
            NAME,
            State::Missing,
            "not in this kernel, so a process could not wait for its probes",
            NEWER_KERNEL,
        ),
        errno => check(NAME, State::Missing, message(errno), suspect(facts)),
    })
}

fn perf_link(facts: &Facts) -> Check {
    const NAME: &str = "BPF perf link";
    attempted(facts, NAME, facts.perf_link, "can be created", |errno| match errno {
        Errno::OPNOTSUPP => check(
            NAME,
            State::Degraded,
            "not in this kernel; programs are attached by ioctl",
            "use kernel 5.15 or newer",
        ),
        errno => check(NAME, State::Degraded, message(errno), suspect(facts)),
    })
}

fn perf_event(facts: &Facts) -> Check {
    const NAME: &str = "perf events";
    let detail = match facts.perf_event_paranoid {
        Some(level) => format!("can be opened (perf_event_paranoid={level})"),
        None => "can be opened".to_owned(),
    };
    attempted(facts, NAME, facts.perf_event, &detail, |errno| {
        let remedy = match errno {
            Errno::NOSYS if !facts.seccomp_filter => "use a kernel built with CONFIG_PERF_EVENTS=y",
            _ => suspect(facts),
        };
        check(NAME, State::Missing, message(errno), remedy)
    })
}

fn uprobes(facts: &Facts) -> Check {
    const NAME: &str = "uprobes";
    if facts.uprobe_pmu {
        return ok(NAME, "in the kernel");
    }
    check(
        NAME,
        State::Missing,
        "/sys/bus/event_source/devices/uprobe is not there",
        "use a kernel built with CONFIG_UPROBE_EVENTS=y; in a container, mount /sys",
    )
}

fn tracefs(facts: &Facts) -> Check {
    const NAME: &str = "tracefs";
    let detail = match &facts.tracefs {
        Ok(Tracefs::Mounted(directory)) => directory.display().to_string(),
        Ok(Tracefs::Private) => "not mounted; leaktrace mounts it for itself".to_owned(),
        Err(_) => String::new(),
    };
    let attempt = facts.tracefs.as_ref().map(drop).map_err(|errno| *errno);
    attempted(facts, NAME, attempt, &detail, |errno| {
        let remedy = match errno {
            Errno::ACCESS if facts.euid != 0 => {
                "uprobe_events is root's: run as root, or add CAP_DAC_OVERRIDE"
            }
            Errno::ROFS => "it is mounted read-only: mount -o remount,rw /sys/kernel/tracing",
            Errno::NODEV | Errno::NOENT => "use a kernel built with CONFIG_UPROBE_EVENTS=y",
            _ => suspect(facts),
        };
        check(NAME, State::Missing, format!("uprobe_events: {}", message(errno)), remedy)
    })
}

/// Nothing to say if it was not tried.
fn programs(facts: &Facts) -> Option<Check> {
    const NAME: &str = "BPF programs";
    Some(match facts.programs.as_ref()? {
        Ok(programs) => {
            let verified: u32 = programs.iter().filter_map(|program| program.verified_instructions).sum();
            let verified =
                if verified > 0 { format!(", {verified} instructions verified") } else { String::new() };
            ok(NAME, format!("{} accepted{verified}", programs.len()))
        }
        Err(said) => check(NAME, State::Missing, said, "boot a kernel that docs/kernel-support.md names"),
    })
}

fn map_files(facts: &Facts) -> Check {
    const NAME: &str = "map_files";
    let sees_others = facts.euid == 0
        || facts.capabilities.contains(Capability::DacReadSearch)
        || facts.capabilities.contains(Capability::DacOverride);
    let degraded = |detail: String| {
        check(
            NAME,
            State::Degraded,
            format!("{detail}: files that were replaced since they were mapped have no symbols"),
            "run as root, or add CAP_CHECKPOINT_RESTORE and CAP_DAC_READ_SEARCH",
        )
    };
    match facts.map_files {
        Ok(()) if sees_others => ok(NAME, "readable, replaced files included"),
        Ok(()) => degraded("readable for own processes only".to_owned()),
        Err(errno) => degraded(message(errno)),
    }
}

/// Nothing to say on a kernel that does not show it.
fn lockdown(facts: &Facts) -> Option<Check> {
    const NAME: &str = "lockdown";
    Some(match facts.lockdown? {
        Lockdown::None => ok(NAME, "off"),
        Lockdown::Integrity => ok(NAME, "integrity, which allows tracing"),
        Lockdown::Confidentiality => check(
            NAME,
            State::Missing,
            "confidentiality: the kernel lets nobody trace",
            "boot with lockdown=integrity, or without Secure Boot",
        ),
    })
}

/// Nothing to say on a kernel that does not count BPF's memory as locked.
fn memlock(facts: &Facts) -> Option<Check> {
    const NAME: &str = "locked memory";
    let applies = facts.kernel().is_some_and(|version| version < KERNEL_WITHOUT_MEMLOCK);
    let limit = facts.memlock.filter(|_| applies)?;
    Some(if facts.capabilities.contains(Capability::SysResource) {
        ok(NAME, "limited, but CAP_SYS_RESOURCE can raise it")
    } else {
        check(
            NAME,
            State::Missing,
            format!("limited to {limit} bytes; before {KERNEL_WITHOUT_MEMLOCK} BPF maps count as locked"),
            "run `ulimit -l unlimited` first, or add CAP_SYS_RESOURCE",
        )
    })
}

/// Nothing to say on a kernel without Yama.
fn ptrace_scope(facts: &Facts) -> Option<Check> {
    const NAME: &str = "ptrace_scope";
    Some(match facts.ptrace_scope? {
        3 => check(
            NAME,
            State::Degraded,
            "3: nobody may read the memory of another process",
            "reboot with kernel.yama.ptrace_scope=2 or less (3 stays until then)",
        ),
        level => ok(NAME, format!("{level}, which CAP_SYS_PTRACE passes")),
    })
}
