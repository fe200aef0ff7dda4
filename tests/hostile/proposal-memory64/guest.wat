(memory $big i64 1)
