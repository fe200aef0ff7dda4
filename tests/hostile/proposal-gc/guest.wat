(type $s (struct (field i32)))
(func $makes (drop (struct.new $s (i32.const 1))))
