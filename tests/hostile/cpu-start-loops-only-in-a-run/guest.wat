(func $run
  (if (call $attempt) (then (loop $l (br $l)))))
(start $run)
