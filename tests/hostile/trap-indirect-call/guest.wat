(type $other (func (result i32)))
(func $does-nothing)
(table $one funcref (elem $does-nothing))
(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (call_indirect $one (type $other) (i32.const 0))
  drop
  (call $return (i32.const 16) (i32.const 2)))
