(func (export "describe") (result i32)
  (local $i i32)
  ;; Random letters in the words.
  (call $random-bytes (i64.const 8) (i32.const 256))
  (loop $l
    (i32.store8 (i32.add (i32.const 32810) (local.get $i))
      (i32.add (i32.const 97)
        (i32.rem_u (i32.load8_u (i32.add (i32.load (i32.const 256)) (local.get $i))) (i32.const 26))))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if $l (i32.lt_u (local.get $i) (i32.const 8))))
  (i32.const 32))
