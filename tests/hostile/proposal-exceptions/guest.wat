(tag $t)
(func $throws (throw $t))
