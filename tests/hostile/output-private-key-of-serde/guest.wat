(data (i32.const 4096) "{\22x\22:{\22$serde_json::private::RawValue\22:\22{\22}}")
(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (call $return (i32.const 4096) (i32.const 44)))
