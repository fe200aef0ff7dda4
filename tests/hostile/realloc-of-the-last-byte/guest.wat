(func $lies (param i32 i32 i32 i32) (result i32)
  (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1)))
(elem (table $hooks) (i32.const 0) func $lies)
