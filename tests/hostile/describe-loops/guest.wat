(func (export "describe") (result i32) (loop $l (br $l)) (i32.const 32))
