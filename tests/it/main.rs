//! Everything that needs more than one module, and the world outside: one binary.

mod bad_input;
mod console;
mod demo;
mod doctor;
mod end_to_end;
mod layers;
mod login;
mod plugins;
mod pull;
mod source;
mod sse;
mod support;
mod swap;
mod tidy;
mod webhook;
mod websocket;
