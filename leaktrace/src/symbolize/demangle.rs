//! Names as they were written.
//!
//! Comes in: a symbol. Goes out: the C++ or Rust name that it encodes, else the symbol. Never: takes a C name for an
//! encoding: `t` is a function, although it encodes `unsigned short` inside a C++ name, which is why blazesym's own
//! demangling, that tries every name of unknown language, is not used.

use std::borrow::Cow;

/// Demangles a symbol.
pub(super) fn demangle(symbol: &str) -> Cow<'_, str> {
    if !symbol.starts_with("_Z") && !symbol.starts_with("_R") {
        return Cow::Borrowed(symbol);
    }
    if let Ok(rust) = rustc_demangle::try_demangle(symbol) {
        // Without the hash.
        return Cow::Owned(format!("{rust:#}"));
    }
    cpp_demangle::Symbol::new(symbol)
        .ok()
        .and_then(|cxx| cxx.demangle().ok())
        .map_or(Cow::Borrowed(symbol), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn mangled_names_are_demangled_and_no_others() {
        for (symbol, name) in [
            ("_Z3addii", "add(int, int)"),
            ("_ZNSt6vectorIiSaIiEE9push_backEOi", "std::vector<int, std::allocator<int> >::push_back(int&&)"),
            ("_ZN4core3ptr13drop_in_place17h0123456789abcdefE", "core::ptr::drop_in_place"),
            ("_RNvCskwGfYPst2Cb_3foo16example_function", "foo::example_function"),
            ("t", "t"),
            ("i", "i"),
            ("main", "main"),
            ("_ZZZ", "_ZZZ"),
        ] {
            assert_eq!(demangle(symbol), name);
        }
    }
}
