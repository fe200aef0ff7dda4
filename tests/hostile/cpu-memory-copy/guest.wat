(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (drop (memory.grow (i32.const 500)))
  (loop $l
    (memory.copy (i32.const 65536) (i32.const 8000000) (i32.const 24000000))
    (br $l))
  (call $return (i32.const 16) (i32.const 2)))
