(func $t (param i32) (result i32) (return_call $t (local.get 0)))
