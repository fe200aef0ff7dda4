(memory $large 16384)
