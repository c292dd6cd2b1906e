//! Parses arguments, runs one command, exits.

fn main() {}
