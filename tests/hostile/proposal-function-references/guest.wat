(type $f (func))
(func $calls (param (ref $f)) (call_ref $f (local.get 0)))
