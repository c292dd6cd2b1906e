//! Everything that needs more than one module, and the world outside: one binary.

mod alive;
mod backfill;
mod bad_input;
mod console;
mod demo;
mod end_to_end;
mod layers;
mod plugins;
mod protocol;
mod pull;
mod snapshot;
mod source;
mod sse;
mod support;
mod swap;
mod tidy;
mod webhook;
mod websocket;
