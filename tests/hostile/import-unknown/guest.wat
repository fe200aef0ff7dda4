(component
  (import "evil:host/shell@1.0.0" (instance (export "run" (func (param "command" string))))))
