//! Everything that needs more than one module, and the world outside: one binary.

mod alive;
mod bad_input;
mod console;
mod demo;
mod differential;
mod encoder;
mod end_to_end;
mod fuzzed;
mod layers;
mod oracle;
mod plugins;
mod postgres18;
mod protocol;
mod pull;
mod source;
mod sse;
mod support;
mod swap;
mod tidy;
mod webhook;
mod websocket;
