(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (call $write (i32.const 1) (i32.const 0x7ffffff0) (i32.const 100))
  (call $return (i32.const 16) (i32.const 2)))
