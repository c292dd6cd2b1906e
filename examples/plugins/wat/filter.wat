;; Keeps the rows of one country: a plugin without a compiler. What walmill calls is exported under
;; the names that the component model's canonical ABI gives the functions of wit/walmill.wit;
;; walmill makes a component of it when it loads the file.
(module
  (memory (export "memory") 1)

  ;; Below 1024 are texts and answers, behind that the memory of a call, which starts over when
  ;; its answer has been read.
  (global $free (mut i32) (i32.const 1024))
  (data (i32.const 0) "filter")
  (data (i32.const 8) "0.1.0")
  (data (i32.const 16) "no column `country`")

  ;; walmill asks for the room of a call's arguments, and never for more of the same.
  (func $allocate (export "cabi_realloc")
    (param $old i32) (param $old_size i32) (param $alignment i32) (param $size i32) (result i32)
    (local $start i32) (local $missing i32)
    ;; start = (free + alignment - 1) & -alignment
    (local.set $start
      (i32.and
        (i32.add (global.get $free) (i32.sub (local.get $alignment) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $alignment))))
    (global.set $free (i32.add (local.get $start) (local.get $size)))
    ;; in pages of 64 KiB
    (local.set $missing
      (i32.sub
        (i32.shr_u (i32.add (global.get $free) (i32.const 65535)) (i32.const 16))
        (memory.size)))
    (if (i32.gt_s (local.get $missing) (i32.const 0))
      (then
        (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1)) (then (unreachable)))))
    (local.get $start))

  (func $release (global.set $free (i32.const 1024)))
  (func (export "cabi_post_walmill:plugin/transform@0.1.0#on-relation") (param i32) (call $release))
  (func (export "cabi_post_walmill:plugin/transform@0.1.0#process") (param i32) (call $release))

  ;; description at 64: name, version, no host interfaces, no schema
  (func (export "walmill:plugin/lifecycle@0.1.0#describe") (result i32)
    (i32.store offset=4 (i32.const 64) (i32.const 6))
    (i32.store offset=8 (i32.const 64) (i32.const 8))
    (i32.store offset=12 (i32.const 64) (i32.const 5))
    (i32.const 64))

  ;; result at 128: ok. There is no config to find anything wrong with.
  (func (export "walmill:plugin/lifecycle@0.1.0#init")
    (param $config i32) (param $length i32) (param $worker i32) (param $workers i32)
    (param $dry_run i32) (result i32)
    (call $release)
    (i32.const 128))

  ;; result at 192: a plan, or why there is none
  (func (export "walmill:plugin/transform@0.1.0#on-relation")
    (param $id i32) (param $schema i32) (param $schema_length i32) (param $table i32)
    (param $table_length i32) (param $columns i32) (param $count i32) (param $full_old_rows i32)
    (result i32)
    (local $index i32)
    (block $found
      (loop $next
        (if (i32.eq (local.get $index) (local.get $count))
          (then
            (i32.store8 offset=0 (i32.const 192) (i32.const 1))
            (i32.store offset=4 (i32.const 192) (i32.const 16))
            (i32.store offset=8 (i32.const 192) (i32.const 19))
            (return (i32.const 192))))
        (br_if $found
          (call $is_country (i32.load (local.get $columns)) (i32.load offset=4 (local.get $columns))))
        (local.set $columns (i32.add (local.get $columns) (i32.const 24)))
        (local.set $index (i32.add (local.get $index) (i32.const 1)))
        (br $next)))
    ;; ok; mode: call; needs: the one index, which stands at 252; nothing else
    (i32.store (i32.const 252) (local.get $index))
    (i32.store offset=0 (i32.const 192) (i32.const 0))
    (i32.store offset=4 (i32.const 192) (i32.const 0))
    (i32.store offset=8 (i32.const 192) (i32.const 252))
    (i32.store offset=12 (i32.const 192) (i32.const 1))
    (i32.const 192))

  ;; "coun" and "ntry", with the least byte first
  (func $is_country (param $name i32) (param $length i32) (result i32)
    (if (i32.ne (local.get $length) (i32.const 7)) (then (return (i32.const 0))))
    (i32.and
      (i32.eq (i32.load (local.get $name)) (i32.const 0x6e756f63))
      (i32.eq (i32.load offset=3 (local.get $name)) (i32.const 0x7972746e))))

  ;; result at 256: verdicts, and ten empty lists
  (func (export "walmill:plugin/transform@0.1.0#process") (param $batch i32) (result i32)
    (local $count i32) (local $event i32) (local $verdicts i32) (local $op i32)
    (local.set $count (i32.load (local.get $batch)))
    (local.set $verdicts
      (call $allocate (i32.const 0) (i32.const 0) (i32.const 1) (local.get $count)))
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $event) (local.get $count)))
        (local.set $op
          (i32.load8_u (i32.add (i32.load offset=4 (local.get $batch)) (local.get $event))))
        ;; drop = a row (insert, update, snapshot), and not of the country
        (i32.store8
          (i32.add (local.get $verdicts) (local.get $event))
          (i32.and
            (i32.or (i32.le_u (local.get $op) (i32.const 1)) (i32.eq (local.get $op) (i32.const 5)))
            (i32.eqz (call $is_kept (local.get $batch) (local.get $event)))))
        (local.set $event (i32.add (local.get $event) (i32.const 1)))
        (br $next)))
    (i32.store offset=4 (i32.const 256) (local.get $verdicts))
    (i32.store offset=8 (i32.const 256) (local.get $count))
    (i32.const 256))

  ;; Whether the event's one cell is the text "NZ".
  (func $is_kept (param $batch i32) (param $event i32) (result i32)
    (local $starts i32) (local $cell i32) (local $data i64)
    (local.set $starts
      (i32.add
        (i32.load offset=36 (local.get $batch))
        (i32.shl (local.get $event) (i32.const 2))))
    (local.set $cell (i32.load (local.get $starts)))
    ;; no cell at all, in what is no row
    (if (i32.eq (local.get $cell) (i32.load offset=4 (local.get $starts)))
      (then (return (i32.const 0))))
    ;; its tag: text
    (if
      (i32.ne
        (i32.load8_u (i32.add (i32.load offset=44 (local.get $batch)) (local.get $cell)))
        (i32.const 16))
      (then (return (i32.const 0))))
    (local.set $data
      (i64.load
        (i32.add
          (i32.load offset=52 (local.get $batch))
          (i32.shl (local.get $cell) (i32.const 3)))))
    ;; its length
    (if (i32.ne (i32.wrap_i64 (local.get $data)) (i32.const 2)) (then (return (i32.const 0))))
    ;; its bytes in the heap
    (i32.eq
      (i32.load16_u
        (i32.add
          (i32.load offset=60 (local.get $batch))
          (i32.wrap_i64 (i64.shr_u (local.get $data) (i64.const 32)))))
      (i32.const 0x5a4e)))
)
