;; A component that makes use of much of the component model, and is no plugin.
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))))
  (core module $m (memory (export "memory") 1) (func (export "f") (param i32 i32) (result i32) (local.get 0))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0)))
  (core instance $i (instantiate $m))
  (type $r (record (field "a" (list (tuple u8 string))) (field "b" (option (result u64 (error (flags "x" "y")))))))
  (type $own (resource (rep i32)))
  (core func $new (canon resource.new $own))
  (component $inner
    (type $v (variant (case "one") (case "two" char) (case "three" f64)))
    (export "v" (type $v)))
  (instance $named (instantiate $inner))
  (func $f (param "text" string) (result u32)
    (canon lift (core func $i "f") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
  (export "inner" (instance $named))
  (export "f" (func $f)))
