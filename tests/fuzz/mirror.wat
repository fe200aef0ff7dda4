;; Returns the given bytes. Inputs: a letter, and bytes as hexadecimal digits.
;; `o` one output, `l` the same twice, `p` the data of a prune, `f` the message and
;; the details of a failure, `r` the first eight bytes as a delay.
(func $digit (param $c i32) (result i32)
  (if (i32.gt_u (local.get $c) (i32.const 57)) (then (return (i32.sub (local.get $c) (i32.const 87)))))
  (i32.sub (local.get $c) (i32.const 48)))

(func (export "execute") (param $node i32) (param $node-len i32) (param $in i32) (param $len i32) (result i32)
  (local $way i32) (local $i i32) (local $n i32)
  (local.set $way (i32.load8_u (local.get $in)))
  (local.set $n (i32.shr_u (i32.sub (local.get $len) (i32.const 1)) (i32.const 1)))
  ;; In place: each byte is written before the digits that are read next.
  (block $done
    (loop $l
      (br_if $done (i32.ge_u (local.get $i) (local.get $n)))
      (i32.store8 (i32.add (local.get $in) (local.get $i))
        (i32.or
          (i32.shl (call $digit (i32.load8_u offset=1 (i32.add (local.get $in) (i32.shl (local.get $i) (i32.const 1))))) (i32.const 4))
          (call $digit (i32.load8_u offset=2 (i32.add (local.get $in) (i32.shl (local.get $i) (i32.const 1)))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $l)))
  (if (i32.eq (local.get $way) (i32.const 112)) ;; p
    (then
      (i32.store8 (i32.const 136) (i32.const 1))
      (i32.store8 (i32.const 144) (i32.const 1))
      (i32.store (i32.const 148) (local.get $in))
      (i32.store (i32.const 152) (local.get $n))
      (return (i32.const 128))))
  (if (i32.eq (local.get $way) (i32.const 102)) ;; f
    (then
      (i32.store8 (i32.const 128) (i32.const 1))
      (i32.store (i32.const 136) (local.get $in))
      (i32.store (i32.const 140) (local.get $n))
      (i32.store8 (i32.const 144) (i32.and (local.get $n) (i32.const 1)))
      (i32.store8 (i32.const 148) (i32.const 1))
      (i32.store (i32.const 152) (local.get $in))
      (i32.store (i32.const 156) (local.get $n))
      (return (i32.const 128))))
  (if (i32.eq (local.get $way) (i32.const 114)) ;; r
    (then
      (i32.store8 (i32.const 136) (i32.const 2))
      (i64.store (i32.const 144) (i64.load (local.get $in)))
      (return (i32.const 128))))
  (drop (call $return (local.get $in) (local.get $n)))
  (if (i32.eq (local.get $way) (i32.const 108)) ;; l
    (then
      (i32.store (i32.const 72) (local.get $in))
      (i32.store (i32.const 76) (local.get $n))
      (i32.store (i32.const 148) (i32.const 2))))
  (i32.const 128))
