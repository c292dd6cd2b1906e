//! A plugin as text that adds its version to every row, and how its file is saved.

use std::path::Path;

use serde_json::Value;

/// A plugin that adds its version to every row, called for each: the plan has one shape, with the
/// input's column `id` and the constant `version`, and every verdict is `pass`.
pub fn stamp(version: u32) -> Vec<u8> {
    stamp_with(version, "")
}

/// The same, with code that runs at the start of `process`.
pub fn stamp_with(version: u32, process: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (memory (export "memory") 4)
          (global $top (mut i32) (i32.const 65536))
          (data (i32.const 16) "stamp1.0.0idversionv{version:03}")
          ;; columns: id = input 0; version = fixed, the last four bytes of the text above
          (data (i32.const 512) "\1a\00\00\00\02\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00")
          (data (i32.const 532) "\1c\00\00\00\07\00\00\00\02\00\00\00\23\00\00\00\04\00\00\00")
          ;; the shape: no table, two columns
          (data (i32.const 600) "\00\00\00\00\00\00\00\00\00\00\00\00\00\02\00\00\02\00\00\00")
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
            (global.set $top (i32.add (local.get $at) (local.get 3)))
            (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
              (then (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))))
            (local.get $at))
          (func (export "walmill:plugin/lifecycle@0.1.0#describe") (result i32)
            (i32.store (i32.const 1024) (i32.const 16)) (i32.store (i32.const 1028) (i32.const 5))
            (i32.store (i32.const 1032) (i32.const 21)) (i32.store (i32.const 1036) (i32.const 5))
            (i32.const 1024))
          (func (export "walmill:plugin/lifecycle@0.1.0#init")
            (param i32 i32 i32 i32 i32) (result i32) (i32.const 1088))
          (func (export "walmill:plugin/transform@0.1.0#on-relation")
            (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            ;; ok(plan): mode call, one shape, which passed rows get
            (i32.store (i32.const 1172) (i32.const 600)) (i32.store (i32.const 1176) (i32.const 1))
            (i32.store8 (i32.const 1180) (i32.const 1)) (i32.store (i32.const 1184) (i32.const 0))
            (i32.const 1152))
          (func (export "walmill:plugin/transform@0.1.0#process") (param i32) (result i32)
            {process}
            ;; as many zeros as there are events
            (i32.store (i32.const 1284) (i32.const 2048))
            (i32.store (i32.const 1288) (i32.load (local.get 0)))
            (i32.const 1280))
          (func (export "cabi_post_walmill:plugin/transform@0.1.0#process") (param i32)
            (global.set $top (i32.const 65536))))"#
    );
    wat::parse_str(text).expect("valid text")
}

/// As an editor or a compiler that is careful would save it, and as one that is not.
pub fn save(folder: &Path, bytes: &[u8], careful: bool) {
    let file = folder.join("stamp.wasm");
    if careful {
        std::fs::write(folder.join("stamp.new"), bytes).expect("write");
        std::fs::rename(folder.join("stamp.new"), file).expect("rename");
    } else {
        std::fs::write(file, bytes).expect("write");
    }
}

/// Which version an event has seen.
pub fn version(event: &Value) -> u32 {
    let version = event["data"]["record"]["version"].as_str().expect("a version");
    version.trim_start_matches('v').parse().expect("a number")
}
