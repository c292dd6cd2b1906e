//! Everything that needs more than one module, and the world outside: one binary.

mod bad_input;
mod console;
mod end_to_end;
mod pull;
mod source;
mod sse;
mod support;
mod swap;
mod websocket;
