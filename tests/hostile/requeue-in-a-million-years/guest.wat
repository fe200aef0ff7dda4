(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (i32.store8 (i32.const 136) (i32.const 2))
  (i64.store (i32.const 144) (i64.const -1))
  (i32.const 128))
