//! Tests of walmill from outside, in one binary.

mod layers;
mod tidy;
mod webhook;
