(memory $small 1 (pagesize 1))
