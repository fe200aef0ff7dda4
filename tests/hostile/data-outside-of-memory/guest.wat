(data (i32.const 0x7fffffff) "x")
