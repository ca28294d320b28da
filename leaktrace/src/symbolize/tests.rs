//! Real programs, compiled and started here, asked where they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::event::Pid;
use crate::target::programs::{Running, Workshop, tool};

/// Prints addresses to which calls return: in `plain`, in `inner` < `middle` < `outer` (inlined if optimised),
/// and behind the last instruction of `last`.
const CALLS: &str = r#"#include <setjmp.h>
#include <stdio.h>
#define KEEP(r) __asm__ volatile("" : "+r"(r))
__attribute__((noinline)) void *where(void) { return __builtin_return_address(0); }
__attribute__((noinline)) static void *plain(void) {
    void *r = where(); // plain
    KEEP(r); return r;
}
static inline void *inner(void) {
    void *r = where(); // inner
    KEEP(r); return r;
}
static inline void *middle(void) {
    void *r = inner(); // middle
    KEEP(r); return r;
}
__attribute__((noinline)) void *outer(void) {
    void *r = middle(); // outer
    KEEP(r); return r;
}
static jmp_buf back;
static void *behind;
__attribute__((noinline, noreturn)) static void never(void) {
    behind = __builtin_return_address(0);
    longjmp(back, 1);
}
__attribute__((noinline, noreturn)) static void last(void) {
    never(); // last
}
int main(void) {
    if (!setjmp(back)) last();
    printf("%p %p %p ready\n", plain(), outer(), behind);
    fflush(stdout);
    return getchar();
}"#;

/// The line of [`CALLS`] with a mark.
fn line_of(mark: &str) -> usize {
    let at = CALLS.lines().position(|line| line.ends_with(&format!("// {mark}"))).unwrap();
    at + 1
}

/// A registry that has seen the running program, and a symbolizer that looks for debug files in one directory.
struct Session {
    registry: ModuleRegistry,
    symbolizer: Symbolizer,
    process: ProcessKey,
}

impl Session {
    fn of(running: &Running) -> Self {
        Self::with(running, Path::new("/nowhere"), 100)
    }

    fn with(running: &Running, debug_directory: &Path, open_files: usize) -> Self {
        let registry = ModuleRegistry::new(open_files);
        let process = running.process().key();
        registry.capture(process, 0).unwrap();
        let options = Options { debug_directories: vec![debug_directory.to_path_buf()], loaded_files: 2 };
        Self { registry, symbolizer: Symbolizer::new(options), process }
    }

    fn resolve(&mut self, address: u64) -> Vec<Frame> {
        self.resolve_in(0, address)
    }

    fn resolve_in(&mut self, generation: u32, address: u64) -> Vec<Frame> {
        self.symbolizer.resolve(&self.registry, self.process, generation, &[address])
    }

    /// `function file-name:line`, `+` behind an inlined function.
    fn names(&mut self, address: u64) -> Vec<String> {
        self.resolve(address).iter().map(shown).collect()
    }
}

fn shown(frame: &Frame) -> String {
    let function = frame.function.as_deref().unwrap_or("?");
    let inlined = if frame.inlined { "+" } else { "" };
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => {
            format!("{function}{inlined} {}:{line}", Path::new(file).file_name().unwrap().display())
        }
        _ => format!("{function}{inlined}"),
    }
}

/// The expected form of a function of [`CALLS`] in `p.c`.
fn at(function: &str) -> String {
    format!("{function} p.c:{}", line_of(function))
}

/// Splits a program's debug information off into `p.debug` beside it.
fn split(program: &Path) -> PathBuf {
    let debug = program.with_extension("debug");
    let (p, d) = (program.to_str().unwrap(), debug.to_str().unwrap());
    tool("objcopy", &["--only-keep-debug", p, d]);
    tool("strip", &[p]);
    debug
}

fn link(program: &Path, debug: &Path) {
    tool("objcopy", &[&format!("--add-gnu-debuglink={}", debug.display()), program.to_str().unwrap()]);
}

#[test]
fn our_own_process() {
    let address: u64;
    // SAFETY: reads the instruction pointer.
    unsafe { std::arch::asm!("lea {}, [rip]", out(reg) address) };
    let registry = ModuleRegistry::new(100);
    let process = Process::open(Pid(std::process::id())).unwrap().key();
    registry.capture(process, 0).unwrap();
    let frames = Symbolizer::new(Options::default()).resolve(&registry, process, 0, &[address]);
    let own = frames.last().unwrap();
    assert_eq!(own.function.as_deref(), Some("leaktrace::symbolize::tests::our_own_process"));
    assert!(own.file.as_ref().unwrap().ends_with("symbolize/tests.rs"));
    assert_eq!(own.module, std::env::current_exe().unwrap().to_str().unwrap());
}

#[test]
fn position_independent_fixed_and_static_programs() {
    let shop = Workshop::new();
    for flags in
        [&["-g", "-pie", "-fPIE"][..], &["-g", "-no-pie"], &["-g", "-static"], &["-g", "-static-pie"]]
    {
        let running = Running::start(&shop.c(CALLS, "p", flags));
        let mut session = Session::of(&running);
        let [plain, outer, last] = running.addresses()[..] else { panic!() };
        assert_eq!(session.names(plain), [at("plain")], "{flags:?}");
        // Not inlined without -O.
        assert_eq!(session.names(outer), [at("inner")], "{flags:?}");
        assert_eq!(session.names(last), [at("last")], "{flags:?}");
    }
}

#[test]
fn inlined_functions_and_the_place_of_the_call() {
    let shop = Workshop::new();
    let program = shop.c(CALLS, "p", &["-g", "-O2", "-fcf-protection=none", "-falign-functions=1"]);
    let running = Running::start(&program);
    let mut session = Session::of(&running);
    let [plain, outer, last] = running.addresses()[..] else { panic!() };
    assert_eq!(session.names(plain), [at("plain")]);
    let frames = session.resolve(outer);
    let names: Vec<_> = frames.iter().map(shown).collect();
    assert_eq!(names, [at("inner").replace(' ', "+ "), at("middle").replace(' ', "+ "), at("outer")]);

    // The same as binutils say, which are told the call's address.
    for (address, frames) in [(outer, &frames), (last, &session.resolve(last))] {
        assert_eq!(frames[0].address, format!("{address:#x}"));
        let offset = u64::from_str_radix(frames[0].offset.strip_prefix("0x").unwrap(), 16).unwrap();
        let call = format!("{:#x}", offset - 1);
        let expected = tool("addr2line", &["-i", "-f", "-s", "-e", program.to_str().unwrap(), &call]);
        let expected: Vec<_> = expected.lines().map(|line| line.split(' ').next().unwrap()).collect();
        let ours: Vec<_> = frames.iter().map(|f| shown(f).replace('+', "")).collect();
        assert_eq!(ours, expected.chunks(2).map(|pair| pair.join(" ")).collect::<Vec<_>>());
    }
    // What it returns to is another function already, or this test shows nothing.
    let behind = session.resolve(last + 1);
    assert_ne!(behind[0].function.as_deref(), Some("last"));

    let build_id = session.registry.locate(session.process, 0, outer).unwrap().file.unwrap();
    assert_eq!(frames[0].build_id.as_deref(), build_id.build_id());
    assert_eq!(frames[0].module, program.to_str().unwrap());
}

#[test]
fn cxx_and_rust_names_are_demangled() {
    let shop = Workshop::new();
    let cxx = r#"#include <cstdio>
        extern "C" __attribute__((noinline)) void *where() { return __builtin_return_address(0); }
        namespace shop { template <typename T> struct Cart {
            __attribute__((noinline)) void *add(T) { void *r = where(); __asm__ volatile("" : "+r"(r)); return r; }
        }; }
        int main() { shop::Cart<int> c; printf("%p ready\n", c.add(1)); fflush(stdout); return getchar(); }"#;
    for flags in [&["-g"][..], &[]] {
        let running = Running::start(&shop.cxx(cxx, "cart", flags));
        let frames = Session::of(&running).resolve(running.addresses()[0]);
        assert_eq!(frames[0].function.as_deref(), Some("shop::Cart<int>::add(int)"), "{flags:?}");
    }

    let rust = r#"use std::io::{Read, Write};
        std::arch::global_asm!("where_am_i: mov rax, [rsp]", "ret");
        unsafe extern "C" { fn where_am_i() -> usize; }
        mod shop { pub struct Cart; impl Cart {
            #[inline(never)] pub fn add(&self) -> usize { let r = unsafe { super::where_am_i() }; std::hint::black_box(r) }
        } }
        fn main() {
            print!("{:#x} ready\n", shop::Cart.add());
            std::io::stdout().flush().unwrap();
            let _ = std::io::stdin().read(&mut [0]);
        }"#;
    let legacy_and_v0 = [&["-Cdebuginfo=0"][..], &["-Cdebuginfo=0", "-Csymbol-mangling-version=v0"]];
    for flags in legacy_and_v0.into_iter().chain([&["-g", "-Csymbol-mangling-version=v0"][..]]) {
        let running = Running::start(&shop.rust(rust, "cart_rs", flags));
        let frames = Session::of(&running).resolve(running.addresses()[0]);
        let name = frames[0].function.as_deref().unwrap();
        assert!(
            ["cart_rs::shop::Cart::add", "<cart_rs::shop::Cart>::add"].contains(&name),
            "{name} {flags:?}"
        );
    }
}

#[test]
fn a_stripped_program_has_the_names_that_it_exports_and_no_wrong_ones() {
    let shop = Workshop::new();
    let program = shop.c(CALLS, "p", &["-O2", "-rdynamic"]);
    tool("strip", &[program.to_str().unwrap()]);
    let running = Running::start(&program);
    let mut session = Session::of(&running);
    let [plain, outer, last] = running.addresses()[..] else { panic!() };
    assert_eq!(session.names(outer), ["outer"]);
    assert_eq!(session.names(plain), ["?"], "static functions are not exported");
    assert_eq!(session.names(last), ["?"]);
    let frame = &session.resolve(plain)[0];
    assert_eq!(frame.module, program.to_str().unwrap());
    assert!(frame.build_id.is_some() && frame.offset != frame.address && frame.line.is_none());
}

#[test]
fn a_symbol_without_a_size_does_not_reach_far() {
    let shop = Workshop::new();
    let source = r#"#include <stdio.h>
        extern char label[];
        __asm__(".text; .globl label; label: ret; .skip 10000, 0x90; ret");
        int main(void) { printf("%p %p ready\n", label + 100, label + 9000); fflush(stdout); return getchar(); }"#;
    let running = Running::start(&shop.c(source, "p", &[]));
    let mut session = Session::of(&running);
    let [near, far] = running.addresses()[..] else { panic!() };
    assert_eq!(session.names(near), ["label"]);
    assert_eq!(session.names(far), ["?"]);
}

#[test]
fn debug_information_by_build_id_without_a_link() {
    let shop = Workshop::new();
    let program = shop.c(CALLS, "p", &["-g"]);
    let debug = split(&program);
    let running = Running::start(&program);
    let plain = running.addresses()[0];
    let directory = shop.path().join("debug");
    assert_eq!(Session::with(&running, &directory, 100).names(plain), ["?"]);

    let build_id =
        crate::target::Elf::read(&std::fs::File::open(&program).unwrap()).unwrap().build_id.unwrap();
    let place = directory.join(".build-id").join(&build_id[..2]);
    std::fs::create_dir_all(&place).unwrap();
    let place = place.join(format!("{}.debug", &build_id[2..]));
    std::fs::rename(debug, &place).unwrap();
    assert_eq!(Session::with(&running, &directory, 100).names(plain), [at("plain")]);

    // Another build's file in its place must not be believed.
    let other = shop.c(CALLS, "other", &["-g", "-O2"]);
    std::fs::copy(split(&other), &place).unwrap();
    assert_eq!(Session::with(&running, &directory, 100).names(plain), ["?"]);
}

#[test]
fn debug_information_by_link() {
    for build_id in ["-Wl,--build-id", "-Wl,--build-id=none"] {
        let shop = Workshop::new();
        let program = shop.c(CALLS, "p", &["-g", build_id]);
        let debug = split(&program);
        link(&program, &debug);
        let running = Running::start(&program);
        let plain = running.addresses()[0];
        let directory = shop.path().join("directory");
        let places = [
            shop.path().join("p.debug"),
            shop.path().join(".debug/p.debug"),
            directory.join(shop.path().strip_prefix("/").unwrap()).join("p.debug"),
        ];
        let aside = shop.path().join("aside");
        std::fs::rename(debug, &aside).unwrap();
        let other = split(&shop.c(CALLS, "other", &["-g", "-O2", build_id]));
        for place in places {
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::copy(&aside, &place).unwrap();
            assert_eq!(Session::with(&running, &directory, 100).names(plain), [at("plain")], "{place:?}");
            std::fs::copy(&other, &place).unwrap();
            assert_eq!(Session::with(&running, &directory, 100).names(plain), ["?"], "{place:?} {build_id}");
            std::fs::remove_file(place).unwrap();
        }
    }
}

#[test]
fn debug_information_in_a_package() {
    let shop = Workshop::new();
    let program = shop.c(CALLS, "p", &["-g", "-gdwarf-4", "-gsplit-dwarf", "-O2"]);
    let (p, dwp) = (program.to_str().unwrap(), format!("{}.dwp", program.display()));
    tool("dwp", &["-e", p, "-o", &dwp]);
    let objects = std::fs::read_dir(shop.path()).unwrap().map(|entry| entry.unwrap().path());
    objects.filter(|path| path.extension().is_some_and(|e| e == "dwo")).for_each(|path| {
        std::fs::remove_file(path).unwrap();
    });
    let running = Running::start(&program);
    let names = Session::of(&running).names(running.addresses()[1]);
    assert_eq!(names, [at("inner").replace(' ', "+ "), at("middle").replace(' ', "+ "), at("outer")]);
}

#[test]
fn a_program_that_was_deleted_and_one_that_ended() {
    let shop = Workshop::new();
    let program = shop.c(CALLS, "p", &["-g"]);
    let running = Running::start(&program);
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "another file").unwrap();
    let mut session = Session::of(&running);
    let [plain, _, last] = running.addresses()[..] else { panic!() };
    let frames = session.resolve(plain);
    assert_eq!((shown(&frames[0]), &*frames[0].module), (at("plain"), program.to_str().unwrap()));
    running.end();
    assert_eq!(session.names(last), [at("last")]);
}

#[test]
fn without_descriptors_names_last_as_long_as_the_process() {
    let shop = Workshop::new();
    let running = Running::start(&shop.c(CALLS, "p", &["-g"]));
    let [plain, _, last] = running.addresses()[..] else { panic!() };
    let mut early = Session::with(&running, Path::new("/nowhere"), 0);
    let mut late = Session::with(&running, Path::new("/nowhere"), 0);
    assert_eq!(early.names(plain), [at("plain")]);
    running.end();
    assert_eq!(early.names(last), [at("last")], "it was opened in time");
    assert_eq!(late.names(last), ["?"]);
    assert!(late.resolve(last)[0].build_id.is_some());
}

#[test]
fn two_libraries_at_the_same_address_in_different_generations() {
    let shop = Workshop::new();
    let library = |name: &str| {
        let source = format!(
            "__attribute__((noinline)) static void *in_{name}(void *(*where)(void)) {{ void *r = where(); return r; }}\n\
             void *enter(void *(*where)(void)) {{ void *r = in_{name}(where); return r; }}"
        );
        shop.c(&source, &format!("{name}.so"), &["-g", "-shared", "-fPIC"])
    };
    let (red, blue) = (library("red_"), library("blue"));
    let source = format!(
        r#"#include <dlfcn.h>
        #include <stdio.h>
        void *where(void) {{ return __builtin_return_address(0); }}
        static void *load(const char *path) {{
            void *library = dlopen(path, RTLD_NOW);
            void *(*enter)(void *(*)(void)) = dlsym(library, "enter");
            printf("%p ready\n", enter(where)); fflush(stdout); getchar();
            dlclose(library);
        }}
        int main(void) {{ load("{}"); load("{}"); puts("ready"); fflush(stdout); return getchar(); }}"#,
        red.display(),
        blue.display()
    );
    let mut running = Running::start(&shop.c(&source, "p", &["-g", "-rdynamic", "-w"]));
    let mut session = Session::of(&running);
    let first = running.addresses()[0];
    running.go_on();
    session.registry.capture(session.process, 1).unwrap();
    let second = running.addresses()[0];
    running.go_on();
    session.registry.capture(session.process, 2).unwrap();

    assert_eq!(first, second, "the loader did not use the same place: this test shows nothing");
    assert_eq!(session.resolve_in(0, first)[0].function.as_deref(), Some("in_red_"));
    assert_eq!(session.resolve_in(1, first)[0].function.as_deref(), Some("in_blue"));
    assert_eq!(session.resolve_in(0, first)[0].module, red.to_str().unwrap());
    let unloaded = &session.resolve_in(2, first)[0];
    assert_eq!((&unloaded.function, &*unloaded.module, &unloaded.build_id), (&None, "", &None));
    assert_eq!(unloaded.offset, unloaded.address);
}

#[test]
fn a_program_and_its_debug_file_in_another_mount_namespace() {
    let shop = Workshop::new();
    let program = shop.c(CALLS, "p", &["-g"]);
    let build_id =
        crate::target::Elf::read(&std::fs::File::open(&program).unwrap()).unwrap().build_id.unwrap();
    let debug = split(&program);
    let hidden = shop.path().join("hidden");
    std::fs::create_dir(&hidden).unwrap();
    let script = format!(
        "mount -t tmpfs none {0} && mkdir -p {0}/debug/.build-id/{1} && cp {2} {0}/p && \
         cp {3} {0}/debug/.build-id/{1}/{4}.debug && exec {0}/p",
        hidden.display(),
        &build_id[..2],
        program.display(),
        debug.display(),
        &build_id[2..]
    );
    let mut command = Command::new("unshare");
    let Some(running) = Running::try_start(command.args(["-m", "sh", "-c", &script])) else {
        eprintln!("skipped: may not make a mount namespace");
        return;
    };
    std::fs::remove_file(debug).unwrap();
    assert!(!hidden.join("p").exists());
    let [plain, _, last] = running.addresses()[..] else { panic!() };
    for open_files in [100, 0] {
        let mut session = Session::with(&running, &hidden.join("debug"), open_files);
        let frames = session.resolve(plain);
        assert_eq!(shown(&frames[0]), at("plain"), "{open_files} open files");
        assert_eq!(frames[0].module, hidden.join("p").to_str().unwrap());
    }
    let mut session = Session::with(&running, &hidden.join("debug"), 100);
    assert_eq!(session.names(plain), [at("plain")]);
    running.end();
    assert_eq!(session.names(last), [at("last")]);
}

#[test]
fn a_file_that_can_not_be_parsed_costs_its_own_names_only() {
    let shop = Workshop::new();
    let program = shop.c(CALLS, "p", &["-g"]);
    let broken = shop.path().join("broken");
    let section = "--update-section";
    let nonsense = shop.write("nonsense", &"\u{ff}".repeat(500));
    let nonsense = format!(".debug_info={}", nonsense.display());
    tool("objcopy", &[section, &nonsense, program.to_str().unwrap(), broken.to_str().unwrap()]);
    let running = Running::start(&broken);
    let mut session = Session::of(&running);
    assert_eq!(session.names(running.addresses()[0]), ["plain"], "by the symbol table");
}

#[test]
fn generated_code_has_the_names_of_its_perf_map() {
    let shop = Workshop::new();
    // sub rsp, 8; mov rax, where; call rax; add rsp, 8; ret
    let source = r#"#define _GNU_SOURCE
        #include <stdio.h>
        #include <string.h>
        #include <sys/mman.h>
        #include <unistd.h>
        static void *where(void) { return __builtin_return_address(0); }
        static void *run(int fd, int flags, FILE *map, const char *name) {
            unsigned char code[] = "\x48\x83\xec\x08\x48\xb8________\xff\xd0\x48\x83\xc4\x08\xc3";
            void *(*target)(void) = where;
            memcpy(code + 6, &target, 8);
            unsigned char *page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, flags, fd, 0);
            memcpy(page + 64, code, sizeof code);
            if (name) fprintf(map, "%lx %zx %s\n", (long)page + 64, sizeof code, name);
            return ((void *(*)(void))(page + 64))();
        }
        int main(void) {
            char path[64]; sprintf(path, "/tmp/perf-%d.map", getpid());
            FILE *map = fopen(path, "w");
            int fd = memfd_create("code", 0); ftruncate(fd, 4096);
            void *anonymous = run(-1, MAP_PRIVATE | MAP_ANONYMOUS, map, "LazyCompile:*work app.js:7");
            void *shared = run(fd, MAP_SHARED, map, "in memfd");
            void *unnamed = run(-1, MAP_PRIVATE | MAP_ANONYMOUS, map, 0);
            fclose(map);
            printf("%p %p %p ready\n", anonymous, shared, unnamed); fflush(stdout);
            return getchar();
        }"#;
    let running = Running::start(&shop.c(source, "p", &[]));
    let perf_map = PathBuf::from(format!("/tmp/perf-{}.map", running.pid()));
    let _removed_at_the_end = tempfile::TempPath::try_from_path(perf_map).unwrap();
    let [anonymous, shared, unnamed] = running.addresses()[..] else { panic!() };
    let mut session = Session::of(&running);
    let mut late = Session::of(&running);
    let frame = session.resolve(anonymous).remove(0);
    let name = "LazyCompile:*work app.js:7";
    assert_eq!((frame.function.as_deref(), &*frame.module, frame.build_id), (Some(name), "", None));
    let frame = session.resolve(shared).remove(0);
    assert_eq!((frame.function.as_deref(), &*frame.module), (Some("in memfd"), "/memfd:code"));
    assert_eq!(session.names(unnamed), ["?"]);
    running.end();
    assert_eq!(late.names(anonymous), [name], "the map is left behind");
}

#[test]
fn unknown_processes_and_addresses_are_shown_as_they_are() {
    let registry = ModuleRegistry::new(10);
    let process = ProcessKey { pid: Pid(u32::MAX >> 1), start_ns: 0 };
    let frames = Symbolizer::new(Options::default()).resolve(&registry, process, 0, &[0, 0x1234, u64::MAX]);
    let shown: Vec<_> = frames.iter().map(|f| (&*f.address, &*f.offset, &*f.module, &f.function)).collect();
    assert_eq!(
        shown,
        [
            ("0x0", "0x0", "", &None),
            ("0x1234", "0x1234", "", &None),
            ("0xffffffffffffffff", "0xffffffffffffffff", "", &None)
        ]
    );
}

#[test]
fn little_stays_loaded_and_nothing_of_what_is_gone() {
    let shop = Workshop::new();
    let library = |name: &str| {
        let source = format!("void *{name}(void *(*where)(void)) {{ void *r = where(); return r; }}");
        shop.c(&source, &format!("lib{name}.so"), &["-shared", "-fPIC"]);
    };
    for name in ["one", "two", "three"] {
        library(name);
    }
    let source = r#"#include <stdio.h>
        void *one(void *), *two(void *), *three(void *);
        static void *where(void) { return __builtin_return_address(0); }
        int main(void) { printf("%p %p %p ready\n", one(where), two(where), three(where)); fflush(stdout); return getchar(); }"#;
    let directory = shop.path().to_str().unwrap();
    let (here, run_path) = (format!("-L{directory}"), format!("-Wl,-rpath,{directory}"));
    let running = Running::start(&shop.c(source, "p", &[&here, &run_path, "-lone", "-ltwo", "-lthree"]));
    let mut session = Session::of(&running);
    for _ in 0..2 {
        for (address, name) in running.addresses().into_iter().zip(["one", "two", "three"]) {
            assert_eq!(session.names(address), [name]);
        }
    }
    let loaded = session.symbolizer.files.values().filter(|file| file.loaded.is_some()).count();
    assert_eq!((session.symbolizer.files.len(), loaded, session.symbolizer.cached), (3, 2, 3));
    session.registry.forget(session.process);
    session.names(0);
    assert_eq!((session.symbolizer.files.len(), session.symbolizer.cached), (0, 0));
    session.names(0);
    assert!(session.symbolizer.generated.len() <= 1);
}
