//! Everything that needs more than one module, and the world outside: one binary.

mod end_to_end;
mod support;
