//! The allocator's own frames: which functions between the program and the memory say nothing about a leak.
//!
//! Comes in: the frames of a stack, innermost first. Goes out: how many of the first belong to the allocator.
//! Never: frames of a program's or a library's own wrappers (`xmalloc`, `g_malloc`, `Foo::operator new`); those are
//! somebody's code, and their callers are one frame further out.

use super::model::Frame;
use super::site_id::file_name;
use crate::event::Kind;

/// The C interface, in the spellings of glibc, musl, jemalloc, mimalloc and tcmalloc.
const C_FUNCTIONS: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "aligned_alloc",
    "memalign",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "mallocx",
    "rallocx",
];

/// What allocators put before those names: `__libc_malloc`, `__GI___libc_malloc`, `je_malloc`, `mi_calloc`, …
const C_PREFIXES: &[&str] = &["__GI___libc_", "__libc_", "__GI___", "__", "_", "je_", "mi_", "tc_", "_rjem_"];

/// How `mmap` and its kin are called.
const MMAP_FUNCTIONS: &[&str] = &["mmap", "mmap64", "__mmap", "__mmap64", "mremap", "__mremap", "syscall"];

/// Libraries that are nothing but an allocator: their inner functions have no stable names.
const ALLOCATOR_LIBRARIES: &[&str] = &["libjemalloc", "libtcmalloc", "libmimalloc"];

/// The functions behind Rust's `GlobalAlloc`: `__rustc::__rust_alloc`, before 1.87 without the crate.
const RUST_SHIMS: &[&str] = &["__rust_", "__rdl_", "__rg_"];

/// Ways of Rust's own library to those functions, where they are not inlined.
const RUST_PATHS: &[&str] = &[
    "alloc::alloc::",
    // What `Box::new` calls since 1.95, as it called `exchange_malloc` before.
    "alloc::boxed::box_new_uninit",
    "<alloc::alloc::Global",
    "<std::alloc::System",
    "std::alloc::System::",
    "std::sys::alloc::",
];

/// The C++ library's way from a container to `operator new`: prefix of the path, last name.
const CPP_PATHS: &[(&str, &str)] = &[
    ("std::__new_allocator<", "allocate"),
    ("__gnu_cxx::new_allocator<", "allocate"),
    ("std::allocator<", "allocate"),
    ("std::allocator_traits<", "allocate"),
    ("std::__1::allocator<", "allocate"),
    ("std::__1::allocator_traits<", "allocate"),
    ("std::__1::__libcpp_", ""),
    ("std::__1::__allocate_at_least", ""),
];

/// How many frames at the top are the allocator's. Never all: the last one left says at least where it was.
pub(super) fn allocator_frames(kind: Kind, frames: &[Frame]) -> usize {
    let own = frames.iter().take_while(|frame| is_allocator(kind, frame)).count();
    if own == frames.len() { 0 } else { own }
}

fn is_allocator(kind: Kind, frame: &Frame) -> bool {
    let function = frame.function.as_deref();
    match kind {
        // An allocator that maps memory for itself is a caller of mmap like any other.
        Kind::Mmap => function.is_some_and(|name| MMAP_FUNCTIONS.contains(&c_name(name))),
        Kind::Heap => {
            let library = file_name(&frame.module);
            ALLOCATOR_LIBRARIES.iter().any(|own| library.starts_with(own))
                || function.is_some_and(|name| is_c(name) || is_cpp(name) || is_rust(name))
        }
    }
}

/// A C name without symbol version and without what compilers add to a clone (`.part.0`, `.cold`).
fn c_name(name: &str) -> &str {
    name.split(['@', '.']).next().unwrap_or(name)
}

fn is_c(name: &str) -> bool {
    let name = c_name(name);
    C_FUNCTIONS.contains(&name)
        || C_PREFIXES
            .iter()
            .filter_map(|prefix| name.strip_prefix(prefix))
            .any(|rest| C_FUNCTIONS.contains(&rest))
}

fn is_cpp(name: &str) -> bool {
    let global_new =
        name.strip_prefix("operator new").is_some_and(|rest| rest.is_empty() || rest.starts_with(['(', '[']));
    global_new
        || name.starts_with("_Znw")
        || name.starts_with("_Zna")
        || CPP_PATHS.iter().any(|(path, last)| {
            name.starts_with(path) && (last.is_empty() || last_name(name).starts_with(last))
        })
}

/// What follows the last `::` outside of brackets: `allocate(unsigned long)` of `std::allocator<a::b>::allocate(…)`.
fn last_name(name: &str) -> &str {
    let mut depth = 0;
    let mut last = 0;
    let bytes = name.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'<' | b'(' => depth += 1,
            b'>' | b')' => depth -= 1,
            b':' if depth == 0 => last = at + 1,
            _ => {}
        }
    }
    &name[last..]
}

fn is_rust(name: &str) -> bool {
    // `__rustc::`, or `__rustc[0123456789abcdef]::` where the demangler shows the crate's hash.
    let shim = match name.strip_prefix("__rustc") {
        Some(rest) => rest.split_once("::").map_or(name, |(_, shim)| shim),
        None => name,
    };
    RUST_SHIMS.iter().any(|prefix| shim.starts_with(prefix))
        || RUST_PATHS.iter().any(|path| name.starts_with(path))
        || name.contains("alloc::global::GlobalAlloc>::")
        || name.contains("impl core::alloc::global::GlobalAlloc for ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::frame;

    fn heap(functions: &[&str]) -> usize {
        let frames: Vec<_> = functions.iter().map(|name| frame(name, "/bin/app", 1, None)).collect();
        allocator_frames(Kind::Heap, &frames)
    }

    #[test]
    fn allocator_functions_of_c_cpp_and_rust() {
        for name in [
            "malloc",
            "calloc",
            "__libc_calloc",
            "__GI___libc_malloc",
            "malloc@@GLIBC_2.2.5",
            "realloc.part.0",
            "posix_memalign",
            "je_malloc",
            "mi_calloc",
            "operator new(unsigned long)",
            "operator new[](unsigned long, std::align_val_t, std::nothrow_t const&)",
            "operator new",
            "_Znwm",
            "std::__new_allocator<std::pair<int const, Foo::Bar> >::allocate(unsigned long, void const*)",
            "std::allocator_traits<std::allocator<char> >::allocate(std::allocator<char>&, unsigned long)",
            "std::__1::__libcpp_allocate[abi:v160006](unsigned long, unsigned long)",
            "__rust_alloc",
            "__rust_alloc_zeroed",
            "__rdl_alloc",
            "__rustc::__rust_alloc",
            "__rustc::__rdl_realloc",
            "__rustc[a1b2c3d4e5f60718]::__rust_alloc",
            "alloc::alloc::alloc",
            "alloc::alloc::exchange_malloc",
            "alloc::alloc::Global::alloc_impl",
            "alloc::boxed::box_new_uninit",
            "<std::alloc::System>::alloc_impl",
            "<std::alloc::System as core::alloc::Allocator>::allocate",
            "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
            "<alloc::alloc::Global>::alloc_impl_runtime",
            "<std::alloc::System as core::alloc::global::GlobalAlloc>::alloc",
            "<tikv_jemallocator::Jemalloc as core::alloc::global::GlobalAlloc>::alloc",
            "std::sys::alloc::unix::<impl core::alloc::global::GlobalAlloc for std::alloc::System>::alloc",
        ] {
            assert_eq!(heap(&[name, "main"]), 1, "{name}");
        }
    }

    #[test]
    fn somebodys_own_code_stays() {
        for name in [
            "xmalloc",
            "g_malloc0",
            "my_malloc",
            "malloc_config",
            "strdup",
            "sqlite3MemMalloc",
            "Foo::operator new(unsigned long)",
            "operator new_thing",
            "std::vector<int, std::allocator<int> >::reserve(unsigned long)",
            "std::_Vector_base<int, std::allocator<int> >::_M_allocate(unsigned long)",
            "std::allocator_traits<std::allocator<int> >::construct<int>(int*)",
            "alloc::raw_vec::RawVec<T>::grow_one",
            "alloc::vec::Vec<T>::with_capacity",
            "alloc::boxed::Box<T>::new",
            "alloc::rc::Rc<T>::allocate_for_layout",
            "<alloc::vec::Vec<u8> as core::clone::Clone>::clone",
            "main",
        ] {
            assert_eq!(heap(&[name, "main"]), 0, "{name}");
        }
    }

    #[test]
    fn only_the_top_is_trimmed_and_never_everything() {
        assert_eq!(heap(&["operator new(unsigned long)", "a", "malloc", "main"]), 1);
        assert_eq!(heap(&["__rdl_alloc", "__rust_alloc", "alloc::alloc::alloc", "main"]), 3);
        assert_eq!(heap(&["operator new(unsigned long)"]), 0);
        assert_eq!(heap(&[]), 0);
    }

    #[test]
    fn an_allocator_library_needs_no_names() {
        let mut inner = frame("", "/usr/lib/libjemalloc.so.2", 0x9000, None);
        inner.function = None;
        let main = frame("main", "/bin/app", 1, None);
        assert_eq!(allocator_frames(Kind::Heap, &[inner.clone(), main.clone()]), 1);
        assert_eq!(allocator_frames(Kind::Mmap, &[inner, main]), 0, "which maps memory for itself");
    }

    #[test]
    fn a_mapping_that_malloc_makes_is_mallocs() {
        let stack = [frame("mmap64", "/lib/libc.so.6", 1, None), frame("malloc", "/lib/libc.so.6", 2, None)];
        assert_eq!(allocator_frames(Kind::Mmap, &stack), 1);
    }
}
