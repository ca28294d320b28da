//! The kernel's list of uprobe events.
//!
//! Comes in: nothing. Goes out: the lines of `uprobe_events`, whoever made them. Never: mounts anything where
//! another process could see it, or changes the list.

use std::fs::File;
use std::io::Read as _;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// The definitions, one a line: `p:GROUP/EVENT PATH:OFFSET …`.
pub fn uprobe_events() -> Vec<String> {
    let mut text = String::new();
    open().read_to_string(&mut text).expect("uprobe_events can be read");
    text.lines().map(str::to_owned).collect()
}

fn open() -> File {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    if let Ok(mounted) = openat(CWD, "/sys/kernel/tracing/uprobe_events", flags, Mode::empty()) {
        return File::from(mounted);
    }
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC).expect("the kernel has tracefs");
    fsconfig_create(&context).expect("root may mount tracefs");
    let detached = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
        .expect("root may mount tracefs");
    File::from(openat(detached, "uprobe_events", flags, Mode::empty()).expect("the kernel has uprobes"))
}
