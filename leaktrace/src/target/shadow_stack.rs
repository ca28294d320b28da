//! Whether a process's return addresses are guarded by a shadow stack that return probes would upset.
//!
//! Comes in: `/proc/PID/status`, the kernel's release. Goes out: yes or no. Never: a guess in favour of probing: a
//! return address that differs from its shadow ends the process.
//!
//! User shadow stacks came with Linux 6.6; return probes write both copies since 6.11 (commit 1713b63a07a2,
//! "x86/shstk: Make return uprobe work with shadow stack").

/// First release whose return probes know of shadow stacks.
const SAFE_SINCE: (u32, u32) = (6, 11);

/// Whether return probes would end the process.
pub(super) fn forbids_return_probes(status: &str, release: &str) -> bool {
    has_shadow_stack(status) && version(release).is_none_or(|version| version < SAFE_SINCE)
}

fn has_shadow_stack(status: &str) -> bool {
    let features = status.lines().find_map(|line| line.strip_prefix("x86_Thread_features:"));
    features.is_some_and(|features| features.split_whitespace().any(|feature| feature == "shstk"))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH: &str = "Name:\tx\nx86_Thread_features:\tshstk \nx86_Thread_features_locked:\tshstk wrss \n";
    const WITHOUT: &str = "Name:\tshstk\nx86_Thread_features:\t\nx86_Thread_features_locked:\t\n";

    #[test]
    fn only_a_shadow_stack_on_an_older_kernel_forbids_return_probes() {
        for (status, release, forbidden) in [
            (WITH, "6.6.30-amd64", true),
            (WITH, "6.10.11", true),
            (WITH, "6.11.0-rc1", false),
            (WITH, "7.2.13+deb14-cloud-amd64", false),
            (WITH, "strange", true),
            (WITHOUT, "6.6.30", false),
            ("", "6.6.30", false),
        ] {
            assert_eq!(forbids_return_probes(status, release), forbidden, "{status:?} on {release}");
        }
    }
}
