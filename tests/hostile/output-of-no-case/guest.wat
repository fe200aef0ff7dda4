(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (drop (call $return (i32.const 16) (i32.const 2)))
  (i32.store8 (i32.const 136) (i32.const 9))
  (i32.const 128))
