;; The frame of each guest.wat of these cases: a hand-written plugin of one node,
;; `attack`. A case has the functions of the module $main and may use all of this
;; file; missing functions get harmless defaults. The runner replaces names between
;; two at signs (tests/src/guest.rs).
;;
;; A case finds in $main: the memory (4096 to 32767 is free for its data), $return
;; (of a text: the completion of one output), the table $hooks (its first function
;; replaces the allocator), and the host's functions below, lowered.
(component
  (import "exosphere:node/context@0.1.0" (instance $context
    (export "attempt" (func (result u32)))
    (export "namespace" (func (result string)))))
  (import "exosphere:node/log@0.1.0" (instance $log
    (type $l (enum "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $l)))
    (export "write" (func (param "level" $level) (param "message" string)))))
  (import "exosphere:node/store@0.1.0" (instance $store
    (export "get" (func (param "key" string) (result (option string))))
    (export "set" (func (param "key" string) (param "value" string)))
    (export "increment" (func (param "key" string) (param "by" s64)))))
  (import "exosphere:node/secrets@0.1.0" (instance $secrets
    (export "get" (func (param "name" string) (result (option string))))))
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))
    (export "poll" (func (param "in" (list (borrow $p))) (result (list u32))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $p))
    (export "pollable" (type $q (eq $p)))
    (export "now" (func (result u64)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $q))))))
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
  @component@
  ;; The memory, and an allocator that frees nothing.
  (core module $libc
    (type $allocate (func (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") @pages@)
    (table $hooks (export "hooks") 1 funcref)
    (global $next (mut i32) (i32.const @heap@))
    (func (export "realloc") (type $allocate)
      (local $at i32)
      (if (i32.eqz (ref.is_null (table.get $hooks (i32.const 0))))
        (then (return (call_indirect $hooks (type $allocate)
          (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 0)))))
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (loop $grow
        (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
          (then
            (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
            (br $grow))))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))

  (core func $attempt (canon lower (func $context "attempt")))
  (core func $namespace (canon lower (func $context "namespace") (memory $memory) (realloc $realloc)))
  (core func $write (canon lower (func $log "write") (memory $memory)))
  (core func $get (canon lower (func $store "get") (memory $memory) (realloc $realloc)))
  (core func $set (canon lower (func $store "set") (memory $memory)))
  (core func $increment (canon lower (func $store "increment") (memory $memory)))
  (core func $secret (canon lower (func $secrets "get") (memory $memory) (realloc $realloc)))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $poll-all (canon lower (func $poll "poll") (memory $memory) (realloc $realloc)))
  (core func $drop (canon resource.drop $pollable))
  (core func $now (canon lower (func $clock "now")))
  (core func $sleep (canon lower (func $clock "subscribe-duration")))
  (core func $random-bytes (canon lower (func $random "get-random-bytes") (memory $memory) (realloc $realloc)))

  (core module $main
    (import "libc" "memory" (memory $memory 1))
    (import "libc" "hooks" (table $hooks 1 funcref))
    (import "host" "attempt" (func $attempt (result i32)))
    (import "host" "namespace" (func $namespace (param $to i32)))
    (import "host" "write" (func $write (param $level i32) (param $text i32) (param $len i32)))
    (import "host" "get" (func $get (param $key i32) (param $len i32) (param $to i32)))
    (import "host" "set" (func $set (param $key i32) (param $len i32) (param $value i32) (param $value-len i32)))
    (import "host" "increment" (func $increment (param $key i32) (param $len i32) (param $by i64)))
    (import "host" "secret" (func $secret (param $name i32) (param $len i32) (param $to i32)))
    (import "host" "block" (func $block (param $pollable i32)))
    (import "host" "poll-all" (func $poll-all (param $list i32) (param $len i32) (param $to i32)))
    (import "host" "drop" (func $drop (param $pollable i32)))
    (import "host" "now" (func $now (result i64)))
    (import "host" "sleep" (func $sleep (param $nanos i64) (result i32)))
    (import "host" "random-bytes" (func $random-bytes (param $len i64) (param $to i32)))

    (data (i32.const 16) "{}")
    ;; The result of `describe`: the address and the length of the text.
    (data (i32.const 32) "\00\80\00\00@length@")
    (data (i32.const 32768) "@description@")

    ;; A result (0 is ok) of a completion (0 is outputs): a list of one text.
    (func $return (param $text i32) (param $len i32) (result i32)
      (i32.store (i32.const 64) (local.get $text))
      (i32.store (i32.const 68) (local.get $len))
      (i32.store (i32.const 144) (i32.const 64))
      (i32.store (i32.const 148) (i32.const 1))
      (i32.const 128))
    @functions@)
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "attempt" (func $attempt))
      (export "namespace" (func $namespace))
      (export "write" (func $write))
      (export "get" (func $get))
      (export "set" (func $set))
      (export "increment" (func $increment))
      (export "secret" (func $secret))
      (export "block" (func $block))
      (export "poll-all" (func $poll-all))
      (export "drop" (func $drop))
      (export "now" (func $now))
      (export "sleep" (func $sleep))
      (export "random-bytes" (func $random-bytes))))))

  (type $completion (variant
    (case "outputs" (list string)) (case "prune" (option string)) (case "requeue-after" u64)))
  (type $failure (record
    (field "message" string) (field "retryable" bool) (field "details" (option string))))
  (func $describe (result string)
    (canon lift (core func $main "describe") (memory $memory)))
  (func $execute (param "node" string) (param "inputs" string)
    (result (result $completion (error $failure)))
    (canon lift (core func $main "execute") (memory $memory) (realloc $realloc)))
  ;; A type that a function of an interface uses must be exported by name before
  ;; it, which takes a component that passes everything through.
  (component $interface
    (import "completion-type" (type $completion-in (eq $completion)))
    (import "failure-type" (type $failure-in (eq $failure)))
    (import "describe-it" (func $describe (result string)))
    (import "execute-it" (func $execute (param "node" string) (param "inputs" string)
      (result (result $completion-in (error $failure-in)))))
    (export $completion-out "completion" (type $completion-in))
    (export $failure-out "failure" (type $failure-in))
    (export "describe" (func $describe))
    (export "execute" (func $execute)
      (func (param "node" string) (param "inputs" string)
        (result (result $completion-out (error $failure-out))))))
  (instance $guest (instantiate $interface
    (with "completion-type" (type $completion))
    (with "failure-type" (type $failure))
    (with "describe-it" (func $describe))
    (with "execute-it" (func $execute))))
  (export "exosphere:node/guest@0.1.0" (instance $guest)))
