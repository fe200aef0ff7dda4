(data (i32.const 32) "\00\80\00\00\ff\ff\ff\7f")
