(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (call $poll-all (i32.const 0) (i32.const 0) (i32.const 4200))
  (call $return (i32.const 16) (i32.const 2)))
