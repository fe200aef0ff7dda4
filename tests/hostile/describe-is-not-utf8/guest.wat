(data (i32.const 4096) "\ff\fe\fd")
(data (i32.const 32) "\00\10\00\00\03\00\00\00")
