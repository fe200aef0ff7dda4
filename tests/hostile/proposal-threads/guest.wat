(memory $shared 1 2 shared)
