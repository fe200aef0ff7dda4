(func $loops (param i32 i32 i32 i32) (result i32) (loop $l (br $l)) (i32.const 0))
(elem (table $hooks) (i32.const 0) func $loops)
