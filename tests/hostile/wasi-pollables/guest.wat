(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (local $i i32)
  (loop $l
    (i32.store (i32.add (i32.const 4096) (i32.mul (local.get $i) (i32.const 4))) (call $sleep (i64.const 3600000000000)))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if $l (i32.lt_u (local.get $i) (i32.const 1500))))
  (call $poll-all (i32.const 4096) (i32.const 1500) (i32.const 64))
  (call $return (i32.const 16) (i32.const 2)))
