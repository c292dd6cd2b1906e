(module
  ;; For core modules that import WASI preview 1: the world with nothing in it that WASI 0.2 guests
  ;; get, in the form of the older interface. No arguments, no environment, no files. The wall clock
  ;; says when the event was committed; the others move a microsecond each time they are read, since
  ;; some runtimes wait for that. Random numbers are the host's. What is written to standard output
  ;; and error goes to the plugin's log. proc_exit traps.
  ;;
  ;; preview1.wasm is this text as a binary; a test compares them.
  (import "env" "memory" (memory 0))
  (import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
  (import "walmill:plugin/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  (global $tick (mut i64) (i64.const 0))

  (func $zero2 (param i32 i32) (result i32)            ;; two counts, both 0
    (i32.store (local.get 0) (i32.const 0)) (i32.store (local.get 1) (i32.const 0)) (i32.const 0))
  (func $ok2 (param i32 i32) (result i32) (i32.const 0))
  (func $badf1 (param i32) (result i32) (i32.const 8))
  (func $badf2 (param i32 i32) (result i32) (i32.const 8))
  (func $badf3 (param i32 i32 i32) (result i32) (i32.const 8))

  (export "args_sizes_get" (func $zero2))
  (export "args_get" (func $ok2))
  (export "environ_sizes_get" (func $zero2))
  (export "environ_get" (func $ok2))
  (func (export "clock_res_get") (param i32 i32) (result i32)
    (i64.store (local.get 1) (i64.const 1)) (i32.const 0))
  (func (export "clock_time_get") (param i32 i64 i32) (result i32)
    (if (i32.eqz (local.get 0))
      (then (i64.store (local.get 2) (call $now)) (return (i32.const 0))))
    (global.set $tick (i64.add (global.get $tick) (i64.const 1000)))
    (i64.store (local.get 2) (global.get $tick)) (i32.const 0))
  (func (export "random_get") (param $p i32) (param $n i32) (result i32)
    (local $x i64) (local $left i32)
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get $n)))
      (if (i32.eqz (local.get $left))
        (then (local.set $x (call $random)) (local.set $left (i32.const 8))))
      (i32.store8 (local.get $p) (i32.wrap_i64 (local.get $x)))
      (local.set $x (i64.shr_u (local.get $x) (i64.const 8)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br $more)))
    (i32.const 0))

  ;; how many bytes the UTF-8 character at $p has, of the $n that are there; 0: it is none
  (func $character (param $p i32) (param $n i32) (result i32)
    (local $first i32) (local $second i32) (local $length i32) (local $at i32)
    (local.set $first (i32.load8_u (local.get $p)))
    (if (i32.lt_u (local.get $first) (i32.const 0x80)) (then (return (i32.const 1))))
    (if (i32.lt_u (local.get $first) (i32.const 0xc2)) (then (return (i32.const 0))))
    (if (i32.gt_u (local.get $first) (i32.const 0xf4)) (then (return (i32.const 0))))
    (local.set $length (i32.add (i32.const 2) (i32.add
      (i32.ge_u (local.get $first) (i32.const 0xe0)) (i32.ge_u (local.get $first) (i32.const 0xf0)))))
    (if (i32.lt_u (local.get $n) (local.get $length)) (then (return (i32.const 0))))
    (local.set $at (i32.const 1))
    (loop $next
      (if (i32.ne (i32.const 0x80) (i32.and (i32.const 0xc0)
          (i32.load8_u (i32.add (local.get $p) (local.get $at)))))
        (then (return (i32.const 0))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $length))))
    ;; overlong, a surrogate, beyond the last one
    (local.set $second (i32.load8_u offset=1 (local.get $p)))
    (if (i32.or
          (i32.or
            (i32.and (i32.eq (local.get $first) (i32.const 0xe0)) (i32.lt_u (local.get $second) (i32.const 0xa0)))
            (i32.and (i32.eq (local.get $first) (i32.const 0xed)) (i32.gt_u (local.get $second) (i32.const 0x9f))))
          (i32.or
            (i32.and (i32.eq (local.get $first) (i32.const 0xf0)) (i32.lt_u (local.get $second) (i32.const 0x90)))
            (i32.and (i32.eq (local.get $first) (i32.const 0xf4)) (i32.gt_u (local.get $second) (i32.const 0x8f)))))
      (then (return (i32.const 0))))
    (local.get $length))

  ;; a piece of output as a line of the log, up to where it is no text any more
  (func $write (param $level i32) (param $p i32) (param $n i32)
    (local $text i32) (local $length i32)
    ;; not the ends of lines
    (block $trimmed (loop $trim
      (br_if $trimmed (i32.eqz (local.get $n)))
      (br_if $trimmed (i32.ne (i32.const 10)
        (i32.load8_u (i32.sub (i32.add (local.get $p) (local.get $n)) (i32.const 1)))))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br $trim)))
    (block $end (loop $next
      (br_if $end (i32.ge_u (local.get $text) (local.get $n)))
      (local.set $length (call $character (i32.add (local.get $p) (local.get $text))
        (i32.sub (local.get $n) (local.get $text))))
      (br_if $end (i32.eqz (local.get $length)))
      (local.set $text (i32.add (local.get $text) (local.get $length)))
      (br $next)))
    (if (local.get $text) (then (call $log (local.get $level) (local.get $p) (local.get $text)))))

  (func (export "sched_yield") (result i32) (i32.const 0))
  (func (export "proc_exit") (param i32) unreachable)
  ;; fd_write(fd, iovs, n, nwritten): all of it is taken
  (func (export "fd_write") (param $fd i32) (param $iov i32) (param $n i32) (param $out i32) (result i32)
    (local $sum i32)
    (if (i32.gt_u (local.get $fd) (i32.const 2)) (then (return (i32.const 8))))
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get $n)))
      (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $iov))))
      ;; standard output is info, error a warning
      (call $write (i32.add (i32.const 1) (local.get $fd))
        (i32.load (local.get $iov)) (i32.load offset=4 (local.get $iov)))
      (local.set $iov (i32.add (local.get $iov) (i32.const 8)))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br $more)))
    (i32.store (local.get $out) (local.get $sum)) (i32.const 0))
  (func (export "fd_read") (param i32 i32 i32 i32) (result i32)      ;; end of file
    (i32.store (local.get 3) (i32.const 0)) (i32.const 0))
  ;; 0, 1 and 2 are character devices; nothing else is open
  (func (export "fd_fdstat_get") (param $fd i32) (param $p i32) (result i32)
    (if (i32.gt_u (local.get $fd) (i32.const 2)) (then (return (i32.const 8))))
    (i64.store (local.get $p) (i64.const 2))
    (i64.store offset=8 (local.get $p) (i64.const 0x42))
    (i64.store offset=16 (local.get $p) (i64.const 0))
    (i32.const 0))
  (func (export "fd_filestat_get") (param i32 i32) (result i32) (i32.const 8))
  (export "fd_fdstat_set_flags" (func $ok2))
  (export "fd_prestat_get" (func $badf2))
  (export "fd_prestat_dir_name" (func $badf3))
  (export "fd_close" (func $badf1))
  (export "fd_sync" (func $badf1))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (i32.const 70))
  (func (export "fd_tell") (param i32 i32) (result i32) (i32.const 70))
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_allocate") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_datasync") (param i32) (result i32) (i32.const 8))
  (func (export "fd_renumber") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (i32.const 44))
  (func (export "path_filestat_get") (param i32 i32 i32 i32 i32) (result i32) (i32.const 44))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (i32.const 44))
  (func (export "path_create_directory") (param i32 i32 i32) (result i32) (i32.const 44))
  (func (export "path_remove_directory") (param i32 i32 i32) (result i32) (i32.const 44))
  (func (export "path_unlink_file") (param i32 i32 i32) (result i32) (i32.const 44))
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 44))
  (func (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 44))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 44))
  (func (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32) (i32.const 44))
  ;; nothing to wait for: no event ever comes, and no time passes
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param $n i32) (param $nout i32) (result i32)
    (i64.store (local.get $out) (i64.load (local.get $in)))                 ;; userdata of the first
    (i64.store offset=8 (local.get $out) (i64.extend_i32_u (i32.shl (i32.load8_u offset=8 (local.get $in)) (i32.const 16))))
    (i64.store offset=16 (local.get $out) (i64.const 0))
    (i64.store offset=24 (local.get $out) (i64.const 0))
    (i32.store (local.get $nout) (i32.const 1)) (i32.const 0))
)
