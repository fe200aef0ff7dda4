(func $run (loop $l (br $l)))
(start $run)
