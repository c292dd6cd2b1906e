//! Everything that needs more than one module, and the world outside: one binary.

mod alive;
mod bad_input;
mod console;
mod demo;
mod doctor;
mod end_to_end;
mod layers;
mod login;
mod plugins;
mod protocol;
mod pull;
mod schema;
mod slot;
mod snapshot;
mod source;
mod sse;
mod support;
mod swap;
mod tidy;
mod values;
mod webhook;
mod websocket;
