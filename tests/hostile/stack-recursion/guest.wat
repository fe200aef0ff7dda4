(func $deep (call $deep) (call $deep))
(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (call $deep)
  (call $return (i32.const 16) (i32.const 2)))
