(data (i32.const 4096) "rubbish")
(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (call $return (i32.const 4096) (i32.const 7)))
