//! A plugin that takes the column `value` of each row in, and hands the same cell back as one that
//! it computed: a value that comes out right has crossed the boundary both ways.

/// For tables of two columns, the second of which is the value.
pub fn plugin() -> Vec<u8> {
    wat::parse_str(TEXT).expect("valid text")
}

const TEXT: &str = r#"(module
  (memory (export "memory") 8)
  (global $top (mut i32) (i32.const 65536))
  (data (i32.const 16) "echo1.0.0idvalue")
  ;; columns: id = input 0; value = computed, its tag written by on-relation
  (data (i32.const 512) "\19\00\00\00\02\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00")
  (data (i32.const 532) "\1b\00\00\00\05\00\00\00\01\00\00\00\00\00\00\00\00\00\00\00")
  ;; needs: column 1
  (data (i32.const 580) "\01\00\00\00")
  ;; verdicts: emit, for as many events as a call has at most
  (func $fill (local $at i32)
    (loop $next
      (i32.store8 (i32.add (i32.const 2048) (local.get $at)) (i32.const 2))
      ;; row-events: each event its row
      (i32.store (i32.add (i32.const 4096) (i32.mul (local.get $at) (i32.const 4)))
        (local.get $at))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 1024)))))
  (start $fill)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (block $roomy
      (loop $grow
        (br_if $roomy (i32.le_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))))
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (br $grow)))
    (local.get $at))
  (func (export "walmill:plugin/lifecycle@0.1.0#describe") (result i32)
    (i32.store (i32.const 1024) (i32.const 16)) (i32.store (i32.const 1028) (i32.const 4))
    (i32.store (i32.const 1032) (i32.const 20)) (i32.store (i32.const 1036) (i32.const 5))
    (i32.const 1024))
  (func (export "walmill:plugin/lifecycle@0.1.0#init")
    (param i32 i32 i32 i32 i32) (result i32) (i32.const 1088))
  (func (export "walmill:plugin/transform@0.1.0#on-relation")
    (param i32 i32 i32 i32 i32) (param $columns i32) (param i32 i32) (result i32)
    ;; a column has 24 bytes; its tag stands at 20
    (i32.store8 (i32.const 544)
      (i32.load8_u (i32.add (local.get $columns) (i32.const 44))))
    ;; the shape: no table, two columns
    (i32.store (i32.const 612) (i32.const 512)) (i32.store (i32.const 616) (i32.const 2))
    ;; ok(plan): mode call, needs, one shape, no shape for rows that pass
    (i32.store (i32.const 1160) (i32.const 580)) (i32.store (i32.const 1164) (i32.const 1))
    (i32.store (i32.const 1172) (i32.const 600)) (i32.store (i32.const 1176) (i32.const 1))
    (i32.const 1152))
  (func (export "walmill:plugin/transform@0.1.0#process") (param $batch i32) (result i32)
    (local $count i32)
    (local.set $count (i32.load (local.get $batch)))
    ;; ok(outcome): verdicts, row-events, row-shapes (all 0)
    (i32.store (i32.const 1284) (i32.const 2048)) (i32.store (i32.const 1288) (local.get $count))
    (i32.store (i32.const 1300) (i32.const 4096)) (i32.store (i32.const 1304) (local.get $count))
    (i32.store (i32.const 1308) (i32.const 16384)) (i32.store (i32.const 1312) (local.get $count))
    ;; starts, tags, data, heap: those of the batch
    (memory.copy (i32.const 1324) (i32.add (local.get $batch) (i32.const 36)) (i32.const 32))
    (i32.const 1280))
  (func (export "cabi_post_walmill:plugin/transform@0.1.0#process") (param i32)
    (global.set $top (i32.const 65536))))"#;
