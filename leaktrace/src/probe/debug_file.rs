//! The file with the symbols of a stripped one.
//!
//! Comes in: a stripped file and the directories where debug files live. Goes out: the debug file that belongs
//! to it. Never: one of another build, never a download.

use std::ffi::CStr;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use super::elf::{Bytes, Image};

/// Opens the debug file of `image`.
///
/// `path` is where the file was found; `roots` are directories like `/usr/lib/debug`. Looked for, as debuggers
/// do: `ROOT/.build-id/ab/cdef.debug`, then the name in `.gnu_debuglink` beside the file, in `.debug` beside
/// it, and under each root. A candidate counts only if its build id is the file's.
pub fn open(image: &Image<'_>, path: &Path, roots: &[PathBuf]) -> Option<Bytes> {
    let build_id = image.build_id()?;
    candidates(&build_id, image, path, roots).into_iter().find_map(|candidate| {
        let bytes = Bytes::new(File::open(candidate).ok()?);
        let belongs = Image::parse(&bytes).ok()?.build_id().as_ref() == Some(&build_id);
        belongs.then_some(bytes)
    })
}

fn candidates(build_id: &str, image: &Image<'_>, path: &Path, roots: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some((first, rest)) = build_id.split_at_checked(2) {
        found.extend(roots.iter().map(|root| root.join(format!(".build-id/{first}/{rest}.debug"))));
    }
    let link = image.section(".gnu_debuglink").and_then(|(_, link)| CStr::from_bytes_until_nul(link).ok());
    if let (Some(Ok(link)), Some(directory)) = (link.map(CStr::to_str), path.parent()) {
        // The link is untrusted: only a plain file name is followed.
        if Path::new(link).components().eq([Component::Normal(link.as_ref())]) {
            found.push(directory.join(link));
            found.push(directory.join(".debug").join(link));
            found.extend(roots.iter().map(|root| root.join(in_own_root(directory)).join(link)));
        }
    }
    found
}

/// The directory as the process that mapped the file sees it, relative: `/proc/7/root/usr/bin` is `usr/bin`.
fn in_own_root(directory: &Path) -> PathBuf {
    let below: Vec<_> = directory.components().filter(|c| matches!(c, Component::Normal(_))).collect();
    match below.as_slice() {
        [proc, pid, root, rest @ ..]
            if proc.as_os_str() == "proc"
                && root.as_os_str() == "root"
                && pid.as_os_str().as_encoded_bytes().iter().all(u8::is_ascii_digit) =>
        {
            rest.iter().collect()
        }
        rest => rest.iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_s_root_is_left_out() {
        assert_eq!(in_own_root(Path::new("/proc/7/root/usr/bin")), Path::new("usr/bin"));
        assert_eq!(in_own_root(Path::new("/usr/bin")), Path::new("usr/bin"));
        assert_eq!(in_own_root(Path::new("/proc/x/root/usr")), Path::new("proc/x/root/usr"));
    }
}
