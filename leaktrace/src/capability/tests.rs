//! The judgement over made-up facts, and the texts that come of it.

use rustix::io::Errno;

use super::facts::{Capability, CapabilitySet, Lockdown, Tracefs};
use super::*;
use crate::probe::load::Accepted;

/// Root on a recent kernel without a container.
fn good() -> Facts {
    Facts {
        architecture: "x86_64",
        kernel_release: "6.12.41-amd64".to_owned(),
        euid: 0,
        capabilities: CapabilitySet(0x1ff_ffff_ffff),
        initial_user_ns: true,
        initial_pid_ns: true,
        seccomp_filter: false,
        btf: Ok(()),
        ring_buffer: Ok(()),
        bpf_loop: Ok(()),
        perf_link: Ok(()),
        perf_event: Ok(()),
        uprobe_pmu: true,
        tracefs: Ok(Tracefs::Mounted("/sys/kernel/tracing".into())),
        perf_event_paranoid: Some(3),
        lockdown: Some(Lockdown::None),
        memlock: Some(8 << 20),
        ptrace_scope: Some(1),
        programs: None,
        map_files: Ok(()),
    }
}

/// A user without any capability.
fn unprivileged() -> Facts {
    Facts {
        euid: 1000,
        capabilities: CapabilitySet(0),
        ring_buffer: Err(Errno::PERM),
        bpf_loop: Err(Errno::PERM),
        perf_link: Err(Errno::PERM),
        perf_event: Err(Errno::ACCESS),
        tracefs: Err(Errno::ACCESS),
        map_files: Err(Errno::PERM),
        ..good()
    }
}

fn set(capabilities: &[Capability]) -> CapabilitySet {
    CapabilitySet(capabilities.iter().fold(0, |bits, capability| bits | 1 << *capability as u64))
}

fn text(facts: Facts) -> String {
    let mut text = Vec::new();
    Capabilities::of(facts).write_text(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// Names of the checks in a state.
fn names(facts: Facts, state: State) -> Vec<&'static str> {
    let capabilities = Capabilities::of(facts);
    capabilities.checks().iter().filter(|c| c.state == state).map(|c| c.name).collect()
}

#[test]
fn all_is_well() {
    assert_eq!(Capabilities::of(good()).require_for_run(), Ok(()));
    insta::assert_snapshot!(text(good()));
}

#[test]
fn a_user_is_told_to_become_root_and_nothing_that_follows_from_it() {
    let error = Capabilities::of(unprivileged()).require_for_run().unwrap_err();
    insta::assert_snapshot!(error);
    insta::assert_snapshot!(text(unprivileged()));
}

#[test]
fn json() {
    let mut json = Vec::new();
    Capabilities::of(unprivileged()).write_json(&mut json).unwrap();
    insta::assert_snapshot!(String::from_utf8(json).unwrap());
}

#[test]
fn the_least_set_of_capabilities_is_enough() {
    let least = set(&[Capability::SysAdmin, Capability::SysPtrace, Capability::DacOverride]);
    let facts = Facts { euid: 1000, capabilities: least, ..good() };
    assert_eq!(names(facts, State::Missing), [""; 0]);
    for missing in [Capability::SysAdmin, Capability::SysPtrace] {
        let facts = Facts { capabilities: CapabilitySet(least.0 & !(1 << missing as u64)), ..good() };
        let error = Capabilities::of(facts).require_for_run().unwrap_err();
        assert!(error.to_string().contains(missing.name()), "{error}");
    }
}

/// Each of these alone keeps `run` from working, and is the only thing that is said to.
#[test]
fn each_missing_thing_is_missing_alone() {
    let cases: &[(&str, Facts)] = &[
        ("architecture", Facts { architecture: "aarch64", ..good() }),
        ("kernel", Facts { kernel_release: "5.4.0-200-generic".into(), memlock: None, ..good() }),
        ("privileges", Facts { initial_user_ns: false, ..good() }),
        ("pid namespace", Facts { initial_pid_ns: false, ..good() }),
        ("BTF", Facts { btf: Err(Errno::NOENT), ..good() }),
        ("BPF ring buffer", Facts { ring_buffer: Err(Errno::INVAL), ..good() }),
        ("bpf_loop", Facts { bpf_loop: Err(Errno::OPNOTSUPP), ..good() }),
        ("BPF programs", Facts { programs: Some(Err("`free` is refused".to_owned())), ..good() }),
        ("perf events", Facts { perf_event: Err(Errno::PERM), seccomp_filter: true, ..good() }),
        ("uprobes", Facts { uprobe_pmu: false, ..good() }),
        ("tracefs", Facts { tracefs: Err(Errno::ACCESS), ..good() }),
        ("lockdown", Facts { lockdown: Some(Lockdown::Confidentiality), ..good() }),
        (
            "locked memory",
            Facts {
                kernel_release: "5.10.0-30-amd64".into(),
                capabilities: CapabilitySet(good().capabilities.0 & !(1 << 24)),
                ..good()
            },
        ),
    ];
    for (name, facts) in cases {
        assert_eq!(names(facts.clone(), State::Missing), [*name]);
    }
    let all: Vec<_> = cases
        .iter()
        .map(|(_, facts)| Capabilities::of(facts.clone()).require_for_run().unwrap_err().to_string())
        .collect();
    insta::assert_snapshot!("missing", all.join("\n"));
}

#[test]
fn what_only_does_less_does_not_stop_a_run() {
    let cases = [
        ("BPF perf link", Facts { perf_link: Err(Errno::OPNOTSUPP), ..good() }),
        ("map_files", Facts { map_files: Err(Errno::PERM), ..good() }),
        ("ptrace_scope", Facts { ptrace_scope: Some(3), ..good() }),
    ];
    for (name, facts) in cases {
        assert_eq!(Capabilities::of(facts.clone()).require_for_run(), Ok(()));
        assert_eq!(names(facts.clone(), State::Degraded), [name]);
        assert!(text(facts).ends_with("works here, 1 degraded.\n"));
    }
}

#[test]
fn a_confined_root_is_told_what_to_let_through() {
    let facts = Facts { capabilities: set(&[Capability::Bpf, Capability::Perfmon]), ..good() };
    let error = Capabilities::of(facts).require_for_run().unwrap_err();
    assert!(error.to_string().ends_with("start it with --cap-add SYS_ADMIN --cap-add SYS_PTRACE"), "{error}");
}

#[test]
fn a_refusal_has_its_own_reason_once_the_privileges_are_there() {
    let refused = Facts { ring_buffer: Err(Errno::PERM), seccomp_filter: true, ..good() };
    let error = Capabilities::of(refused).require_for_run().unwrap_err();
    assert!(error.to_string().contains("seccomp=unconfined"), "{error}");
}

#[test]
fn programs_that_were_accepted_are_counted() {
    let program =
        |name: &str, verified_instructions| Accepted { name: name.to_owned(), verified_instructions };
    let tried = |counts: [Option<u32>; 2]| {
        let programs = vec![program("free", counts[0]), program("malloc", counts[1])];
        let capabilities = Capabilities::of(good()).with_programs(Ok(programs));
        let mut json = Vec::new();
        capabilities.write_json(&mut json).unwrap();
        let check = capabilities.checks().iter().find(|check| check.name == "BPF programs").unwrap().clone();
        (check.detail, serde_json::from_slice::<serde_json::Value>(&json).unwrap()["programs"].clone())
    };
    let (text, json) = tried([Some(30), Some(12)]);
    assert_eq!(text, "2 accepted, 42 instructions verified");
    assert_eq!(json, serde_json::json!({"free": 30, "malloc": 12}));
    assert_eq!(tried([None, None]).0, "2 accepted");
}

#[test]
fn what_a_kernel_does_not_have_is_not_mentioned() {
    let facts = Facts { lockdown: None, ptrace_scope: None, memlock: Some(64 << 10), ..good() };
    let capabilities = Capabilities::of(facts);
    let named = |name| capabilities.checks().iter().any(|check| check.name == name);
    assert!(!named("lockdown") && !named("ptrace_scope") && !named("locked memory"));
}
