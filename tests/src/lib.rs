//! Harness for the tests that trace real programs.
