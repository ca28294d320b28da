//! The files whose code targets run, kept open so that they outlive their names and their processes.
//!
//! Comes in: executable mappings of a live process. Goes out: one shared [`ModuleFile`] per file, whichever
//! process maps it. The number of descriptors is bounded; beyond it a file is known by its path only, and says
//! so. A file is closed when nothing refers to it any more. Never: symbols, writes.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustc_hash::FxHashMap;
use rustix::fs::{FileType, Stat, fstat, major, makedev};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::elf::Elf;
use super::maps::Line;
use super::process::{Process, path_of, without_deleted};
use super::root::Root;

/// Names a [`ModuleFile`] of one registry. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(u64);

/// A file that is or was mapped for execution.
///
/// While it is kept open, its inode can't be reused: hold the `Arc` as long as anything derived from it.
#[derive(Debug)]
pub struct ModuleFile {
    id: FileId,
    path: PathBuf,
    device: u64,
    inode: u64,
    elf: Option<Elf>,
    kept: Result<Kept, Unkept>,
}

/// Why a file is known by its path only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unkept {
    /// Enough descriptors are open.
    #[error("the limit on open files is reached; raise it (`ulimit -n`)")]
    Limit,
    /// It could not be opened.
    #[error("{0}; run leaktrace as root or give it CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE")]
    Unopened(String),
    /// Opening it could have effects: a device.
    #[error("it is no regular file")]
    Irregular,
}

/// An open file and its place in the budget.
#[derive(Debug)]
struct Kept {
    file: File,
    _slot: Slot,
}

impl ModuleFile {
    /// Its name in this registry.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Its path, as the first process that was seen with it sees it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its ELF headers; `None` if it is no 64-bit ELF file or was never opened.
    pub fn elf(&self) -> Option<&Elf> {
        self.elf.as_ref()
    }

    /// Its build id, hexadecimal.
    pub fn build_id(&self) -> Option<&str> {
        self.elf.as_ref()?.build_id.as_deref()
    }

    /// Its descriptor, or why there is none. Don't `read` or `seek` on it: all users share its position.
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>, &Unkept> {
        self.kept.as_ref().map(|kept| kept.file.as_fd())
    }

    /// A path that opens this very file as long as the `ModuleFile` lives, whatever became of its name; `None`
    /// without a descriptor.
    pub fn descriptor_path(&self) -> Option<PathBuf> {
        Some(descriptor_path(&self.kept.as_ref().ok()?.file))
    }

    /// Opens it anew, with a position of its own. A file that was not kept is looked for by its path in `root`.
    pub fn open(&self, root: Option<&Root>) -> io::Result<File> {
        if let Ok(kept) = &self.kept {
            return File::open(descriptor_path(&kept.file));
        }
        let root = root.ok_or_else(|| io::Error::other("the process whose file this was is gone"))?;
        let file = root.open(&self.path)?;
        if is_same(&fstat(&file)?, self.device, self.inode) {
            Ok(file)
        } else {
            Err(io::Error::other("another file has its path now"))
        }
    }
}

/// A path that opens what a descriptor of ours refers to.
pub(crate) fn descriptor_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// `/proc/PID/maps` and `stat` agree on the inode; not on the device if the file system has several (btrfs,
/// overlayfs), which are all anonymous: major number 0.
fn is_same(stat: &Stat, device: u64, inode: u64) -> bool {
    stat.st_ino == inode && (stat.st_dev == device || (major(stat.st_dev) == 0 && major(device) == 0))
}

/// Raises the number of files that we may open to what the system allows; returns it.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let effective = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    effective.current.unwrap_or(u64::MAX)
}

/// How many files may be kept open.
#[derive(Debug)]
struct Budget {
    limit: usize,
    used: AtomicUsize,
}

/// One of them.
#[derive(Debug)]
struct Slot(Arc<Budget>);

impl Budget {
    fn take(self: &Arc<Self>) -> Option<Slot> {
        let more = |used| (used < self.limit).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What makes two mappings the same file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Identity {
    /// Kept open: no other file can get the inode.
    Kept { device: u64, inode: u64 },
    /// Not kept: the path must agree too.
    Named { device: u64, inode: u64, path: PathBuf },
}

/// Changes when a file is written to in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: i64,
    modified: (i64, u64),
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self { size: stat.st_size, modified: (stat.st_mtime, stat.st_mtime_nsec) }
    }
}

/// All files that something refers to.
#[derive(Debug)]
pub(super) struct FileTable {
    budget: Arc<Budget>,
    next_id: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_identity: FxHashMap<Identity, (Weak<ModuleFile>, Option<Stamp>)>,
    by_id: FxHashMap<FileId, Weak<ModuleFile>>,
}

impl FileTable {
    pub fn new(open_files: usize) -> Self {
        let budget = Arc::new(Budget { limit: open_files, used: AtomicUsize::new(0) });
        Self { budget, next_id: AtomicU64::new(1), known: Mutex::default() }
    }

    pub fn get(&self, id: FileId) -> Option<Arc<ModuleFile>> {
        self.lock().by_id.get(&id)?.upgrade()
    }

    /// Files kept open, and files known by path only.
    pub fn counts(&self) -> (usize, usize) {
        let living =
            self.lock().by_id.values().filter_map(Weak::upgrade).filter(|file| file.kept.is_err()).count();
        (self.budget.used.load(Ordering::Relaxed), living)
    }

    /// The file of a mapping that has one.
    pub fn of_mapping(&self, process: &Process, root: Option<&Root>, line: &Line<'_>) -> Arc<ModuleFile> {
        let path = path_of(without_deleted(&line.path()).0.to_vec());
        let device = makedev(line.device.0, line.device.1);
        let (why, stat) = match open_mapping(process, root, line, &path, device) {
            Err(error) => (Unkept::Unopened(error.to_string()), None),
            Ok((_, stat)) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
                (Unkept::Irregular, None)
            }
            Ok((file, stat)) => match self.opened(file, &stat, &path) {
                Ok(known) => return known,
                Err(elf) => (Unkept::Limit, Some((stat, elf))),
            },
        };
        let (device, elf) = stat.map_or((device, None), |(stat, elf)| (stat.st_dev, elf));
        let identity = Identity::Named { device, inode: line.inode, path: path.clone() };
        let mut known = self.lock();
        if let Some(file) = known.by_identity.get(&identity).and_then(|(file, _)| file.upgrade()) {
            return file;
        }
        tracing::warn!(path = %path.display(), "a module's file is not kept open: {why}");
        let file = self.file(path, (device, line.inode), elf, Err(why));
        known.add(identity, &file, None);
        file
    }

    /// The known file that this is, or a new one; if there is no room for it, its headers.
    fn opened(&self, file: File, stat: &Stat, path: &Path) -> Result<Arc<ModuleFile>, Option<Elf>> {
        let identity = Identity::Kept { device: stat.st_dev, inode: stat.st_ino };
        let stamp = Some(Stamp::of(stat));
        let find = |known: &Known| {
            let (file, stamp) = known.by_identity.get(&identity)?;
            Some((file.upgrade()?, *stamp))
        };
        // In its own statement: the lock must not be held while the headers are read.
        let first = find(&self.lock());
        if let Some((known, seen)) = first
            && seen == stamp
        {
            return Ok(known);
        }
        let elf = Elf::read(&file);
        let mut known = self.lock();
        // Another thread may have added it meanwhile. Written to in place, it is the same file only if its
        // build id says so: `touch` changes the time, a linker the code.
        if let Some((same, seen)) = find(&known)
            && (seen == stamp || (same.build_id().is_some() && same.elf == elf))
        {
            known.by_identity.insert(identity, (Arc::downgrade(&same), stamp));
            return Ok(same);
        }
        let Some(slot) = self.budget.take() else { return Err(elf) };
        let kept = Ok(Kept { file, _slot: slot });
        let file = self.file(path.to_path_buf(), (stat.st_dev, stat.st_ino), elf, kept);
        known.add(identity, &file, stamp);
        Ok(file)
    }

    fn file(
        &self,
        path: PathBuf,
        (device, inode): (u64, u64),
        elf: Option<Elf>,
        kept: Result<Kept, Unkept>,
    ) -> Arc<ModuleFile> {
        let id = FileId(self.next_id.fetch_add(1, Ordering::Relaxed));
        Arc::new(ModuleFile { id, path, device, inode, elf, kept })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, identity: Identity, file: &Arc<ModuleFile>, stamp: Option<Stamp>) {
        // New files are rare, and their headers were just read: this is the place to forget old ones.
        self.by_id.retain(|_, file| file.strong_count() > 0);
        self.by_identity.retain(|_, (file, _)| file.strong_count() > 0);
        self.by_id.insert(file.id, Arc::downgrade(file));
        self.by_identity.insert(identity, (Arc::downgrade(file), stamp));
    }
}

/// Opens the file of a mapping: by the mapping, which always is the right file, or else by its path.
fn open_mapping(
    process: &Process,
    root: Option<&Root>,
    line: &Line<'_>,
    path: &Path,
    device: u64,
) -> io::Result<(File, Stat)> {
    let by_mapping = process.mapped_file(line.start, line.end);
    let by_mapping = match by_mapping.and_then(|file| Ok((fstat(&file)?, file))) {
        Ok((stat, file)) => return Ok((file, stat)),
        Err(error) => error,
    };
    // With the kernel's mark too, if that is part of the name.
    let literal = line.path();
    for path in [path, Path::new(OsStr::from_bytes(&literal))] {
        if let Some(Ok(file)) = root.map(|root| root.open(path))
            && let Ok(stat) = fstat(&file)
            && is_same(&stat, device, line.inode)
        {
            return Ok((file, stat));
        }
    }
    Err(by_mapping)
}
