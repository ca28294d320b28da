//! A running process, by what `/proc/PID` says of it.
//!
//! Comes in: a pid, or the key of a process that was seen before. Goes out: identity, name, executable,
//! threads, resident size, or the reason for which it can't be traced. All reads go through one descriptor of
//! `/proc/PID`, so a pid that is reused in between is an error, not another process. Never: the target's memory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use leaktrace_common::process::TICK_NS;
use procfs::ProcError;
use procfs::process::{Process as Directory, Stat};
use rustix::fs::OFlags;

use super::root::{HOLD, READ, Root};
use super::shadow_stack::forbids_return_probes;
use crate::event::{Comm, Pid, ProcessKey, Tid};

/// Task flag of a kernel thread (`PF_KTHREAD` in the kernel's `sched.h`).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// What the kernel appends to the path of a file that has no name any more.
const DELETED: &[u8] = b" (deleted)";

/// Why a process can't be looked at or traced.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text names its fields")]
pub enum ProcessError {
    /// Not there, or another process by now.
    #[error("there is no process {pid} (any more); `ps -e` lists those that run")]
    NoSuchProcess { pid: Pid },
    /// It has no user memory.
    #[error("process {pid} ({comm}) is a kernel thread, which has no heap; choose a user process")]
    KernelThread { pid: Pid, comm: String },
    /// Its pointers and registers are not those that the probes read.
    #[error("process {pid} runs a 32-bit program, {exe}; only 64-bit ones can be traced: use a 64-bit build")]
    ThirtyTwoBit { pid: Pid, exe: String },
    /// A return probe would end it.
    #[error(
        "process {pid} guards its return addresses with a shadow stack, which this kernel's return probes would \
         upset; use Linux 6.11 or newer, or start the process without GLIBC_TUNABLES' x86_shstk"
    )]
    ShadowStack { pid: Pid },
    /// Another user's process.
    #[error(
        "may not read /proc/{pid}/{what}; run leaktrace as root or give it CAP_SYS_PTRACE \
         (in a container also: share the host's pid namespace)"
    )]
    Permission { pid: Pid, what: &'static str },
    /// Anything else.
    #[error("can't read /proc/{pid}/{what}: {reason}; is /proc mounted?")]
    Unreadable { pid: Pid, what: &'static str, reason: String },
    /// `/proc` itself.
    #[error("can't list /proc: {reason}; is it mounted?")]
    NoProc { reason: String },
}

/// An executable's path as the process sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exe {
    /// Without the kernel's ` (deleted)`.
    pub path: PathBuf,
    /// Whether the file has lost its name: replaced by an upgrade, say.
    pub deleted: bool,
}

/// A process found by [`list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub key: ProcessKey,
    /// Its name.
    pub comm: Comm,
}

/// A user process that ran when it was opened.
#[derive(Debug)]
pub struct Process {
    directory: Directory,
    /// A living thread's, if the leader has ended: the memory can't be seen through the leader any more.
    thread: Option<Directory>,
    key: ProcessKey,
    parent: Pid,
}

impl Process {
    /// Opens the process that has the pid now. A process whose every thread has ended is gone, even while its
    /// parent has not waited for it.
    pub fn open(pid: Pid) -> Result<Self, ProcessError> {
        let failed = |error| ProcessError::of(pid, "stat", error);
        let directory = Directory::new(pid.0 as i32).map_err(failed)?;
        let stat = directory.stat().map_err(failed)?;
        if stat.flags & KERNEL_THREAD != 0 {
            return Err(ProcessError::KernelThread { pid, comm: stat.comm });
        }
        let key = ProcessKey { pid, start_ns: stat.starttime * TICK_NS };
        let mut process = Self { directory, thread: None, key, parent: Pid(stat.ppid as u32) };
        if has_ended(&stat) {
            let threads = process.threads()?;
            let mut living = threads.iter().filter_map(|tid| open_thread(*tid, pid));
            process.thread = Some(living.next().ok_or(ProcessError::NoSuchProcess { pid })?);
        }
        Ok(process)
    }

    /// Opens the very process that was seen before.
    pub fn open_same(key: ProcessKey) -> Result<Self, ProcessError> {
        let process = Self::open(key.pid)?;
        if process.key == key { Ok(process) } else { Err(ProcessError::NoSuchProcess { pid: key.pid }) }
    }

    /// Its identity.
    pub fn key(&self) -> ProcessKey {
        self.key
    }

    /// Its parent when it was opened.
    pub fn parent(&self) -> Pid {
        self.parent
    }

    /// Its present name.
    pub fn comm(&self) -> Result<Comm, ProcessError> {
        // Not from `stat`, which escapes a backslash.
        let mut name = self.read(&self.directory, "comm")?;
        name.pop();
        Ok(Comm(String::from_utf8_lossy(&name).into_owned()))
    }

    /// Its executable.
    pub fn exe(&self) -> Result<Exe, ProcessError> {
        let path = self.living().exe().map_err(|error| self.failed("exe", error))?;
        let (path, deleted) = without_deleted(path.as_os_str().as_bytes());
        Ok(Exe { path: PathBuf::from(OsStr::from_bytes(path)), deleted })
    }

    /// Whether the probes could work in it: a 64-bit program that we may look into.
    pub fn check_traceable(&self) -> Result<(), ProcessError> {
        let mut identification = [0; 5];
        let mut exe = self.open_file(self.living(), "exe", READ)?;
        exe.read_exact(&mut identification).map_err(|error| self.failed("exe", error.into()))?;
        // The fifth byte is the class: ELFCLASS32 is 1, which an x32 program has too.
        if identification == *b"\x7fELF\x01" {
            let exe = self.exe()?.path.display().to_string();
            return Err(ProcessError::ThirtyTwoBit { pid: self.key.pid, exe });
        }
        let status = String::from_utf8_lossy(&self.read(self.living(), "status")?).into_owned();
        let release = rustix::system::uname();
        if forbids_return_probes(&status, &release.release().to_string_lossy()) {
            return Err(ProcessError::ShadowStack { pid: self.key.pid });
        }
        Ok(())
    }

    /// Resident memory; `None` once it has ended.
    pub fn rss_bytes(&self) -> Option<u64> {
        let pages = self.living().statm().ok()?.resident;
        (pages > 0).then(|| pages * rustix::param::page_size() as u64)
    }

    /// Whether it has been on a CPU, as far as the scheduler says.
    pub fn has_run(&self) -> bool {
        // Without scheduler statistics it may have. The time that it ran is brought up to date only now and then.
        self.directory.schedstat().map_or(true, |statistics| statistics.pcount > 0)
    }

    /// Where its program begins: the dynamic loader's entry, or the program's own without one.
    pub fn first_instruction(&self) -> Option<u64> {
        const AT_BASE: u64 = 7;
        const AT_ENTRY: u64 = 9;
        /// Offset of `e_entry` in an ELF file of 64 bits.
        const ENTRY: u64 = 24;
        let auxiliary = self.directory.auxv().ok()?;
        match auxiliary.get(&AT_BASE).copied() {
            None | Some(0) => auxiliary.get(&AT_ENTRY).copied(),
            Some(base) => {
                let mut entry = [0; 8];
                self.directory.mem().ok()?.read_exact_at(&mut entry, base + ENTRY).ok()?;
                Some(base + u64::from_le_bytes(entry))
            }
        }
    }

    /// Threads that have not ended, the first being the leader if it is among them. A leader may end before
    /// the others do.
    pub fn threads(&self) -> Result<Vec<Tid>, ProcessError> {
        let tasks = self.directory.tasks().map_err(|error| self.failed("task", error))?;
        // A thread may end while the list is read.
        let alive = tasks.flatten().filter(|task| task.stat().is_ok_and(|stat| !has_ended(&stat)));
        let mut threads: Vec<_> = alive.map(|task| Tid(task.tid as u32)).collect();
        threads.sort_unstable_by_key(|tid| (tid.0 != self.key.pid.0, *tid));
        Ok(threads)
    }

    /// The pid by which it knows itself: another one in a container.
    pub fn inner_pid(&self) -> Result<Pid, ProcessError> {
        let status = self.directory.status().map_err(|error| self.failed("status", error))?;
        let inner = status.nstgid.and_then(|pids| pids.last().copied());
        Ok(inner.map_or(self.key.pid, |pid| Pid(pid as u32)))
    }

    /// The file tree that it sees.
    pub fn root(&self) -> Result<Root, ProcessError> {
        Ok(Root::held(self.open_file(self.living(), "root", HOLD)?))
    }

    /// The bytes of `/proc/PID/maps`; none if it is about to end.
    pub(super) fn maps(&self) -> Result<Vec<u8>, ProcessError> {
        self.read(self.living(), "maps")
    }

    /// The file behind one of its mappings, even if it has no name any more or another mount namespace's.
    /// Needs `CAP_CHECKPOINT_RESTORE` (or `CAP_SYS_ADMIN`).
    pub(super) fn mapped_file(&self, start: u64, end: u64) -> io::Result<File> {
        let link = format!("map_files/{start:x}-{end:x}");
        self.living().open_relative_flags(link, READ).map_err(io::Error::other)
    }

    fn living(&self) -> &Directory {
        self.thread.as_ref().unwrap_or(&self.directory)
    }

    fn read(&self, directory: &Directory, what: &'static str) -> Result<Vec<u8>, ProcessError> {
        let mut bytes = Vec::new();
        let read = self.open_file(directory, what, READ)?.read_to_end(&mut bytes);
        read.map_err(|error| self.failed(what, error.into()))?;
        Ok(bytes)
    }

    fn open_file(
        &self,
        directory: &Directory,
        what: &'static str,
        flags: OFlags,
    ) -> Result<File, ProcessError> {
        directory.open_relative_flags(what, flags).map_err(|error| self.failed(what, error))
    }

    fn failed(&self, what: &'static str, error: ProcError) -> ProcessError {
        ProcessError::of(self.key.pid, what, error)
    }
}

impl ProcessError {
    fn of(pid: Pid, what: &'static str, error: ProcError) -> Self {
        let ended = |error: &io::Error| {
            error.raw_os_error() == Some(libc::ESRCH) || error.kind() == io::ErrorKind::NotFound
        };
        match error {
            ProcError::NotFound(_) => Self::NoSuchProcess { pid },
            ProcError::Io(error, _) if ended(&error) => Self::NoSuchProcess { pid },
            ProcError::PermissionDenied(_) => Self::Permission { pid, what },
            ProcError::Io(error, _) if error.kind() == io::ErrorKind::PermissionDenied => {
                Self::Permission { pid, what }
            }
            other => Self::Unreadable { pid, what, reason: other.to_string() },
        }
    }
}

/// All user processes that run. One that ends meanwhile is left out.
pub fn list() -> Result<Vec<Listed>, ProcessError> {
    let processes = procfs::process::all_processes()
        .map_err(|error| ProcessError::NoProc { reason: error.to_string() })?;
    let open = processes.flatten().filter_map(|found| Process::open(Pid(found.pid as u32)).ok());
    Ok(open.filter_map(|process| Some(Listed { key: process.key, comm: process.comm().ok()? })).collect())
}

/// `/proc/TID`, which is not listed but there, of a thread of a process.
fn open_thread(tid: Tid, of: Pid) -> Option<Directory> {
    let directory = Directory::new(tid.0 as i32).ok()?;
    let status = directory.status().ok()?;
    (status.tgid == of.0 as i32).then_some(directory)
}

fn has_ended(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X' | 'x')
}

/// A path without the kernel's mark, and whether it had one.
pub(super) fn without_deleted(path: &[u8]) -> (&[u8], bool) {
    path.strip_suffix(DELETED).map_or((path, false), |path| (path, true))
}

/// A path from bytes.
pub(super) fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::target::programs::{Running, Workshop};

    #[test]
    fn our_own_process() {
        let process = Process::open(Pid(std::process::id())).unwrap();
        assert_eq!(process.exe().unwrap(), Exe { path: std::env::current_exe().unwrap(), deleted: false });
        assert_eq!(process.parent(), Pid(std::os::unix::process::parent_id()));
        assert_eq!(process.inner_pid().unwrap(), process.key().pid);
        assert!(process.rss_bytes().unwrap() > 1 << 20);
        assert!(
            process.threads().unwrap().contains(&Tid(rustix::thread::gettid().as_raw_nonzero().get() as u32))
        );
        process.check_traceable().unwrap();
        Process::open_same(process.key()).unwrap();
    }

    #[test]
    fn start_time_is_since_boot() {
        let shop = Workshop::new();
        let before = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let running = Running::start(&shop.c(IDLE, "idle", &[]));
        let after = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let ns = |t: rustix::time::Timespec| t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64;
        let start = running.process().key().start_ns;
        assert!(
            start.is_multiple_of(TICK_NS) && start + TICK_NS > ns(before) && start <= ns(after),
            "{start}"
        );
    }

    const IDLE: &str = r#"#include <stdio.h>
        int main(void) { puts("ready"); fflush(stdout); return getchar(); }"#;

    #[test]
    fn a_comm_with_parentheses_spaces_and_backslashes() {
        let shop = Workshop::new();
        let program = shop.c(IDLE, r"a) R 1 (b\c", &[]);
        let running = Running::start(&program);
        let process = running.process();
        assert_eq!(process.comm().unwrap(), Comm(r"a) R 1 (b\c".into()));
        assert_eq!(process.parent(), Pid(std::process::id()));
        let listed = list().unwrap();
        assert!(listed.contains(&Listed { key: process.key(), comm: Comm(r"a) R 1 (b\c".into()) }));
        assert!(listed.iter().all(|listed| listed.key.pid != Pid(2)), "kernel threads are no targets");
    }

    #[test]
    fn an_executable_that_was_deleted() {
        let shop = Workshop::new();
        let program = shop.c(IDLE, "gone", &[]);
        let running = Running::start(&program);
        std::fs::remove_file(&program).unwrap();
        assert_eq!(running.process().exe().unwrap(), Exe { path: program, deleted: true });
        running.process().check_traceable().unwrap();
    }

    #[test]
    fn a_process_that_ended_is_gone_even_before_it_was_waited_for() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = Pid(child.id());
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        while !state().contains(") Z ") {
            std::thread::yield_now();
        }
        assert!(matches!(Process::open(pid), Err(ProcessError::NoSuchProcess { .. })));
        child.wait().unwrap();
        let error = Process::open(pid).unwrap_err();
        assert!(matches!(error, ProcessError::NoSuchProcess { .. }));
        assert!(error.to_string().contains("`ps -e`"));
    }

    #[test]
    fn an_opened_process_does_not_become_another() {
        let shop = Workshop::new();
        let running = Running::start(&shop.c(IDLE, "idle", &[]));
        let process = running.process();
        running.end();
        assert_eq!(process.rss_bytes(), None);
        assert!(matches!(process.comm(), Err(ProcessError::NoSuchProcess { .. })));
        assert!(matches!(process.maps(), Err(ProcessError::NoSuchProcess { .. })));
        let earlier = ProcessKey { pid: Pid(std::process::id()), start_ns: 0 };
        assert!(matches!(Process::open_same(earlier), Err(ProcessError::NoSuchProcess { .. })));
    }

    #[test]
    fn threads_without_their_leader() {
        let shop = Workshop::new();
        let source = r#"#define _GNU_SOURCE
            #include <pthread.h>
            #include <stdio.h>
            static void *wait(void *leader) {
                pthread_join(*(pthread_t *)leader, 0);
                pthread_setname_np(pthread_self(), "other");
                puts("ready"); fflush(stdout);
                getchar();
                return 0;
            }
            int main(void) {
                static pthread_t leader; leader = pthread_self();
                pthread_t other; pthread_create(&other, 0, wait, &leader);
                pthread_exit(0);
            }"#;
        let running = Running::start(&shop.c(source, "headless", &["-pthread"]));
        let leader = Tid(running.pid().0);
        // Joined is a little earlier than ended.
        let threads = loop {
            let threads = running.process().threads().unwrap();
            if !threads.contains(&leader) {
                break threads;
            }
            std::thread::yield_now();
        };
        assert_eq!(threads.len(), 1);
        let process = running.process();
        process.check_traceable().unwrap();
        assert!(process.exe().unwrap().path.ends_with("headless"));
        assert_eq!(process.comm().unwrap(), Comm("headless".into()));
        assert!(process.rss_bytes().is_some() && !process.maps().unwrap().is_empty());
        assert_eq!(process.inner_pid().unwrap(), running.pid());
    }

    #[test]
    fn a_kernel_thread_says_so() {
        let of_kernel = |pid: &Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains("(kthreadd)")
        };
        let Some(pid) = Some(Pid(2)).filter(of_kernel) else {
            eprintln!("skipped: no kernel threads in this pid namespace");
            return;
        };
        let error = Process::open(pid).unwrap_err();
        assert!(matches!(&error, ProcessError::KernelThread { comm, .. } if comm == "kthreadd"), "{error}");
    }

    #[test]
    fn a_32_bit_program_says_so() {
        let shop = Workshop::new();
        // No C library for 32 bits is needed: write(1, "ready\n", 6), then pause().
        let source = r#"void _start(void) {
            static const char ready[] = "ready\n"; int r;
            __asm__ volatile("int $0x80" : "=a"(r) : "a"(4), "b"(1), "c"(ready), "d"(6));
            __asm__ volatile("int $0x80" : "=a"(r) : "a"(29));
        }"#;
        let flags =
            ["-m32", "-static", "-nostdlib", "-fno-pic", "-fno-stack-protector", "-fcf-protection=none"];
        let program = shop.c(source, "small", &flags);
        let Some(running) = Running::try_start(&mut Command::new(&program)) else {
            eprintln!("skipped: this kernel runs no 32-bit programs");
            return;
        };
        let error = running.process().check_traceable().unwrap_err();
        let ProcessError::ThirtyTwoBit { exe, .. } = &error else { panic!("{error}") };
        assert_eq!(*exe, program.display().to_string());
    }

    #[test]
    fn without_the_privilege_it_is_named() {
        let shop = Workshop::new();
        let running = Running::start(&shop.c(IDLE, "idle", &[]));
        let pid = running.pid();
        // A thread's own user id: glibc's setresuid would change all threads'.
        let unprivileged = std::thread::spawn(move || {
            // SAFETY: setresuid takes three numbers and touches no memory.
            let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
            (changed == 0).then(|| Process::open(pid).unwrap().check_traceable())
        });
        match unprivileged.join().unwrap() {
            None => eprintln!("skipped: may not become another user"),
            Some(result) => {
                let error = result.unwrap_err();
                assert!(matches!(error, ProcessError::Permission { what: "exe", .. }), "{error}");
                assert!(error.to_string().contains("CAP_SYS_PTRACE"), "{error}");
            }
        }
    }
}
