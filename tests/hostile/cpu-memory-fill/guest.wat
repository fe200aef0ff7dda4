(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (drop (memory.grow (i32.const 500)))
  (loop $l
    (memory.fill (i32.const 65536) (i32.const 1) (i32.const 32000000))
    (br $l))
  (call $return (i32.const 16) (i32.const 2)))
