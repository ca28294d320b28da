//! Discovery against real libraries, linked programs, and assembled ones whose every instruction is known.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{DiscoverError, Discovery, Exit, ProbePoint, Role, discover};
use crate::probe::elf::{Bytes, ElfError, Image, SymbolTable};

fn discovered(path: &Path) -> Discovery {
    discover(File::open(path).unwrap(), path, &[]).unwrap()
}

/// Runs a tool of the compiler's toolchain, which building this crate needs too.
fn run(tool: &str, arguments: &[&str], files: &[&Path]) {
    let status =
        Command::new(tool).args(arguments).args(files).status().unwrap_or_else(|e| panic!("{tool}: {e}"));
    assert!(status.success(), "{tool} {arguments:?} {files:?}");
}

/// A library from assembly (Intel syntax). Functions are declared with the macros `function` and `done`.
fn assembled(assembly: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (source, library) = (directory.path().join("it.s"), directory.path().join("it.so"));
    let macros = ".intel_syntax noprefix\n.text\n\
        .macro function name\n.globl \\name\n.type \\name,@function\n\\name: .cfi_startproc\n.endm\n\
        .macro done name\n.cfi_endproc\n.size \\name, .-\\name\n.endm\n";
    fs::write(&source, format!("{macros}{assembly}\n.section .note.GNU-stack,\"\",@progbits\n")).unwrap();
    run("cc", &["-shared", "-nostdlib", "-Wl,-z,now", "-o"], &[&library, &source]);
    (directory, library)
}

/// A program from C that allocates, linked with the given arguments.
fn linked(compiler: &str, arguments: &[&str]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (source, program) = (directory.path().join("it.c"), directory.path().join("it"));
    fs::write(
        &source,
        "#include <stdlib.h>\n#include <sys/mman.h>\nint main(int c, char **v) {\n\
         void *p = mmap(0, 4096, 3, 34, -1, 0); munmap(p, 4096);\n\
         char *q = malloc(c * 100); q = realloc(q, c * 1000); free(q);\n\
         q = calloc(c, 9); v[0] = q; return 0; }\n",
    )
    .unwrap();
    let output = program.to_str().unwrap();
    run(compiler, &[&["-O2", "-o", output, source.to_str().unwrap()], arguments].concat(), &[]);
    (directory, program)
}

fn point<'a>(discovery: &'a Discovery, function: &str) -> &'a ProbePoint {
    let found = discovery.points.iter().find(|p| p.function == function);
    found.unwrap_or_else(|| panic!("{function} is not in {:#?}", names(discovery)))
}

fn names(discovery: &Discovery) -> Vec<(&str, Role)> {
    discovery.points.iter().map(|p| (p.function.as_str(), p.role)).collect()
}

/// What a table in a document would show: role, distance from the symbol, instruction, whether it is emulated.
fn summary(path: &Path, discovery: &Discovery) -> Vec<String> {
    let bytes = Bytes::new(File::open(path).unwrap());
    let image = Image::parse(&bytes).unwrap();
    let mut starts = HashMap::new();
    for table in [SymbolTable::Dynamic, SymbolTable::Full] {
        image.functions(table, 64, |s| _ = starts.insert(s.name.to_vec(), s.address)).unwrap();
    }
    let line = |p: &ProbePoint| {
        let from = p.entry.address - starts[p.function.as_bytes()];
        let cost = if p.entry.emulated { "" } else { " (stepped)" };
        format!("{} {:?} +{from} {}{cost}", p.function, p.role, p.entry.instruction)
    };
    discovery.points.iter().map(line).collect()
}

/// The library that this test itself runs with, by the name in its path.
fn loaded(name: &str) -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().find_map(|line| line.split_once('/').filter(|(_, path)| path.contains(name)));
    PathBuf::from(format!("/{}", path.unwrap_or_else(|| panic!("{name} is not loaded")).1))
}

/// Looks for a library that not every machine has.
fn installed(name: &str) -> Option<PathBuf> {
    let found = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists());
    if found.is_none() {
        eprintln!("{name} is not installed: not tested");
    }
    found
}

fn build_id(path: &Path) -> Option<String> {
    let bytes = Bytes::new(File::open(path).unwrap());
    Image::parse(&bytes).unwrap().build_id()
}

#[test]
fn the_c_library_of_this_machine() {
    let libc = loaded("libc.so.6");
    let found = discovered(&libc);
    assert_eq!(found.allocators, ["glibc", "mappings"]);
    assert_eq!(found.problems, []);
    for (function, role) in [
        ("malloc", Role::Malloc),
        ("calloc", Role::Calloc),
        ("realloc", Role::Realloc),
        ("free", Role::Free),
        ("posix_memalign", Role::PosixMemalign),
        ("mmap", Role::Mmap),
        ("munmap", Role::Munmap),
        ("mremap", Role::Mremap),
    ] {
        assert_eq!(point(&found, function).role, role);
    }
    // The point of it all: the functions that programs call most cost no single step.
    for function in ["malloc", "calloc", "realloc", "free"] {
        assert!(point(&found, function).entry.emulated, "{:?}", point(&found, function));
    }
    assert_eq!(point(&found, "free").exit, Exit::None);
    assert_eq!(point(&found, "malloc").exit, Exit::ReturnProbe);
    // `cfree`, `__libc_malloc` and so on are other names of what is there already.
    let mut addresses: Vec<_> = found.points.iter().map(|p| (p.entry.address, p.role)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), found.points.len());

    if build_id(&libc).as_deref() == Some("93ac61ec5a8eb1396f9fbd350e3169a558528a40") {
        insta::assert_snapshot!("debian_12_libc", summary(&libc, &found).join("\n"));
    }
}

#[test]
fn the_loader_of_this_machine() {
    let loader = loaded("/ld-linux-x86-64");
    let found = discovered(&loader);
    assert_eq!(names(&found), [("_dl_debug_state", Role::LoaderState)]);
    assert_eq!(found.points[0].exit, Exit::None);
}

#[test]
fn sites_are_where_the_file_has_their_instructions() {
    let libc = loaded("libc.so.6");
    let bytes = fs::read(&libc).unwrap();
    for point in discovered(&libc).points {
        let code = &bytes[point.entry.offset as usize..][..15];
        let mut decoder =
            iced_x86::Decoder::with_ip(64, code, point.entry.address, iced_x86::DecoderOptions::NONE);
        let instruction = decoder.decode();
        let mnemonic = format!("{:?}", instruction.mnemonic()).to_lowercase();
        assert!(point.entry.instruction.starts_with(&mnemonic), "{point:?} is {instruction}");
    }
}

#[test]
fn operator_new_of_the_cxx_library_is_a_marker() {
    let Some(library) = installed("libstdc++.so.6") else { return };
    let found = discovered(&library);
    assert_eq!(found.allocators, ["C++ operators"]);
    let new = point(&found, "_Znwm");
    assert_eq!((new.role, new.exit.clone(), new.entry.emulated), (Role::New, Exit::None, true));
    // `operator new[]` jumps to it, `operator delete` to `free`: both are seen there.
    assert!(found.points.iter().all(|p| p.role == Role::New), "{:?}", names(&found));
    assert!(found.points.iter().all(|p| p.function != "_Znam"));
}

#[test]
fn jemalloc() {
    let Some(library) = installed("libjemalloc.so.2") else { return };
    let found = discovered(&library);
    assert_eq!(found.allocators[0], "jemalloc");
    assert_eq!(found.problems, []);
    for (function, role) in [
        ("malloc", Role::Malloc),
        ("mallocx", Role::Malloc),
        ("rallocx", Role::Realloc),
        ("sdallocx", Role::Free),
    ] {
        assert_eq!(point(&found, function).role, role);
        assert!(point(&found, function).entry.emulated);
    }
    // Its `operator new` has a fast path of its own: a probe on malloc alone would miss it.
    let new = point(&found, "_Znwm");
    assert_eq!(new.role, Role::Malloc);
    let Exit::ReturnSites(sites) = &new.exit else { panic!("{new:?}") };
    assert!(!sites.is_empty() && sites.iter().all(|s| s.instruction == "ret"), "{sites:?}");
    assert!(found.points.iter().all(|p| p.function != "_Znam"));
}

#[test]
fn mimalloc() {
    let Some(library) = installed("libmimalloc.so.2") else { return };
    let found = discovered(&library);
    assert_eq!(found.allocators, ["mimalloc"]);
    assert_eq!(found.problems, []);
    assert!(point(&found, "malloc").entry.emulated);
    assert!(point(&found, "free").entry.emulated);
    assert_eq!(point(&found, "mi_heap_malloc").role, Role::SizeSecond);
    // `operator delete(void *, size_t)` jumps to `free`, which must not be counted twice.
    assert!(found.points.iter().all(|p| p.function != "_ZdlPvm"), "{:?}", names(&found));
}

#[test]
fn tcmalloc() {
    let Some(library) = installed("libtcmalloc_minimal.so.4") else { return };
    let found = discovered(&library);
    assert_eq!(found.allocators[0], "tcmalloc (gperftools)");
    assert_eq!(found.problems, []);
    for function in ["malloc", "calloc", "realloc", "free", "tc_new"] {
        assert!(point(&found, function).entry.emulated, "{function}");
    }
    assert!(matches!(&point(&found, "tc_new").exit, Exit::ReturnSites(sites) if sites.len() > 1));
    assert_eq!(point(&found, "tc_new_nothrow").exit, Exit::ReturnProbe);
}

#[test]
fn musl_is_library_and_loader() {
    let Some(library) = installed("ld-musl-x86_64.so.1") else { return };
    let found = discovered(&library);
    assert_eq!(found.allocators, ["musl", "mappings", "loader"]);
    for function in ["malloc", "calloc", "realloc", "free", "mmap", "munmap"] {
        assert!(point(&found, function).entry.emulated, "{function}");
    }
}

#[test]
fn a_file_without_allocator_has_nothing() {
    let (_directory, library) = assembled("function f\n call malloc@plt\n ret\ndone f");
    assert_eq!(discovered(&library), Discovery::default());
}

#[test]
fn static_glibc_stripped_and_with_its_debug_file() {
    let (directory, program) = linked("cc", &["-static", "-Wl,--build-id"]);
    let whole = discovered(&program);
    assert_eq!(whole.allocators, ["glibc", "mappings", "loader"]);
    assert!(point(&whole, "malloc").entry.emulated);
    assert_eq!(point(&whole, "free").role, Role::Free);

    let debug = directory.path().join("it.debug");
    run("objcopy", &["--only-keep-debug"], &[&program, &debug]);
    run("strip", &["--strip-all"], &[&program]);
    let error = discover(File::open(&program).unwrap(), &program, &[]).unwrap_err();
    assert!(matches!(&error, DiscoverError::Stripped { build_id: Some(_) }), "{error:?}");
    assert!(error.to_string().contains("stripped static program"), "{error}");

    // In a debug root, by build id.
    let id = build_id(&program).unwrap();
    let root = directory.path().join("debug");
    fs::create_dir_all(root.join(".build-id").join(&id[..2])).unwrap();
    fs::copy(&debug, root.join(".build-id").join(&id[..2]).join(format!("{}.debug", &id[2..]))).unwrap();
    assert_eq!(discover(File::open(&program).unwrap(), &program, &[root]).unwrap(), whole);

    // Beside the program, by link.
    let linked = directory.path().join("linked");
    let link = format!("--add-gnu-debuglink={}", debug.display());
    run("objcopy", &[&link], &[&program, &linked]);
    assert_eq!(discovered(&linked), whole);

    // One of another build does not count.
    fs::remove_file(&debug).unwrap();
    fs::copy(loaded("libc.so.6"), &debug).unwrap();
    assert!(matches!(
        discover(File::open(&linked).unwrap(), &linked, &[]),
        Err(DiscoverError::Stripped { .. })
    ));
}

#[test]
fn static_position_independent_is_a_program_too() {
    let (_directory, program) = linked("cc", &["-static-pie"]);
    assert_eq!(discovered(&program).allocators[0], "glibc");
    run("strip", &["--strip-all"], &[&program]);
    assert!(matches!(
        discover(File::open(&program).unwrap(), &program, &[]),
        Err(DiscoverError::Stripped { .. })
    ));
}

#[test]
fn static_jemalloc_takes_malloc_over() {
    if installed("libjemalloc.a").is_none() {
        return;
    }
    let (_directory, program) = linked(
        "cc",
        &["-static", "-Wl,--whole-archive", "-ljemalloc", "-Wl,--no-whole-archive", "-lstdc++", "-lm"],
    );
    let found = discovered(&program);
    assert_eq!(found.allocators[0], "jemalloc");
    assert!(found.allocators.contains(&"mappings"));
    let malloc: Vec<_> = found.points.iter().filter(|p| p.function == "malloc").collect();
    assert_eq!(malloc.len(), 1);
    assert!(matches!(point(&found, "_Znwm").exit, Exit::ReturnSites(_)));
}

#[test]
fn static_musl() {
    if Command::new("musl-gcc").arg("--version").output().is_err() {
        eprintln!("musl-gcc is not installed: not tested");
        return;
    }
    let (_directory, program) = linked("musl-gcc", &["-static"]);
    let found = discovered(&program);
    assert_eq!(found.allocators, ["musl", "mappings"]);
    // `free` only jumps to `__libc_free`, which the library's own calls use.
    assert!(found.points.iter().all(|p| p.function != "free"));
    assert_eq!(point(&found, "__libc_free").role, Role::Free);
}

#[test]
fn a_malloc_of_one_s_own() {
    let (_directory, library) = assembled(
        "function malloc\n endbr64\n mov rax, rdi\n push rbx\n pop rbx\n ret\ndone malloc
         function free\n endbr64\n test rdi, rdi\n je 1f\n push rbp\n pop rbp\n1: ret\ndone free",
    );
    let found = discovered(&library);
    assert_eq!(found.allocators, ["custom"]);
    assert_eq!(summary(&library, &found), ["malloc Malloc +7 push rbx", "free Free +9 push rbp"]);
}

#[test]
fn jemalloc_under_any_prefix() {
    let functions = ["mallocx", "dallocx", "rallocx", "malloc", "free", "zzz"].map(|name| {
        format!(".hidden own_{name}\nfunction own_{name}\n push rbx\n pop rbx\n ret\ndone own_{name}\n")
    });
    let (_directory, library) = assembled(&functions.concat());
    let found = discovered(&library);
    assert_eq!(found.allocators, ["jemalloc"]);
    assert_eq!(
        names(&found),
        [
            ("own_malloc", Role::Malloc),
            ("own_free", Role::Free),
            ("own_mallocx", Role::Malloc),
            ("own_rallocx", Role::Realloc),
            ("own_dallocx", Role::Free),
        ]
    );
}

#[test]
fn a_marker_a_jump_and_an_allocator() {
    let (_directory, library) = assembled(
        "# Calls malloc on every way.
         function _Znwm\n push rbx\n mov rbx, rdi\n1: mov rdi, rbx\n call malloc@plt\n test rax, rax\n je 2f
          pop rbx\n ret\n2: call handler@plt\n jmp 1b\ndone _Znwm
         # Jumps to it.
         function _Znam\n endbr64\n jmp _Znwm@plt\ndone _Znam
         # Has memory of its own, unless it is used up.
         function _ZnwmRKSt9nothrow_t\n mov rax, [rdi]\n test rax, rax\n je 3f\n ret
         3: jmp malloc@plt\ndone _ZnwmRKSt9nothrow_t
         function _ZdlPv\n test rdi, rdi\n jne 4f\n ret\n4: jmp free@plt\ndone _ZdlPv",
    );
    let found = discovered(&library);
    assert_eq!(names(&found), [("_Znwm", Role::New), ("_ZnwmRKSt9nothrow_t", Role::Malloc)]);
    assert_eq!(point(&found, "_Znwm").exit, Exit::None);
    assert_eq!(point(&found, "_ZnwmRKSt9nothrow_t").exit, Exit::ReturnProbe);
}

#[test]
fn an_operator_new_with_memory_of_its_own_brings_its_delete() {
    let (_directory, library) = assembled(
        "function _Znwm\n test rdi, rdi\n je 1f\n mov rax, [rip]\n ret\n1: jmp slow\ndone _Znwm
         .local slow\n.type slow,@function\nslow: .cfi_startproc\n push rbx\n call other@plt\n pop rbx\n je 2f\n ret
         2: pop rax\n ret\n.cfi_endproc\n.size slow, .-slow
         # Puts the block on a list.
         function _ZdlPv\n test rdi, rdi\n je 1f\n mov [rdi], rax\n push rbx\n pop rbx\n1: ret\ndone _ZdlPv
         # Passes the block on: seen there.
         function _ZdlPvm\n test rdi, rdi\n je 1f\n sub rsp, 8\n call _ZdlPv@plt\n add rsp, 8\n1: ret\ndone _ZdlPvm",
    );
    let found = discovered(&library);
    assert_eq!(names(&found), [("_Znwm", Role::Malloc), ("_ZdlPv", Role::Free)]);
    assert!(summary(&library, &found)[0].starts_with("_Znwm Malloc +3 je "), "{found:#?}");
    // One in the function, two in the one that it leaves through; none in the middle.
    let Exit::ReturnSites(sites) = &point(&found, "_Znwm").exit else { panic!() };
    assert_eq!(sites.iter().map(|s| s.instruction.as_str()).collect::<Vec<_>>(), ["ret", "ret", "ret"]);
}

#[test]
fn a_throwing_function_that_leaves_the_file_is_a_problem() {
    let (_directory, library) =
        assembled("function _Znwm\n test rdi, rdi\n je 1f\n ret\n1: jmp elsewhere@plt\ndone _Znwm");
    let found = discovered(&library);
    assert_eq!(found.points, []);
    assert_eq!(found.problems[0].function, "_Znwm");
    assert!(found.problems[0].why.contains("elsewhere of another file"), "{:?}", found.problems);
}

#[test]
fn a_sized_free_that_only_calls_free_is_not_counted_twice() {
    let (_directory, library) = assembled(
        "function malloc\n push rbx\n pop rbx\n ret\ndone malloc
         function free\n push rbx\n pop rbx\n ret\ndone free
         function free_sized\n jmp free@plt\ndone free_sized
         function cfree\n push rbx\n mov rbx, rdi\n call free@plt\n pop rbx\n ret\ndone cfree
         function free_aligned_sized\n cmp rsi, 64\n ja 1f\n mov [rdi], rax\n ret\n1: jmp free@plt
         done free_aligned_sized",
    );
    let found = discovered(&library);
    // The last frees small blocks by itself.
    assert_eq!(
        names(&found),
        [("malloc", Role::Malloc), ("free", Role::Free), ("free_aligned_sized", Role::Free)]
    );
}

#[test]
fn what_is_no_x86_64_elf_file_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("it");
    let libc = fs::read(loaded("libc.so.6")).unwrap();
    let error = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        discover(File::open(&path).unwrap(), &path, &[]).unwrap_err()
    };
    assert!(matches!(error(b"#!/bin/sh\n"), DiscoverError::Elf(ElfError::NotElf)));
    assert!(matches!(error(b"#!/bin/sh\necho a longer script\n"), DiscoverError::Elf(ElfError::NotElf)));
    let changed = |at: usize, to: u8| [&libc[..at], &[to], &libc[at + 1..]].concat();
    assert_eq!(error(&changed(4, 1)).to_string(), "a 32-bit program: leaktrace traces x86-64 only");
    assert!(matches!(error(&changed(18, 183)), DiscoverError::Elf(ElfError::Machine { machine: 183 })));
    assert!(matches!(error(&libc[..4096]), DiscoverError::Elf(ElfError::Damaged { .. })));
}
