(data (i32.const 4096) "\ff\fe")
(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (call $write (i32.const 1) (i32.const 4096) (i32.const 2))
  (call $return (i32.const 16) (i32.const 2)))
