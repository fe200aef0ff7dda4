(func $run unreachable)
(start $run)
