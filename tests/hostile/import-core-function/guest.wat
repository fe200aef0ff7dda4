(component
  (import "env" (core module $env))
  (core instance (instantiate $env)))
